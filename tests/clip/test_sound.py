"""Sound lies where its picture is, in an unbroken row, whatever the camera's clock does."""

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from tests.clip.pictures import FPS, Played, coded, later, sound, with_sound
from vigintd import fmp4, metrics
from vigintd.clip import aac
from vigintd.clip.aac import FRAME_SAMPLES
from vigintd.clip.mux import SoundSample
from vigintd.clip.sound import Sound, can_be_recorded, parameters_of
from vigintd.model import AudioParameters

RATE_HZ = 8000
TONE = 0.3 / 2**0.5
AAC = sound("aac", 2)


@pytest.fixture(scope="module")
def plain():
    return coded(4 * FPS)


def dropped() -> int:
    return metrics.snapshot().get("clip.sound_dropped", {}).get("", 0)


def assert_joined(samples: list[SoundSample]) -> None:
    assert all(b.begin - a.begin >= FRAME_SAMPLES for a, b in pairwise(samples))
    assert all(sample.begin >= 0 and aac.read_header(sample.data) for sample in samples)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(-200_000, 2_000_000), st.booleans()), max_size=12))
@pytest.mark.parametrize("codec", ["aac", "pcm_mulaw"])
def test_frames_never_overlap_and_never_stray(codec, moments):
    """Whatever times chunks claim, frames follow each other, and each lies within a tenth of a second of its time."""
    chunks = AAC if codec == "aac" else sound(codec, 0.1)
    row = Sound(chunks[0].parameters)
    found: list[SoundSample] = []
    for begin_90k, is_picture in moments:
        if is_picture:
            found += row.keep_up(begin_90k)
            continue
        before = row._end
        found += row.hear(chunks[0], begin_90k)
        if row._end != before:
            length = row._end - before if before else 0
            assert row._end >= before
            assert length >= 0
            lies_at = row._end - (FRAME_SAMPLES if codec == "aac" else 320)
            assert abs(lies_at / RATE_HZ - begin_90k / 90_000) <= 0.1001
    assert_joined(found + row.finish(3_000_000))


def test_a_gap_is_silence_as_long_as_it_was():
    """Half a second that was not heard is half a second of silence, to within a frame."""
    row = Sound(AAC[0].parameters)
    found = [*row.hear(AAC[3], 0), *row.hear(AAC[4], 45_000)]
    assert found[0].data[7:] == AAC[3].data
    assert (found[-1].begin, found[-1].data[7:]) == (4000, AAC[4].data)
    assert len(found) == 2 + (4000 - FRAME_SAMPLES) // FRAME_SAMPLES


def test_what_comes_twice_is_heard_once():
    """A chunk for a time that is taken is dropped and counted."""
    metrics.reset()
    row = Sound(AAC[0].parameters)
    row.hear(AAC[0], 0)
    row.hear(AAC[1], 11_520)
    assert row.hear(AAC[1], 0) == []
    assert dropped() == 1


@pytest.mark.parametrize(
    ("encoder", "codec", "rate_hz"),
    [
        ("libx264", "pcm_alaw", 8000),
        ("libx264", "pcm_mulaw", 16_000),
        ("libx264", "g726", 8000),
        ("libx264", "aac", 44_100),
        ("mjpeg", "pcm_alaw", 8000),
        ("mjpeg", "aac", 8000),
    ],
)
async def test_sound_is_in_the_clip_as_aac(recorder, parts, codec, rate_hz, encoder):
    """The tone is heard for as long as the picture is seen, beside H.264 as it came or encoded."""
    source = with_sound(coded(3 * FPS, encoder=encoder), codec, rate_hz=rate_hz)
    await recorder.write(source)
    await recorder.seal()
    played = Played(parts[0].path)
    played.assert_plays()
    assert len(played.frames) == 3 * FPS
    assert (played.sound.codec, played.sound.rate_hz) == ("aac", rate_hz)
    assert all(b == pytest.approx(a, abs=1e-4) for a, b in zip(played.sound.ends, played.sound.times[1:], strict=False))
    assert played.sound.ends[-1] == pytest.approx(3, abs=0.3)
    assert played.sound.level(0.5, 2.5) == pytest.approx(TONE, rel=0.1)
    init = await parts[0].read(0, parts[0].fragments[0].length_bytes)
    assert fmp4.codec_string(init).endswith(", mp4a.40.2")
    assert dropped() == 0


async def test_aac_is_kept_bit_for_bit(recorder, parts, plain):
    """Frames of AAC are the camera's own, whether bare or each with its header."""
    bare = with_sound(plain, "aac")
    setup = aac.read_config(bare[0].audio[0].parameters.extradata)
    assert setup
    described = [
        replace(
            p,
            audio=tuple(
                replace(c, data=aac.with_header(c.data, setup), parameters=replace(c.parameters, extradata=b""))
                for c in p.audio
            ),
        )
        for p in later(bare, arrival_s=4, ticks=360_000)
    ]
    await recorder.write(bare + described)
    await recorder.seal()
    data = b"".join(part.path.read_bytes() for part in parts)
    assert all(chunk.data in data for packet in bare for chunk in packet.audio)


async def test_sound_that_stops_is_followed_by_silence(recorder, parts, plain):
    """The track goes on: a player that follows live would otherwise stop with the sound."""
    source = with_sound(plain)
    await recorder.write(source[:50] + plain[50:])
    await recorder.seal()
    played = Played(parts[0].path)
    assert (len(parts), len(played.frames)) == (1, 4 * FPS)
    assert played.sound.ends[-1] == pytest.approx(4, abs=0.3)
    assert played.sound.level(0.5, 1.5) == pytest.approx(TONE, rel=0.1)
    assert played.sound.level(2.5, 3.5) < TONE / 100


async def test_silence_reaches_the_disk_while_the_picture_goes_on(recorder, parts, plain):
    """Sound that stopped holds back no fragment: what is seen by now is on the disk."""
    await recorder.write(with_sound(plain)[:50])
    await recorder.write(plain[50:])
    last = parts[0].fragments[-1]
    assert last.start_90k + last.duration_90k >= 4 * 90_000 - 45_000 - 2 * 3600


async def test_sound_that_comes_later_begins_a_part_at_the_next_key_frame(recorder, parts, plain):
    """A part that began without sound has none; the next one has."""
    source = with_sound(plain)
    await recorder.write(plain[:35] + source[35:])
    sealed = await recorder.seal()
    assert [s.duration_s for s in sealed] == [2.0, 2.0]
    assert [Played(part.path).has_sound for part in parts] == [False, True]
    assert Played(parts[1].path).sound.level(0.5, 1.5) == pytest.approx(TONE, rel=0.1)


async def test_new_sound_begins_a_part_at_the_next_key_frame(recorder, parts, plain):
    """Two kinds of sound are never in one file."""
    other = with_sound(plain, "pcm_alaw", rate_hz=16_000)
    await recorder.write(with_sound(plain)[:40] + other[40:])
    assert [s.duration_s for s in await recorder.seal()] == [2.0, 2.0]
    assert [Played(part.path).sound.rate_hz for part in parts] == [8000, 16_000]


async def test_flapping_sound_does_not_cost_the_picture(recorder, parts):
    """Sound that changes at every key frame begins so many parts and no more; all pictures are there."""
    source = coded(2 * FPS, gop=1, size=(64, 48))
    kinds = [with_sound(source, "pcm_alaw", rate_hz=rate) for rate in (8000, 16_000)]
    flapping = [kinds[n % 2][n] for n in range(len(source))]
    await recorder.write(flapping)
    sealed = await recorder.seal()
    assert 1 < len(sealed) <= 16
    assert sum(len(Played(part.path).frames) for part in parts) == len(source)
    assert dropped() > 0


async def test_sound_takes_the_steps_of_the_pictures_clock(recorder, parts, plain):
    """After a jump of the camera's clock by hours, sound and picture are still together."""
    source = with_sound(plain)
    await recorder.write(source + later(source, arrival_s=4, ticks=5 * 3600 * 90_000))
    (sealed,) = await recorder.seal()
    assert sealed.duration_s == pytest.approx(8, abs=0.1)
    heard = Played(parts[0].path).sound
    assert heard.ends[-1] == pytest.approx(8, abs=0.3)
    assert heard.level(4.5, 7.5) == pytest.approx(TONE, rel=0.1)


async def test_other_sound_is_dropped_and_said_once(recorder, parts, plain):
    """What is neither AAC nor G.711 nor G.726 leaves a clip without sound, one warning and a count."""
    odd = AudioParameters("opus", 48_000, 2, b"")
    source = [replace(p, audio=tuple(replace(c, parameters=odd) for c in p.audio)) for p in with_sound(plain)]
    assert not can_be_recorded(odd)
    with capture_logs() as logs:
        await recorder.write(source)
        await recorder.seal()
    assert not Played(parts[0].path).has_sound
    assert len(parts) == 1
    assert dropped() == sum(len(p.audio) for p in source)
    assert [(entry["event"], entry["codec"]) for entry in logs] == [("clip.sound_unsupported", "opus")]


async def test_damaged_sound_costs_no_picture(recorder, parts, plain):
    """A frame whose header claims what FFmpeg cannot take is left out, and the picture goes on."""
    setup = aac.Setup(2, 11, 1)

    def described(chunk, *, is_damaged):
        data = bytearray(aac.with_header(chunk.data, setup))
        if is_damaged:  # a checksum, and two raw data blocks
            data[1] &= 0xFE
            data[6] |= 1
        return replace(chunk, data=bytes(data), parameters=replace(chunk.parameters, extradata=b""))

    source = [
        replace(p, audio=tuple(described(c, is_damaged=50 <= n < 55) for c in p.audio))
        for n, p in enumerate(with_sound(plain, "aac"))
    ]
    await recorder.write(source)
    await recorder.seal()
    assert dropped() == sum(len(p.audio) for p in source[50:55]) > 0
    assert len(Played(parts[0].path).frames) == len(plain)
    assert "clip.packets_unwritable" not in metrics.snapshot()


@pytest.mark.parametrize("codec", ["aac", "pcm_alaw"])
async def test_the_shortest_clip_with_sound_plays(recorder, parts, plain, codec):
    """Two pictures are over before the first frame of sound is."""
    await recorder.write(with_sound(plain, codec, chunk_samples=160)[:2])
    await recorder.seal()
    played = Played(parts[0].path)
    played.assert_plays()
    assert played.sound.codec == "aac"


def test_a_row_in_which_nothing_is_heard_has_a_frame():
    """A track without one would not say what it is."""
    assert [sample.begin for sample in Sound(AAC[0].parameters).finish(3600)] == [0]


def test_g726_is_understood_at_any_rate():
    """The bits of a sample follow from a chunk's length in time."""
    chunk = sound("g726", 1)[0]
    row = Sound(chunk.parameters)
    row.hear(chunk, 0)
    assert row._end == len(chunk.data) * 2


def test_a_chunk_that_describes_itself_needs_no_extradata():
    """An ADTS header says what an AudioSpecificConfig would."""
    known = AAC[0].parameters
    described = replace(
        AAC[0], data=aac.with_header(AAC[0].data, aac.Setup(2, 11, 1)), parameters=replace(known, extradata=b"")
    )
    assert parameters_of(described).extradata == known.extradata[:2]
