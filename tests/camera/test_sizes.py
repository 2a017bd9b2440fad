"""Sizes: what packets tell of a scene without decoding."""

from collections.abc import Callable, Iterator
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.camera.streams import parameters
from vigintd.camera.sizes import Sizes
from vigintd.model import Packet

FPS, GOP = 10, 20
PARAMETERS = parameters()


def stream(
    seconds: float, size_at: Callable[[float, int], float], *, from_s: float = 0.0, key_bytes: int = 20_000
) -> Iterator[Packet]:
    """Packets of a size for each moment and place in the GOP."""
    for number in range(round(seconds * FPS)):
        t, place = from_s + number / FPS, number % GOP
        size = key_bytes if place == 0 else round(size_at(t, place))
        yield Packet(bytes(size), round(t * 90_000), round(t * 90_000), 0, place == 0, t, PARAMETERS)


def hints(sizes: Sizes, packets: Iterator[Packet], moved_s: float = float("-inf")) -> list[float]:
    """When something stood out, everything being learnt."""
    found = []
    for packet in packets:
        if sizes.take(packet):
            found.append(packet.arrived_s)
        sizes.learn(packet.arrived_s, moved_s)
    return found


def noise(level: float, share: float, seed: int = 1) -> Callable[[float, int], float]:
    random = Random(seed)
    return lambda _t, _place: level * random.uniform(1 - share, 1 + share)


@pytest.fixture
def sizes() -> Sizes:
    """Half a minute of a quiet scene, learnt."""
    learnt = Sizes()
    hints(learnt, stream(30, noise(800, 0.15)))
    return learnt


def test_a_quiet_stream_gives_no_hint(sizes):
    assert hints(sizes, stream(60, noise(800, 0.15, 2), from_s=30)) == []


@pytest.mark.parametrize("times", [1.6, 3, 50])
def test_what_stands_out_is_said_within_half_a_second(sizes, times):
    usual = noise(800, 0.15, 3)
    found = hints(sizes, stream(10, lambda t, place: usual(t, place) * (times if 34 <= t < 35 else 1), from_s=30))
    assert 34 < found[0] <= 34.7


def test_nothing_is_known_at_first():
    """What is not known might be anything."""
    sizes = Sizes()
    assert not sizes.can_tell
    assert hints(sizes, stream(2, noise(800, 0.1)))


def test_a_pattern_within_the_gop_is_usual():
    """As encoders have it, that spend what a key frame has left over; the same sizes in another place are not."""
    pattern = [400 * (1 + place // 5) for place in range(GOP)]
    sizes = Sizes()
    hints(sizes, stream(30, lambda _, place: pattern[place]))
    assert hints(sizes, stream(20, lambda _, place: pattern[place], from_s=30)) == []
    assert hints(sizes, stream(4, lambda _, place: pattern[-1 - place], from_s=50))


def test_what_came_with_movement_is_not_learnt(sizes):
    hints(sizes, stream(20, noise(8000, 0.15), from_s=30), moved_s=1e9)
    assert sizes.can_tell
    assert hints(sizes, stream(4, noise(8000, 0.15), from_s=50))


def test_a_hint_of_nothing_teaches(sizes):
    """Night falls, and noise makes every packet larger: after a while that is usual."""
    assert hints(sizes, stream(30, noise(1600, 0.15), from_s=30))
    assert hints(sizes, stream(20, noise(1600, 0.15), from_s=60)) == []


@pytest.mark.parametrize(("level", "share"), [(15_000, 0.15), (9_000, 0.3)])
def test_sizes_say_that_they_cannot_tell_what_noise_swamps(level, share):
    sizes = Sizes()
    hints(sizes, stream(60, noise(level, share)))
    assert not sizes.can_tell


def test_they_can_tell_in_an_ordinary_quiet_stream(sizes):
    assert sizes.can_tell


@given(st.lists(st.tuples(st.integers(0, 5000), st.booleans(), st.integers(-(1 << 34), 1 << 34)), max_size=200))
def test_no_sizes_and_no_times_break_it(packets):
    sizes = Sizes()
    for number, (size, is_key, dts) in enumerate(packets):
        sizes.take(Packet(bytes(size), dts, dts, 0, is_key, number / FPS, PARAMETERS))
        sizes.learn(number / FPS, number / FPS - 3)
    assert sizes.can_tell in (True, False)
    assert len(sizes._usual) <= 25
