"""A stream for ever: lost and live again, with growing waits, at the first of its URLs that lives."""

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from itertools import pairwise

import pytest

from tests.camera.scene import RestingClock, Scene, Script, garbage, no_redirect, running, until
from tests.camera.streams import capture_threads, packets_of, parameters, settings
from tests.manual_clock import ManualClock
from vigintd import metrics
from vigintd.camera import lane, patience
from vigintd.camera.reasons import lost
from vigintd.camera.stream import Stream, StreamRequest, Wire
from vigintd.clock import Clock
from vigintd.errors import StreamLost
from vigintd.model import Packet
from vigintd.retry import Backoff

FIRST, SECOND = "rtsp://cam:topsecret@10.0.0.11/main", "rtsp://cam:topsecret@10.0.0.12/main"
REFUSED = lost("refused", "x")
WRONG_PASSWORD = lost("unauthorized", "x")


async def opened(script: Script, count: int, url: str | list[str] = FIRST) -> list[tuple[str, float]]:
    """When which URL was opened, so many times, by a clock moved by hand."""
    clock = RestingClock()
    scene = Scene(settings(url), open_stream=script, clock=clock, backoff=Backoff(1, 60), is_redirected=no_redirect)
    began_s = clock.monotonic_s()
    async with running(scene):
        while len(script.opened) < count:
            await clock.pass_one_rest()
    return [(place, at_s - began_s) for place, at_s in script.opened[:count]]


def waits(times: list[tuple[str, float]]) -> list[float]:
    return [later - earlier for (_, earlier), (_, later) in pairwise(times)]


def events(written: str) -> list[dict[str, object]]:
    return [line for line in map(json.loads, written.splitlines()) if str(line["event"]).startswith("camera.")]


class TestBackoff:
    @pytest.mark.parametrize("life", [REFUSED, garbage()], ids=["refused", "garbage"])
    async def test_waits_grow_while_nothing_decodes(self, life):
        """Packets alone are no progress: a camera that sends garbage is asked ever more seldom."""
        found = waits(await opened(Script(life), 6))
        assert all(0.5 * 2**n <= wait <= 0.01 + 2**n for n, wait in enumerate(found)), found

    async def test_a_decoded_key_frame_makes_the_next_wait_short_again(self, annex_b):
        """The camera was really back."""
        good = packets_of(annex_b)[:3]
        found = waits(await opened(Script(REFUSED, REFUSED, REFUSED, good, REFUSED), 6))
        assert found[2] >= 2
        assert found[3] <= 1.01

    async def test_no_wait_is_longer_than_a_minute(self):
        """A camera that was repaired is back soon."""
        found = waits(await opened(Script(REFUSED), 10))
        assert 30 <= max(found) <= 60.01

    async def test_a_wrong_password_is_shown_ever_more_seldom(self):
        """Cameras lock accounts after a few of them."""
        found = waits(await opened(Script(WRONG_PASSWORD), 8))
        assert all(min(15 * 2**n, 300) <= wait <= min(30 * 2**n, 600) + 0.01 for n, wait in enumerate(found)), found
        assert max(found) >= 300


class TestUrls:
    async def test_the_next_one_is_tried_at_once(self, annex_b):
        """The first that lives is kept, and the order begins anew after its life."""
        script = Script(by_url={FIRST: [REFUSED], SECOND: [packets_of(annex_b)[:3]]})
        found = await opened(script, 4, [FIRST, SECOND])
        assert [place for place, _ in found] == [FIRST, SECOND, FIRST, SECOND]
        before, between, after = waits(found)
        assert (before, after) == (0, 0)
        assert 0.5 <= between <= 1.01

    async def test_one_that_opens_and_never_decodes_is_no_better_than_one_that_is_refused(self, annex_b):
        """Garbage costs no wait either."""
        script = Script(by_url={FIRST: [garbage()], SECOND: [packets_of(annex_b)[:3]]})
        found = await opened(script, 2, [FIRST, SECOND])
        assert found == [(FIRST, 0), (SECOND, 0)]

    async def test_when_all_have_failed_there_is_one_growing_wait(self):
        """It is one stream, with one backoff."""
        found = await opened(Script(REFUSED), 8, [FIRST, SECOND])
        assert [place for place, _ in found] == [FIRST, SECOND] * 4
        assert all(wait == 0 for wait in waits(found)[::2])
        assert all(0.5 * 2**n <= wait <= 0.01 + 2**n for n, wait in enumerate(waits(found)[1::2]))

    async def test_one_that_refuses_the_password_rests_while_the_other_is_tried(self):
        """Its account is not locked because the other camera is off."""
        found = await opened(Script(by_url={FIRST: [WRONG_PASSWORD], SECOND: [REFUSED]}), 12, [FIRST, SECOND])
        first = [at_s for place, at_s in found if place == FIRST]
        assert all(later - earlier >= 15 for earlier, later in pairwise(first))
        assert sum(place == SECOND for place, _ in found) > 2 * len(first)

    async def test_status_and_log_tell_which_one_lives(self, annex_b, log):
        """Without the password, and with the reason why it is not the first."""
        script = Script(by_url={FIRST: [REFUSED], SECOND: [packets_of(annex_b)[:3]]})
        scene = Scene(settings([FIRST, SECOND]), open_stream=script, is_redirected=no_redirect)
        async with running(scene):
            await until(lambda: scene.camera.status.packets > 0)
            assert scene.camera.status.url == "rtsp://***@10.0.0.12/main"
            await until(lambda: len(script.opened) >= 4)
        told = events(log.getvalue())
        assert [line["event"] for line in told][:2] == ["camera.url_failed", "camera.live"]
        assert (told[0]["reason"], told[1]["url"]) == ("refused", "rtsp://***@10.0.0.12/main")
        assert "topsecret" not in log.getvalue()

    async def test_when_all_have_failed_the_reason_is_the_first_ones_and_the_sentence_tells_each(self, log):
        """Once, however often they fail in the same way."""
        script = Script(by_url={FIRST: [REFUSED], SECOND: [lost("not_found", "y")]})
        scene = Scene(settings([FIRST, SECOND]), open_stream=script, backoff=Backoff(0.01, 0.02), is_redirected=no_redirect)
        async with running(scene):
            await until(lambda: len(script.opened) >= 8)
            status = scene.camera.status
        assert status.reason == "refused"
        assert "nothing listens" in status.problem
        assert "no such stream" in status.problem
        assert [line["event"] for line in events(log.getvalue())] == ["camera.url_failed", "camera.url_failed", "camera.lost"]


class TestLost:
    async def test_an_outage_is_said_once_for_each_reason(self, log, annex_b):
        """Not at each of the retries that follow."""
        script = Script(REFUSED, REFUSED, REFUSED, packets_of(annex_b)[:3], REFUSED)
        scene = Scene(settings(FIRST), open_stream=script, backoff=Backoff(0.01, 0.02), is_redirected=no_redirect)
        async with running(scene):
            await until(lambda: len(script.opened) >= 7)
        told = events(log.getvalue())
        assert [line["event"] for line in told] == ["camera.lost", "camera.live", "camera.lost", "camera.lost"]
        assert [line.get("reason") for line in told] == ["refused", None, "ended", "refused"]

    async def test_data_that_never_decode_are_garbage(self):
        """Packets go on arriving, but no key frame among them decodes."""
        clock, stop = ManualClock(), threading.Event()

        class Noise:
            def packets(self) -> Iterator[Packet]:
                number = 0
                while not stop.wait(0.001):
                    number += 1
                    yield Packet(b"\x00\x00\x01\x65 noise", number, number, 0, True, clock.monotonic_s(), parameters())

            def interrupt(self) -> None:
                stop.set()

            def wire(self) -> Wire | None:
                return None

            def close(self) -> None: ...

        scene = Scene(settings(FIRST), open_stream=lambda request, clock: Noise(), clock=clock)
        life = asyncio.create_task(scene.camera.run_once())
        while not life.done():
            await clock.asleep() if not stop.is_set() else await asyncio.sleep(0.01)
            await clock.advance(0.5)
            await asyncio.sleep(0.01)
        with pytest.raises(StreamLost) as caught:
            await life
        assert caught.value.reason == "garbage"
        assert scene.camera.status.state == "connecting"

    async def test_a_resolver_that_never_answers_is_dns_too(self, monkeypatch):
        """It may take minutes to say that a name has no address; the camera has not even been asked."""
        monkeypatch.setattr(lane, "_LET_GO_S", 0.01)
        monkeypatch.setattr(patience, "_OPEN_GRACE_S", 0.0)
        hang = threading.Event()
        asked: list[object] = []

        def getaddrinfo(*what: object, **_more: object) -> list[object]:
            asked.append(what)
            hang.wait(20)
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
        scene = Scene(settings("rtsp://cam.example/x", open_timeout_s=0.05), is_redirected=no_redirect)
        async with running(scene):
            await until(lambda: scene.camera.status.state == "lost")
            assert scene.camera.status.reason == "dns"
            assert asked
            hang.set()
        await until(lambda: not capture_threads())

    async def test_readers_that_never_let_go_are_bounded(self, monkeypatch):
        """Each is left behind and counted; with three of them no more are started until one ends."""
        monkeypatch.setattr(lane, "_LET_GO_S", 0.01)
        monkeypatch.setattr(patience, "_OPEN_GRACE_S", 0.0)
        hang = threading.Event()

        def open_stream(request: StreamRequest, clock: Clock) -> Stream:
            hang.wait(20)
            raise lost("timeout", "x")

        given = settings("file:///a.mp4", open_timeout_s=0.01)
        scene = Scene(given, open_stream=open_stream, backoff=Backoff(0.01, 0.01), is_redirected=no_redirect)
        async with running(scene):
            await until(lambda: scene.camera.status.reason == "stuck")
            assert len(capture_threads()) == 3
            assert scene.camera.status.readers_abandoned == 3
            assert metrics.snapshot()["camera.readers_abandoned"] == {"entree": 3}
            hang.set()
            await until(lambda: scene.camera.status.reason == "timeout")
            assert scene.camera.status.readers_abandoned == 0
        await until(lambda: not capture_threads())
