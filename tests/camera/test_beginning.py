"""The first packets of a stream are dated, not thrown away."""

from hypothesis import given, settings
from hypothesis import strategies as st

from vigintd.camera.access_units import Unit
from vigintd.camera.beginning import Beginning

STEP = 6000
Stamp = tuple[int | None, int | None]


def opened(*stamps: Stamp, duration: int = STEP, wait_s: float = 0.0) -> list[list[Stamp]]:
    """What a key frame and its successors with these times become, packet by packet."""
    opening, given_out = Beginning(90_000), []
    for number, (pts, dts) in enumerate(stamps):
        unit = Unit(b"x", pts, dts, duration, number == 0, number * wait_s)
        given_out.append([(whole.pts, whole.dts) for whole in opening.take(unit)])
    return given_out


def test_a_key_frame_with_both_times_goes_on_at_once():
    """As from a file."""
    assert opened((5, 4)) == [[(5, 4)]]


def test_what_comes_before_the_first_key_frame_is_dropped():
    """Nobody could decode it."""
    opening = Beginning(90_000)
    assert opening.take(Unit(b"x", 0, 0, STEP, False, 0.0)) == []
    key = Unit(b"x", 1, 1, STEP, True, 0.0)
    assert opening.take(key) == [key]


def test_an_untimed_key_frame_comes_one_step_before_its_successor():
    """HEVC over RTSP."""
    assert opened((None, None), (STEP, STEP)) == [[], [(0, 0), (STEP, STEP)]]


def test_decode_times_are_counted_back():
    """H.264 over RTSP: a few packets have a presentation time only."""
    got = opened((None, None), (STEP, None), (2 * STEP, None), (3 * STEP, 3 * STEP))
    assert got[-1] == [(number * STEP, number * STEP) for number in range(4)]


def test_reordered_pictures_keep_their_order():
    """I P B B: the key frame is shown a step before the first B, and all are decoded before they are shown."""
    got = opened((None, None), (3 * STEP, None), (STEP, None), (2 * STEP, STEP))
    assert got[-1] == [(0, -2 * STEP), (3 * STEP, -STEP), (STEP, 0), (2 * STEP, STEP)]


def test_a_step_that_nobody_states_is_seen_from_the_times():
    """A camera that leaves its rate open."""
    got = opened((None, None), (9000, None), (18_000, 18_000), duration=0)
    assert got[-1] == [(0, 0), (9000, 9000), (18_000, 18_000)]


def test_a_slow_camera_is_not_held_up():
    """After half a second what there is must do: it is decoded when it is shown."""
    assert opened((None, None), (90_000, None), wait_s=1.0, duration=0) == [
        [],
        [(90_000 - 3600, 90_000 - 3600), (90_000, None)],
    ]


def test_no_more_than_sixteen_are_ever_held():
    """Whatever a source leaves out."""
    got = opened(*[(None, None)] * 20)
    assert [len(batch) for batch in got[:16]] == [0] * 15 + [16]


times = st.none() | st.integers(-(2**40), 2**40)


@settings(deadline=None)
@given(stamps=st.lists(st.tuples(times, times), min_size=1, max_size=16), duration=st.integers(0, 10_000))
def test_the_first_packet_has_both_times_for_any_source(stamps, duration):
    """So that the media clock can start; and none is lost."""
    batches = opened(*stamps, duration=duration, wait_s=0.04)
    out = [stamp for batch in batches for stamp in batch]
    if out:
        assert None not in out[0]
        assert len(out) == sum(1 for batch in batches if batch) or len(batches) >= len(out)
