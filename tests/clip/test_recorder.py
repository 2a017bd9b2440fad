"""What a clip is, whatever the camera sent: parts that play, grow by whole fragments and can be proven."""

import asyncio
import hashlib
import threading
from dataclasses import replace
from uuid import uuid4

import pytest

from tests.clip.pictures import FPS, TICKS, Played, coded, decoded, later, length_prefixed
from vigintd import failpoints, fmp4, metrics
from vigintd.clip import h264
from vigintd.clip.compose import MAX_PARTS
from vigintd.clip.recorder import ClipRecorder
from vigintd.errors import ClipError
from vigintd.failpoints import FailpointError
from vigintd.spool import PartFile, Spool


@pytest.fixture(scope="module")
def plain():
    """Four seconds of H.264 with a key frame each second, parameter sets in-band."""
    return coded(4 * FPS)


def dropped() -> int:
    return metrics.snapshot().get("clip.packets_dropped", {}).get("", 0)


async def test_h264_is_kept_bit_for_bit(recorder, parts, plain):
    """A remuxed clip decodes to the camera's own pictures, from its first key frame to its last packet."""
    await recorder.write(plain)
    (sealed,) = await recorder.seal()
    played = Played(parts[0].path)
    played.assert_plays()
    assert (len(played.frames), sealed.duration_s, sealed.partial) == (len(plain), 4.0, "")
    assert recorder.started_s == plain[0].arrived_s


async def test_the_seal_proves_the_file(recorder, parts, plain):
    """Length and SHA-256 of the seal are those of the file, which is whole fragments and nothing else."""
    await recorder.write(plain)
    (sealed,) = await recorder.seal()
    data = parts[0].path.read_bytes()
    assert (sealed.sha256, sealed.length_bytes) == (hashlib.sha256(data).hexdigest(), len(data))
    assert fmp4.scan(data) == (list(parts[0].fragments), len(data))
    assert await recorder.seal() == (sealed,)


async def test_fragments_end_at_key_frames_and_every_half_second(recorder, parts, plain):
    """No fragment is much longer than half a second, and each key frame begins one."""
    await recorder.write(plain)
    await recorder.seal()
    media = parts[0].fragments[1:]
    assert all(f.duration_90k <= 45_000 + TICKS for f in media)
    assert [f.start_90k for f in media if f.is_key] == [0, 90_000, 180_000, 270_000]


async def test_the_pre_roll_is_visible_at_once(recorder, parts):
    """Of a backlog inside one long group of pictures, all but the last half second is visible when `write` returns."""
    backlog = coded(4 * FPS, gop=1000)
    await recorder.write(backlog)
    last = parts[0].fragments[-1]
    assert last.start_90k + last.duration_90k >= 4 * 90_000 - 45_000 - 2 * TICKS
    Played(parts[0].path).assert_plays()


async def test_live_packets_become_visible_as_fragments_close(recorder, parts, plain):
    """At any moment the file holds exactly the visible fragments, and that beginning plays."""
    for packet in plain:
        await recorder.write([packet])
        if parts:
            data = parts[0].path.read_bytes()
            assert len(data) == parts[0].visible_bytes == sum(f.length_bytes for f in parts[0].fragments)
            assert fmp4.scan(data)[1] == len(data)
    Played(await parts[0].read(0, 10**9)).assert_plays()
    assert len(parts[0].fragments) >= 7


async def test_a_follower_hears_of_each_fragment_and_of_the_end(recorder, parts, plain):
    """Whoever tails a part needs no clock."""
    seen: list[int] = []

    async def follow(part: PartFile) -> None:
        while part.sealed is None:
            await part.beyond(seen[-1] if seen else 0)
            seen.append(part.visible_bytes)

    await recorder.write(plain[:20])
    follower = asyncio.create_task(follow(parts[0]))
    for packet in plain[20:]:
        await recorder.write([packet])
    (sealed,) = await recorder.seal()
    await follower
    assert seen[-1] == sealed.length_bytes
    assert len(seen) >= 6


async def test_nothing_is_written_before_the_first_key_frame(recorder, parts, plain):
    """What could not be shown is not muxed, and is no loss."""
    await recorder.write(plain[5:30])
    assert recorder.started_s == plain[25].arrived_s
    assert dropped() == 0
    (sealed,) = await recorder.seal()
    assert sealed.duration_s == pytest.approx(5 / FPS)


async def test_a_clip_of_nothing_has_no_parts(recorder, parts, spool):
    """Without a packet there is neither file nor seal."""
    await recorder.write([])
    assert await recorder.seal(partial="camera lost") == ()
    assert (parts, list(spool.root.iterdir()), recorder.started_s) == ([], [], None)
    with pytest.raises(ClipError, match="sealed"):
        await recorder.write([])


async def test_a_short_clip_is_whole_when_sealed(recorder, parts, plain):
    """Less than half a second becomes one fragment at the seal, told as partial when it is."""
    await recorder.write(plain[:5])
    assert parts == []
    (sealed,) = await recorder.seal(partial="camera lost")
    assert (sealed.partial, sealed.duration_s) == ("camera lost", 0.2)
    Played(parts[0].path).assert_plays()


async def test_pictures_out_of_order_keep_their_order(recorder, parts):
    """B-frames: pictures come out in the order of showing, dts rising."""
    source = coded(2 * FPS, b_frames=2, gop=30)
    assert any(p.pts_90k != p.dts_90k for p in source)
    await recorder.write(source)
    await recorder.seal()
    played = Played(parts[0].path)
    played.assert_plays()
    assert len(played.frames) == len(source)
    shown = sorted(p.pts_90k - source[0].dts_90k for p in source)
    assert sorted(round(p * 90_000) for p in played.pts) == shown


@pytest.mark.parametrize("form", ["annex b", "avcc"])
async def test_parameter_sets_out_of_band_are_taken_along(recorder, parts, form):
    """Extradata as start codes or as an avcC record with length-prefixed packets: the file plays either way."""
    source = coded(FPS, global_header=True)
    assert not h264.parameter_sets(source[0].data)
    if form == "avcc":
        source = [length_prefixed(packet) for packet in source]
    await recorder.write(source)
    await recorder.seal()
    played = Played(parts[0].path)
    played.assert_plays()
    assert len(played.frames) == FPS


async def test_without_parameter_sets_the_clip_waits_for_them(recorder, plain):
    """A key frame no decoder could begin at is dropped; the next complete one begins the clip."""
    bare = [replace(p, parameters=replace(p.parameters, extradata=b"")) for p in coded(FPS, global_header=True)]
    await recorder.write(bare + later(plain, arrival_s=1))
    assert recorder.started_s == 101
    assert dropped() == 1


@pytest.mark.parametrize("ticks", [-324_000_000, 3_600 * 90_000, -(1 << 33), 17])
async def test_after_a_reconnect_the_clip_keeps_the_wall_clock(recorder, parts, plain, ticks):
    """A camera that comes back after 3 s, wherever its clock begins, leaves a clip as long as the time that passed."""
    again = later(plain, arrival_s=4 + 3, ticks=ticks)
    await recorder.write(plain)
    await recorder.write(again)
    (sealed,) = await recorder.seal()
    assert sealed.duration_s == pytest.approx(11, abs=1)
    played = Played(parts[0].path)
    played.assert_plays()
    assert len(played.frames) == 2 * len(plain)


async def test_new_parameters_begin_a_new_part(recorder, parts, plain):
    """A change of size seals the part and begins another from zero: never a mixed file."""
    other = later(coded(2 * FPS, size=(96, 64)), arrival_s=4, ticks=4 * 90_000)
    await recorder.write(plain)
    await recorder.write(other)
    await recorder.write(later(plain, arrival_s=6, ticks=6 * 90_000))
    sealed = await recorder.seal(partial="stopped")
    assert [(s.index, s.duration_s, s.partial) for s in sealed] == [(0, 4.0, ""), (1, 2.0, ""), (2, 4.0, "stopped")]
    assert [Played(part.path).size for part in parts] == [(160, 120), (96, 64), (160, 120)]
    for part, seal in zip(parts, sealed, strict=True):
        Played(part.path).assert_plays()
        assert (part.sealed, seal.sha256) == (seal, hashlib.sha256(part.path.read_bytes()).hexdigest())


async def test_new_parameter_sets_in_band_begin_a_new_part(recorder, parts, plain):
    """A camera that changes its SPS without a word is found out at the key frame, and the new size is told."""
    first = plain[0]
    other = [replace(p, parameters=first.parameters) for p in later(coded(FPS, size=(96, 64)), arrival_s=4)]
    await recorder.write(plain + other)
    assert len(await recorder.seal()) == 2
    assert fmp4.video_size(await parts[1].read(0, parts[1].fragments[0].length_bytes)) == (96, 64)
    assert Played(parts[1].path).size == (96, 64)


async def test_equal_parameters_after_a_reconnect_stay_in_the_part(recorder, plain):
    """A reconnect alone begins no new part."""
    again = [replace(p, parameters=replace(p.parameters)) for p in later(plain, arrival_s=4)]
    await recorder.write(plain + again)
    assert len(await recorder.seal()) == 1


async def test_flapping_parameters_are_capped(recorder):
    """A stream that changes for ever ends the clip after so many parts, and says why."""
    small, large = coded(1), coded(1, size=(96, 64))
    flapping = [later(small if n % 2 else large, arrival_s=n / 10)[0] for n in range(MAX_PARTS + 5)]
    await recorder.write(flapping)
    sealed = await recorder.seal(partial="stopped")
    assert len(sealed) == MAX_PARTS
    assert sealed[-1].partial == f"stopped; the stream changed its parameters {MAX_PARTS} times"
    assert dropped() == 5


@pytest.mark.parametrize("encoder", ["libx265", "mjpeg", "mpeg4"])
async def test_other_codecs_become_h264(recorder, parts, encoder):
    """What browsers cannot play is encoded: same length, same pictures but for the coding, a key frame each second."""
    source = coded(2 * FPS, encoder=encoder, gop=2 * FPS)
    await recorder.write(source)
    (sealed,) = await recorder.seal()
    played = Played(parts[0].path)
    played.assert_plays()
    assert played.size == (160, 120)
    assert (len(played.frames), sealed.duration_s) == (2 * FPS, pytest.approx(2.0))
    assert [n for n, key in enumerate(played.keys) if key] == [0, FPS]
    assert abs(played.frames[-1].astype(int) - decoded(source)[-1].astype(int)).mean() < 12


async def test_an_unknown_codec_is_a_clip_error(recorder, plain):
    """What FFmpeg has no decoder for is said, once and for good."""
    odd = replace(plain[0], parameters=replace(plain[0].parameters, codec="nonesuch"))
    with pytest.raises(ClipError, match="nonesuch"):
        await recorder.write([odd])
    assert await recorder.seal() == ()


async def test_garbage_between_key_frames_does_not_end_the_clip(recorder, parts, plain):
    """Random payload is muxed or encoded as well as can be; the clip goes on."""
    noise = replace(plain[10], data=b"\0\0\0\1" + bytes(range(256)))
    await recorder.write([*plain[:10], noise, *plain[11:]])
    (sealed,) = await recorder.seal()
    assert sealed.duration_s == 4.0


@pytest.mark.parametrize("point", ["spool.append.before", "spool.append.after"])
async def test_a_failing_disk_costs_no_more_than_the_packets_meanwhile(recorder, parts, plain, point):
    """Pieces that could not be stored are stored by the next call, and the clip plays."""
    await recorder.write(plain[:50])
    failpoints.arm(point, "error")
    with pytest.raises(FailpointError):
        await recorder.write(plain[50:75])
    assert failpoints.fired[point] == 1
    await recorder.write(plain[75:])
    (sealed,) = await recorder.seal()
    assert (sealed.duration_s, len(Played(parts[0].path).frames)) == (4.0, 100)


async def test_a_full_disk_still_gives_a_seal(recorder, parts, plain, monkeypatch):
    """A seal on a disk that takes nothing more keeps what was visible and says what is missing."""
    await recorder.write(plain[:80])
    visible = parts[0].visible_bytes

    async def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(parts[0], "append", full)
    (sealed,) = await recorder.seal(partial="stopped")
    assert sealed.length_bytes == visible
    assert sealed.partial.startswith("stopped; its end could not be written")
    assert "No space" in sealed.partial
    Played(parts[0].path).assert_plays()


@pytest.mark.parametrize("point", ["spool.seal.before", "spool.seal.after"])
async def test_a_failed_seal_may_be_asked_again(recorder, parts, plain, point):
    """Sealing again after a failure gives the same evidence."""
    await recorder.write(plain)
    failpoints.arm(point, "error")
    with pytest.raises(FailpointError):
        await recorder.seal()
    assert failpoints.fired[point] == 1
    (sealed,) = await recorder.seal()
    assert sealed.sha256 == hashlib.sha256(parts[0].path.read_bytes()).hexdigest()


async def test_a_cancelled_writer_leaves_a_clip_that_seals(recorder, parts, plain):
    """Cancelled at any point, what is on the disk stays whole fragments and the seal agrees."""
    job = asyncio.create_task(recorder.write(plain))
    await asyncio.sleep(0)
    job.cancel()
    with pytest.raises(asyncio.CancelledError):
        await job
    (sealed,) = await recorder.seal(partial="stopped")
    data = parts[0].path.read_bytes()
    assert sealed.sha256 == hashlib.sha256(data).hexdigest()
    assert fmp4.scan(data)[1] == len(data)
    Played(data).assert_plays()


async def test_a_seal_under_way_is_not_broken_by_closing(recorder, parts, plain, monkeypatch):
    """Who closes waits for it: what could be sealed is."""
    reached, go_on, seal = asyncio.Event(), asyncio.Event(), PartFile.seal

    async def slow(part, **told):
        reached.set()
        await go_on.wait()
        return await seal(part, **told)

    monkeypatch.setattr(PartFile, "seal", slow)
    await recorder.write(plain)
    sealing = asyncio.create_task(recorder.seal())
    closing = asyncio.create_task(recorder.aclose())
    async with asyncio.timeout(10):
        await reached.wait()
        go_on.set()
        (sealed,) = await sealing
        await closing
    assert parts[0].sealed == sealed


async def test_packets_are_never_changed(recorder, plain):
    """The ring's packets are shared; muxing leaves their times and bytes alone."""
    before = [(p.data, p.pts_90k, p.dts_90k, p.duration_90k) for p in plain]
    await recorder.write(plain)
    await recorder.seal()
    assert [(p.data, p.pts_90k, p.dts_90k, p.duration_90k) for p in plain] == before


async def test_closing_without_a_seal_leaves_the_part_for_recovery(tmp_path, plain):
    """What was visible stays on the disk unsealed, and no thread stays."""
    before = set(threading.enumerate())
    spool = Spool(tmp_path)
    parts: list[PartFile] = []
    recorder = ClipRecorder(spool, str(uuid4()), on_part=parts.append)
    await recorder.write(plain)
    await recorder.aclose()
    await recorder.aclose()
    await spool.aclose()
    assert parts[0].sealed is None
    assert not parts[0].path.with_suffix(".json").exists()
    Played(parts[0].path).assert_plays()
    with pytest.raises(ClipError, match="closed"):
        await recorder.seal()
    for thread in set(threading.enumerate()) - before:
        thread.join(5)
        assert not thread.is_alive()
