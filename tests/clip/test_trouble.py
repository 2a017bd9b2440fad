"""What cameras do to their streams, and what a clip makes of it: it plays, keeps the clock, and shows no garbage."""

from dataclasses import replace
from itertools import pairwise
from random import Random

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.clip.pictures import CODECS, FPS, TICKS, Played, coded, decoded, later, length_prefixed
from vigintd import metrics
from vigintd.clip.syntax import syntax
from vigintd.clip.timeline import Timeline
from vigintd.model import Packet, StreamParameters

GOP = 12


@pytest.fixture(scope="module", params=["libx264", "libx265"])
def open_gop(request) -> list[Packet]:
    """Groups of pictures whose first shown pictures look back into the group before."""
    packets = coded(60, encoder=request.param, gop=GOP, b_frames=2, open_gop=True)
    keys = [n for n, p in enumerate(packets) if p.is_key]
    assert any(p.pts_90k < packets[keys[1]].pts_90k for p in packets[keys[1] + 1 :]), "the encoder made closed groups"
    return packets


def shown(packets: list[Packet], *, from_90k: int) -> list[NDArray[np.uint8]]:
    """The pictures of a stream decoded whole, from a moment on."""
    times = sorted(p.pts_90k for p in packets)
    return [frame for time, frame in zip(times, decoded(packets), strict=True) if time >= from_90k]


async def test_a_clip_that_begins_in_an_open_group_shows_no_garbage(recorder, parts, open_gop):
    """Pictures that look back beyond the clip's beginning are left out; all others are the camera's own."""
    begin = next(n for n, p in enumerate(open_gop) if n and p.is_key)
    await recorder.write(open_gop[begin:])
    (sealed,) = await recorder.seal()
    played = Played(parts[0].path)
    played.assert_plays()
    expected = shown(open_gop, from_90k=open_gop[begin].pts_90k)
    assert len(played.frames) == len(expected)
    assert all(abs(a.astype(int) - b).mean() < 6 for a, b in zip(played.frames, expected, strict=True))
    assert sealed.duration_s == pytest.approx((len(open_gop) - begin) / FPS, abs=0.2)
    assert "clip.packets_dropped" not in metrics.snapshot()


async def test_in_the_middle_of_a_clip_open_groups_lose_nothing(recorder, parts, open_gop):
    """Pictures that look back into a group that is there are kept."""
    await recorder.write(open_gop)
    await recorder.seal()
    assert len(Played(parts[0].path).frames) == len(open_gop)


async def test_after_a_loss_open_groups_show_no_garbage(recorder, parts, open_gop):
    """What was lost is not there to be looked back into."""
    keys = [n for n, p in enumerate(open_gop) if p.is_key]
    await recorder.write(open_gop[: keys[2] - 3])
    recorder._composer.skip_to_key()
    await recorder.write(open_gop[keys[2] - 3 :])
    await recorder.seal()
    played = Played(parts[0].path)
    key_90k = open_gop[keys[2]].pts_90k
    expected = shown(open_gop, from_90k=key_90k)
    assert len(played.frames) == keys[2] - 3 + len(expected)
    assert all(abs(a.astype(int) - b).mean() < 6 for a, b in zip(played.frames[-len(expected) :], expected, strict=True))
    assert metrics.snapshot()["clip.packets_dropped"][""] == 3


def test_the_source_keeps_a_leading_picture_that_needs_nothing():
    """HEVC says which pictures before a key frame look back; a closed group has none of these."""
    packets = coded(40, encoder="libx265", gop=GOP, b_frames=2)
    assert not any(syntax("hevc").needs_earlier(b"", p.data, is_shown_before_key=True) for p in packets)


@pytest.mark.parametrize("encoder", ["libx264", "libx265"])
@pytest.mark.parametrize("step", [-(1 << 33), 7 * 3600 * 90_000, -40 * 90_000, 1 << 40])
async def test_a_clock_that_wraps_or_jumps_leaves_no_trace(recorder, parts, encoder, step):
    """In mid-group, without a pause: as long as it was, in one part, every picture there and in its order."""
    source = coded(3 * FPS, encoder=encoder, b_frames=2, gop=FPS)
    # Each time wraps by itself: pictures shown later than they are decoded get there first.
    edge = source[40].dts_90k
    torn = [
        replace(p, dts_90k=p.dts_90k + step * (p.dts_90k >= edge), pts_90k=p.pts_90k + step * (p.pts_90k >= edge))
        if step == -(1 << 33)
        else replace(p, dts_90k=p.dts_90k + step * (n >= 40), pts_90k=p.pts_90k + step * (n >= 40))
        for n, p in enumerate(source)
    ]
    await recorder.write(torn)
    (sealed,) = await recorder.seal()
    played = Played(parts[0].path)
    played.assert_plays()
    assert len(played.frames) == len(source)
    assert sealed.duration_s == pytest.approx(3, abs=1)


@settings(max_examples=50)
@given(
    st.sampled_from([0, 1, 2]),
    st.lists(
        st.tuples(
            # A clock that stood still looks like a burst to come, for five seconds; upstream such clocks are mended.
            st.integers(170, 300),
            st.sampled_from([0, 0, 1 << 33, -(1 << 33), 3600 * 90_000, -7200 * 90_000, -TICKS, 5, 91_000]),
            st.sampled_from([0, 0, 0.5, 3, 40]),
            st.booleans(),
        ),
        min_size=1,
        max_size=6,
    ),
)
def test_whatever_the_clock_does_the_clip_keeps_the_wall_clock(ahead, stretches):
    """Stretches of a stream, each with its step of the clock, its pause, its missing or doubled times: within a second."""
    parameters = StreamParameters("h264", 160, 120, b"")
    packets: list[Packet] = []
    dts, arrived_s = 0, 100.0
    for count, step, pause_s, repeats in stretches:
        arrived_s += pause_s
        # The clock goes on through a pause, or it steps.
        dts += step or round(pause_s * 90_000)
        for n in range(count):
            dts += TICKS
            arrived_s += 1 / FPS
            told = dts - (TICKS if repeats and n % 7 == 3 else 0)
            packets.append(Packet(b"", told + ahead * TICKS, told, TICKS, False, arrived_s, parameters))
    timeline = Timeline()
    times = [timeline.place(p) for p in packets]
    assert all(a.dts_90k < b.dts_90k for a, b in pairwise(times))
    assert all(t.pts_90k >= t.dts_90k for t in times)
    passed_s = packets[-1].arrived_s - packets[0].arrived_s
    assert (times[-1].dts_90k - times[0].dts_90k) / 90_000 == pytest.approx(passed_s, abs=1.1)


async def test_a_group_of_a_minute_is_recorded_as_any_other(recorder, parts):
    """One key frame in sixty seconds: fragments close each half second, and all of it plays."""
    source = coded(60 * FPS, gop=60 * FPS, size=(64, 48))
    await recorder.write(source)
    (sealed,) = await recorder.seal()
    assert sealed.duration_s == pytest.approx(60)
    assert len(parts[0].fragments) >= 100
    played = Played(parts[0].path)
    played.assert_plays()
    assert (len(played.frames), played.keys.count(True)) == (len(source), 1)


@pytest.mark.parametrize("encoder", ["libx264", "libx265", "mpeg4", "libsvtav1"])
async def test_sets_out_of_band_are_taken_along_for_every_codec(recorder, parts, encoder):
    """What stands only in the extradata is in the file."""
    source = coded(FPS, encoder=encoder, global_header=True)
    await recorder.write(source)
    await recorder.seal()
    played = Played(parts[0].path)
    played.assert_plays()
    assert len(played.frames) == FPS


async def test_codecs_in_turn_are_parts_in_turn(recorder, parts):
    """A camera that is set to one codec after another: each a part, in order, none mixed, each playable from its start."""
    source: list[Packet] = []
    for number, encoder in enumerate(["libx264", "libx265", "mjpeg", "libsvtav1", "mpeg4", "libx264"]):
        source += later(coded(FPS, encoder=encoder), arrival_s=number, ticks=number * 90_000)
    await recorder.write(source)
    sealed = await recorder.seal()
    assert [s.index for s in sealed] == list(range(6))
    assert sum(s.duration_s for s in sealed) == pytest.approx(6, abs=0.2)
    for part in parts:
        Played(part.path).assert_plays()


async def test_packets_with_lengths_and_sets_aside_stay_one_part(recorder, parts):
    """As RTMP has it; a repeated record with the same sets begins nothing new."""
    source = [length_prefixed(p) for p in coded(2 * FPS, global_header=True)]
    await recorder.write([replace(p, parameters=replace(p.parameters)) for p in source])
    (sealed,) = await recorder.seal()
    assert sealed.duration_s == 2
    Played(parts[0].path).assert_plays()


def test_each_codec_of_the_tests_is_called_by_its_name():
    """The names here are those that a camera's stream bears."""
    assert all(av.Codec(name, "r") for name in CODECS.values())


@pytest.mark.parametrize("seed", range(8))
async def test_noise_that_passes_for_parameter_sets_costs_nothing_of_what_came_before_and_after(recorder, seed):
    """A key frame of random bytes behind the start codes of SPS and PPS begins no part that cannot be read."""
    good = coded(2 * FPS)
    noise = Random(seed)
    sets = b"".join(b"\0\0\1" + bytes([kind]) + noise.randbytes(noise.randrange(0, 24)) for kind in (0x67, 0x68, 0x65))
    last = good[FPS - 1]
    bad = replace(last, data=sets + noise.randbytes(500), is_key=True, arrived_s=last.arrived_s + 0.001)
    await recorder.write(good[:FPS])
    await recorder.write([bad, replace(bad, data=noise.randbytes(300), is_key=False)])
    await recorder.write(good[FPS:])
    parts = await recorder.seal()
    assert [part.index for part in parts] == list(range(len(parts)))
    assert sum(part.duration_s for part in parts) == pytest.approx(2, abs=0.1)
