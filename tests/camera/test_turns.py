"""Turns at work on pictures: one after another, and nobody waits for one that hangs."""

from __future__ import annotations

import threading

import pytest

from vigintd import metrics
from vigintd.camera import turns
from vigintd.camera.turns import Queue, Turn

SOON_S = 10.0


class Worker:
    """A thread that takes one turn, says so, and works until it is let go."""

    def __init__(self, turn: Turn) -> None:
        self.is_in, self.let_go = threading.Event(), threading.Event()
        self._turn = turn
        self.thread = threading.Thread(target=self._work)
        self.thread.start()

    def _work(self) -> None:
        with self._turn:
            self.is_in.set()
            assert self.let_go.wait(SOON_S)

    def finish(self) -> None:
        self.let_go.set()
        self.thread.join(SOON_S)
        assert not self.thread.is_alive()


def test_of_one_queue_one_works_at_a_time():
    queue = Queue()
    one = Worker(Turn(queue))
    assert one.is_in.wait(SOON_S)
    other = Worker(Turn(queue))
    assert queue.lock.locked()
    assert not other.is_in.is_set()
    one.finish()
    assert other.is_in.wait(SOON_S)
    other.finish()
    assert not queue.lock.locked()
    assert metrics.snapshot() == {}


def test_a_turn_that_hangs_is_passed_over_and_counted():
    """An inline detector that never answers costs its own camera, and every other one a single wait."""
    queue = Queue()
    hanging = Worker(Turn(queue))
    assert hanging.is_in.wait(SOON_S)
    other = Worker(Turn(queue, hangs_after_s=0.01))
    assert other.is_in.wait(SOON_S)
    assert metrics.snapshot()["camera.turns_passed_over"] == {"": 1}
    hanging.finish()
    assert queue.lock.locked(), "the one that hung has let go of its own turn, not of the other's"
    other.finish()
    with Turn(queue):
        pass
    assert metrics.snapshot()["camera.turns_passed_over"] == {"": 1}


def test_work_that_fails_gives_its_turn_back():
    queue = Queue()
    with pytest.raises(ValueError, match="broken"), Turn(queue):
        raise ValueError("broken")
    assert not queue.lock.locked()


def test_the_turns_of_a_process_go_round_its_queues():
    """So that every core has as much to do as the others."""
    taken = {id(turns.decoding()._queue) for _ in range(2 * len(turns._DECODING))}
    assert len(taken) == len(turns._DECODING)
