"""The clip's time rises and keeps to the wall clock, whatever the camera's clock does."""

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vigintd.clip.timeline import Timeline, Times
from vigintd.model import Packet, StreamParameters

TICKS = 3600
PARAMETERS = StreamParameters("h264", 160, 120, b"")


def packet(dts: int, arrived_s: float, *, pts: int | None = None, duration: int = TICKS) -> Packet:
    return Packet(b"", dts if pts is None else pts, dts, duration, False, arrived_s, PARAMETERS)


def session(seconds: float, *, begins_at: int = 0, arrival_s: float = 0) -> list[Packet]:
    return [packet(begins_at + n * TICKS, arrival_s + n / 25) for n in range(round(seconds * 25))]


def placed(packets: list[Packet]) -> list[Times]:
    timeline = Timeline()
    return [timeline.place(p) for p in packets]


def length_s(times: list[Times]) -> float:
    return (times[-1].dts_90k + times[-1].duration_90k) / 90_000


@given(
    st.lists(
        st.tuples(
            st.integers(-(1 << 62), 1 << 62), st.integers(-(1 << 62), 1 << 62), st.integers(-5, 1 << 40), st.floats(0, 100)
        ),
        min_size=1,
    )
)
def test_any_timestamps_give_rising_ones(raw):
    """Times begin at 0, dts rises strictly, pts is not before it, and durations are sane."""
    arrived_s = 0.0
    packets = []
    for dts, pts, duration, wait_s in raw:
        arrived_s += wait_s
        packets.append(packet(dts, arrived_s, pts=pts, duration=duration))
    times = placed(packets)
    assert times[0].dts_90k == 0
    assert all(a.dts_90k < b.dts_90k for a, b in pairwise(times))
    assert all(t.pts_90k >= t.dts_90k for t in times)
    assert all(0 < t.duration_90k <= 900_000 for t in times)


@given(st.lists(st.tuples(st.integers(-(1 << 40), 1 << 40), st.integers(2, 8), st.floats(0, 20)), min_size=1, max_size=6))
def test_reconnects_keep_the_wall_clock(sessions):
    """Any number of lives of a camera, each beginning its clock anywhere, give the length of the time that passed."""
    packets: list[Packet] = []
    now_s = 1000.0
    for begins_at, seconds, gap_s in sessions:
        # A clock that goes on a little later than it stopped cannot be told from a late packet.
        away_s = now_s - packets[-1].arrived_s if packets else 0
        is_odd = packets and 0 < begins_at - packets[-1].dts_90k < (away_s + 1) * 90_000
        packets += session(seconds, begins_at=begins_at + (1 << 41 if is_odd else 0), arrival_s=now_s)
        now_s += seconds + gap_s
    passed_s = packets[-1].arrived_s - packets[0].arrived_s
    assert length_s(placed(packets)) == pytest.approx(passed_s, abs=1.1)


def test_late_packets_keep_the_cameras_own_steps():
    """A stall of 4 s and the burst after it leave no trace: the camera's steps are believed."""
    packets = [replace(p, arrived_s=max(p.arrived_s, 6.0)) if p.arrived_s > 2 else p for p in session(10)]
    assert [t.dts_90k for t in placed(packets)] == [p.dts_90k for p in packets]


def test_a_first_burst_keeps_the_cameras_own_steps():
    """A server that hands over its last group of pictures at once makes no clip of no length."""
    packets = [replace(p, arrived_s=max(p.arrived_s, 3.0)) for p in session(8)]
    assert [t.dts_90k for t in placed(packets)] == [p.dts_90k for p in packets]


def test_lost_packets_leave_their_time():
    """Packets lost on the way leave a pause as long as they were."""
    packets = [p for p in session(10) if not 2 < p.arrived_s < 7]
    assert [t.dts_90k for t in placed(packets)] == [p.dts_90k for p in packets]


def test_a_clock_that_stood_still_is_made_up_for():
    """A stream that pauses without its clock going on is brought to the wall clock after a while."""
    packets = session(2) + session(10, begins_at=50 * TICKS, arrival_s=8)
    assert length_s(placed(packets)) == pytest.approx(18, abs=1)


def test_slow_streams_are_no_jumps():
    """One picture each 4 s stays one picture each 4 s."""
    packets = [packet(n * 360_000, n * 4.0, duration=0) for n in range(10)]
    assert [t.dts_90k for t in placed(packets)] == [p.dts_90k for p in packets]


def test_repeated_and_disordered_timestamps_are_nudged():
    """Equal or slightly falling dts move by a tick, and what follows is where it was."""
    packets = [packet(dts, dts / 90_000) for dts in (0, 3600, 3600, 3000, 7200)]
    assert [t.dts_90k for t in placed(packets)] == [0, 3600, 3601, 3602, 7200]


def test_reordering_survives():
    """Pictures shown later than decoded keep that distance."""
    packets = [packet(n * TICKS, n / 25, pts=n * TICKS + ahead) for n, ahead in enumerate((7200, 10_800, 0, 3600))]
    assert [t.pts_90k - t.dts_90k for t in placed(packets)] == [7200, 10_800, 0, 3600]
