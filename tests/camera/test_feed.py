"""Adaptive detection: key frames only while nothing moves, every frame once something might."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.camera.scenes import Eyes, Scene, Seen, Thing, eyes_of, feed_for, lookouts, seen, watching
from tests.camera.streams import packets_of
from tests.real.parts import footage
from vigintd import metrics
from vigintd.camera import attention, lookout
from vigintd.camera.attention import Attention
from vigintd.camera.decode import Decoder
from vigintd.detect.motion import build
from vigintd.model import Frame, Packet

LATE_S = 0.5
"""How much later the adaptive way may find something, in media time."""


def passage(t: float) -> Sequence[Thing]:
    """Somebody comes and goes within a second and a half, between two key frames."""
    return [(0.3 + (t - 37) / 1.5 * 0.25, 0.4, 14, 44, 30)] if 37 <= t < 38.5 else []


def far_walker(t: float) -> Sequence[Thing]:
    """Somebody small who walks for long."""
    return [(0.2 + (t - 30) / 12 * 0.4, 0.5, 5, 12, 30)] if 30 <= t < 42 else []


small = partial(Scene, size=(320, 180), fps=8)
SCENES = {
    scene.name: scene
    for scene in (
        small("passage", 46, passage, gop_s=4),
        small("far walker", 42, far_walker, gop_s=2),
        small("clock", 42, clock=True, gop_s=2),
        small("long passage", 20, lambda t: [(t / 25, 0.4, 14, 44, 30)]),
        small("long gop", 30, gop_s=60),
        small("hevc", 42, passage, gop_s=2, codec="libx265"),
        small("mjpeg", 20, lambda t: [(0.2 + (t - 12) / 10, 0.4, 14, 44, 30)] if 12 <= t < 17 else [], codec="mjpeg"),
    )
}


@pytest.fixture(scope="module")
def recording(tmp_path_factory) -> Callable[[str], list[Packet]]:
    """The packets of a scene, recorded once."""
    folder = tmp_path_factory.mktemp("scenes")
    made: dict[str, list[Packet]] = {}

    def of(name: str) -> list[Packet]:
        if name not in made:
            made[name] = SCENES[name].record(folder / f"{name}.mkv")
        return made[name]

    return of


def finds_as_much(adaptive: Seen, full: Seen) -> None:
    """Every event, and as soon."""
    starts = [begin for begin, _ in adaptive.events]
    spans = adaptive.events
    for begin, _ in full.events:
        assert any(start <= begin + LATE_S and end >= begin - LATE_S for start, end in spans), (begin, starts)


class TestAdaptive:
    @pytest.mark.parametrize("name", ["passage", "far walker", "hevc", "mjpeg"])
    def test_finds_what_full_decoding_finds_and_as_soon(self, recording, name):
        packets = recording(name)
        full = seen(packets, detect_fps=5, sensitivity="high")
        assert full.events
        finds_as_much(seen(packets, detect_fps=None, sensitivity="high"), full)

    @pytest.mark.needs("footage")
    def test_finds_what_full_decoding_finds_on_real_footage(self):
        packets = packets_of(footage())[:250]
        full, adaptive = seen(packets, detect_fps=5), seen(packets, detect_fps=None)
        assert full.events
        # Somebody always walks there, so it is never quiet.
        assert [one.arrived_s for one in adaptive.detections] == [one.arrived_s for one in full.detections]

    @pytest.mark.parametrize(("name", "most"), [("passage", 0.85), ("clock", 0.55)])
    def test_decodes_little_while_nothing_moves(self, recording, name, most):
        """Once it knows the scene; a clock in the picture is no movement."""
        packets = recording(name)
        assert seen(packets, detect_fps=None).pictures < most * len(packets)

    def test_what_comes_and_goes_between_key_frames_is_looked_back_at(self, recording):
        """By the sizes of its packets, and no later than the next key frame; its pictures are shown with their own times."""
        packets = recording("passage")
        attention = watching(eyes := eyes_of(lambda _: None))
        states = {}
        for packet in packets:
            attention.take(packet, Decoder(packet.parameters).decode_key(packet) if packet.is_key else None)
            states[packet.arrived_s] = attention.is_awake
        assert not states[37]
        assert states[39]
        shown = [moment for moment in eyes.shown_s if 36 <= moment <= 39]
        assert all(later - earlier < 0.3 for earlier, later in pairwise(shown))
        assert len(shown) >= 12

    def test_a_clock_in_the_picture_is_never_an_event(self, recording):
        assert seen(recording("clock"), detect_fps=None, sensitivity="high").events == []

    def test_shows_key_frames_while_nothing_moves(self, recording):
        shown = [moment for moment in seen(recording("clock"), detect_fps=None).shown_s if moment > 30]
        assert [round(later - earlier) for earlier, later in pairwise(shown)] == [2] * (len(shown) - 1)
        assert len(shown) >= 4

    def test_tells_of_key_frames_whether_awake_or_quiet(self, recording):
        """At least one for two that came: they are the sign that the stream is alive."""
        packets = recording("passage")
        feed = feed_for([eyes_of(lambda _: None)], detect_fps=None)
        told = 0
        for packet in packets:
            told += feed.see(packet) is not None
            assert feed.drain(10)
        feed.close()
        keys = sum(packet.is_key for packet in packets)
        assert keys / 2 <= told <= keys

    def test_decodes_no_key_frame_twice_while_awake(self, recording, monkeypatch):
        """The thread that decodes everything tells of them."""
        alone = []
        decode_key = Decoder.decode_key

        def counted(self, packet):
            if threading.current_thread() is threading.main_thread():
                alone.append(packet)
            return decode_key(self, packet)

        monkeypatch.setattr(Decoder, "decode_key", counted)
        feed = feed_for([eyes_of(lambda _: None)], detect_fps=None)
        told = 0
        for packet in recording("long passage"):
            told += feed.see(packet) is not None
            assert feed.drain(10)
        feed.close()
        assert told >= 9
        assert len(alone) <= 2

    def test_goes_on_after_damaged_key_frames(self, recording):
        """What cannot be decoded is neither a sign of life nor the end of watching."""
        packets = recording("clock")
        damaged = {packet for packet in packets if packet.is_key and 10 < packet.arrived_s < 30}
        assert damaged
        full = [replace(packet, data=b"\x00\x00\x00\x01\xff" * 40) if packet in damaged else packet for packet in packets]
        eyes = eyes_of(lambda _: None)
        feed = feed_for([eyes], detect_fps=None)
        keys = []
        for packet in full:
            keys.append(feed.see(packet))
            assert feed.drain(10)
        feed.close()
        assert keys[-1] is not None or any(key is not None for key in keys[-20:])
        assert eyes.shown_s[-1] > 38

    def test_a_gop_of_a_minute_is_never_slept_through(self, recording):
        """What a key frame tells would come too late; so everything is decoded, and next to nothing held."""
        packets = recording("long gop")
        attention = watching(eyes := eyes_of(lambda _: None))
        held = []
        for packet in packets:
            attention.take(packet, None)
            held.append(attention.held_bytes)
        assert max(held) == 0
        assert all(later - earlier < 0.3 for earlier, later in pairwise(eyes.shown_s))

    def test_what_is_held_for_looking_back_is_decoded_at_the_bound(self, recording):
        """A GOP larger than the bound is seen in pieces, without a hint."""
        packets = recording("clock")
        decoder = Decoder(packets[0].parameters)
        limit_bytes = 6000
        attention = watching(eyes_of(lambda _: None), limit_bytes=limit_bytes)
        was_full = 0
        for packet in packets:
            attention.take(packet, decoder.decode_key(packet) if packet.is_key else None)
            was_full += 0 < limit_bytes - attention.held_bytes < 1000
            assert attention.held_bytes <= max(limit_bytes, len(packet.data))
        assert attention.is_awake or was_full

    def test_other_parameters_are_another_scene(self, recording):
        """It is awake again, and learns."""
        packets = recording("clock")
        attention = watching(eyes := eyes_of(lambda _: None))
        other = replace(packets[0].parameters)
        again = [replace(packet, parameters=other, arrived_s=packet.arrived_s + 100) for packet in packets[:8]]
        states = []
        for packet in [*packets, *again]:
            attention.take(packet, Decoder(packet.parameters).decode_key(packet) if packet.is_key else None)
            states.append(attention.is_awake)
        assert not states[len(packets) - 1]
        assert states[-1]
        assert sum(moment >= 100 for moment in eyes.shown_s) >= 4


class Hanging:
    """A detector that hangs until it is let go."""

    def __init__(self) -> None:
        self.began = threading.Event()
        self.go_on = threading.Event()

    def __call__(self, _frame: Frame) -> None:
        self.began.set()
        assert self.go_on.wait(20)


class TestTrouble:
    def test_a_hanging_detector_costs_pictures_that_are_counted_and_never_the_capture_thread(self, recording):
        """At the edge of the queue it skips to the newest key frame, and from there it goes on."""
        packets = recording("passage")
        limit_bytes = sum(len(packet.data) for packet in packets) // 3
        hanging = Hanging()
        eyes = eyes_of(hanging)
        feed = feed_for([eyes], detect_fps=None, look_back_bytes=limit_bytes)
        feed.see(packets[0])
        assert hanging.began.wait(10)
        told = 0
        for packet in packets[1:]:
            told += feed.see(packet) is not None
            assert feed._lookout is not None
            assert feed._lookout.waiting_bytes <= limit_bytes // 2
        skipped = metrics.snapshot()["camera.look_back_skipped"]["entree"]
        # The camera is no less alive for it.
        assert told >= sum(packet.is_key for packet in packets) - 2
        hanging.go_on.set()
        assert feed.drain(20)
        feed.close()
        assert 0 < skipped < len(packets)
        assert eyes.shown_s[-1] > packets[-1].arrived_s - 1
        # Nothing is shown of what was skipped, and the first picture afterwards is a key frame.
        assert eyes.shown_s[1] in {packet.arrived_s for packet in packets if packet.is_key}

    def test_so_many_packets_wait_at_most(self, recording, monkeypatch):
        monkeypatch.setattr(lookout, "MOST_PACKETS", 20)
        hanging = Hanging()
        feed = feed_for([eyes_of(hanging)], detect_fps=None, look_back_bytes=1 << 30)
        packets = recording("passage")
        feed.see(packets[0])
        assert hanging.began.wait(10)
        for packet in packets[1:]:
            feed.see(packet)
            assert feed._lookout is not None
            assert len(feed._lookout._waiting) <= 20
        assert metrics.snapshot()["camera.look_back_skipped"]["entree"] > 0
        hanging.go_on.set()
        feed.close()

    def test_a_life_that_ends_in_a_hanging_detector_ends_soon(self, recording):
        """Its thread ends with the detector's call, and shows nothing more."""
        hanging = Hanging()
        eyes = eyes_of(hanging)
        feed = feed_for([eyes], detect_fps=None)
        for packet in recording("passage")[:16]:
            feed.see(packet)
        assert hanging.began.wait(10)
        threads = lookouts()
        closer = threading.Thread(target=feed.close)
        closer.start()
        closer.join(5)
        assert not closer.is_alive()
        hanging.go_on.set()
        for thread in threads:
            thread.join(10)
            assert not thread.is_alive()
        assert len(eyes.shown_s) == 1

    def test_a_life_that_ends_while_awake_has_what_waits_seen_first(self, recording):
        """Whoever cuts the cable was seen before."""
        packets = recording("passage")
        end = next(number for number, packet in enumerate(packets) if packet.arrived_s > 38)
        eyes = Eyes(build("entree", {"sensitivity": "high"}, language="fr"))
        feed = feed_for([eyes], detect_fps=None)
        for number, packet in enumerate(packets[:end]):
            feed.see(packet)
            if number < end - 30:
                assert feed.drain(10)
        feed.close()
        assert lookouts() == []
        assert eyes.detections

    def test_a_defect_is_said_and_watching_goes_on_at_a_key_frame(self, recording, monkeypatch):
        calls = []
        take = Attention.take

        def failing(self, packet, picture):
            calls.append(packet)
            if len(calls) == 10:
                raise RuntimeError("a defect")
            take(self, packet, picture)

        monkeypatch.setattr(attention.Attention, "take", failing)
        eyes = eyes_of(lambda _: None)
        feed = feed_for([eyes], detect_fps=None)
        packets = recording("clock")[:56]
        for packet in packets:
            feed.see(packet)
        assert feed.drain(10)
        feed.close()
        assert metrics.snapshot()["camera.look_back_failed"] == {"entree": 1}
        assert eyes.shown_s[-1] > packets[-1].arrived_s - 1

    def test_a_watch_that_raises_costs_nobody_else_a_picture(self, recording):
        def broken(_frame: Frame) -> None:
            raise RuntimeError("a defect")

        others = eyes_of(lambda _: None)
        feed = feed_for([eyes_of(broken), others], detect_fps=None)
        for packet in recording("clock")[:40]:
            feed.see(packet)
        assert feed.drain(10)
        feed.close()
        assert len(others.shown_s) > 10
        assert metrics.snapshot()["camera.watch_failed"]["entree"] == len(others.shown_s)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> list[Packet]:
    """Short GOPs, so that much can happen in little time."""
    folder = tmp_path_factory.mktemp("tiny")
    return Scene("tiny", 24, size=(64, 64), fps=8, gop_s=1, noise=1).record(folder / "tiny.mkv")


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 1 << 32), limit_bytes=st.sampled_from([2_000, 20_000, 1 << 20]))
def test_every_picture_is_shown_at_most_once_and_in_order(tiny, seed, limit_bytes):
    """Whatever is lost, damaged or hinted at, and however irregularly packets come; and no more is held than the bound."""
    random = Random(seed)
    eyes = eyes_of(lambda _: None)
    watched = watching(eyes, limit_bytes=limit_bytes)
    either = tiny[0].parameters, replace(tiny[0].parameters)
    which, arrived_s = 0, 0.0
    for coded in tiny:
        arrived_s += 0.125 * random.choice([1, 1, 1, 0.01, 8])
        which ^= coded.is_key and random.random() < 0.05
        data = coded.data if random.random() > 0.03 else coded.data[: len(coded.data) // 2]
        packet = replace(coded, arrived_s=arrived_s, parameters=either[which], data=data)
        if random.random() < 0.03:
            watched.lose_touch()
        picture = Decoder(packet.parameters).decode_key(packet) if packet.is_key and random.random() < 0.8 else None
        watched.take(packet, picture if picture is not None and picture.is_sound_key else None)
        assert watched.held_bytes <= max(limit_bytes, len(packet.data))
    assert all(later > earlier for earlier, later in pairwise(eyes.shown_s))
    assert len(eyes.shown_s) <= 5 * arrived_s + 2
