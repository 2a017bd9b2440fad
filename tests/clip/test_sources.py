"""What is not H.264 is on the disk first, as the camera sent it; its parts are made of that."""

import asyncio
import hashlib
import io
import json
import os
import threading
from contextlib import ExitStack
from dataclasses import replace
from fractions import Fraction
from uuid import uuid4

import av
import pytest
from structlog.testing import capture_logs

from tests.clip.pictures import CODECS, FPS, TICKS, Played, coded, decoded, later, with_sound
from tests.manual_clock import ManualClock
from vigintd import fmp4, metrics
from vigintd.clip.encode import at_once
from vigintd.clip.h264 import annex_b
from vigintd.clip.job import encode_sources
from vigintd.clip.recorder import ClipRecorder
from vigintd.clip.rewrite import Rewriter
from vigintd.errors import ClipError
from vigintd.model import Packet, SealedPart
from vigintd.spool import PartFile, SourceFile, Spool

ENCODERS = ["libx265", "mjpeg", "mpeg4", "libsvtav1"]


class WorkClock(ManualClock):
    """Each picture takes the encoder so many seconds, as far as it can tell."""

    def __init__(self, cost_s: float, *, reduced_cost_s: float | None = None) -> None:
        """What a picture costs, and what it does once the encode has given way."""
        super().__init__()
        self._costs_s = cost_s, cost_s if reduced_cost_s is None else reduced_cost_s
        self._looks = 0

    def monotonic_s(self) -> float:
        self._looks += 1
        if self._looks % 2 == 0:  # after the work
            self._monotonic_s += self._costs_s["clip.reduced" in metrics.snapshot()]
        return self._monotonic_s


@pytest.fixture
def incident_id() -> str:
    return str(uuid4())


@pytest.fixture(scope="module")
def hevc() -> list[Packet]:
    """Three seconds."""
    return coded(3 * FPS, encoder="libx265")


@pytest.fixture(scope="module")
def long_hevc() -> list[Packet]:
    """Eight seconds, wide enough to give way."""
    return coded(8 * FPS, encoder="libx265", size=(1024, 96))


@pytest.fixture
def no_turn():
    """Nobody gets a turn to encode until it is closed."""
    with ExitStack() as turns:
        for _ in range(max(1, (os.cpu_count() or 1) // 2)):
            turns.enter_context(at_once())
        yield turns


def access_units(path) -> list[bytes]:
    """The packets of a source as the camera sent them: start codes instead of lengths."""
    with av.open(io.BytesIO(path.read_bytes()), "r", format="mp4") as container:
        stream = container.streams.video[0]
        has_lengths = stream.codec_context.name in ("hevc", "h264")
        return [annex_b(bytes(p), 4 if has_lengths else 0) for p in container.demux(stream) if p.size]


def bare(packet: Packet) -> bytes:
    """A packet without what MP4 does not hold: AV1's temporal delimiter."""
    return packet.data.removeprefix(b"\x12\x00")


async def recorded(recorder: ClipRecorder, packets: list[Packet], *, partial: str = "") -> tuple[SealedPart, ...]:
    """Written as packets come: a few at a time."""
    for at in range(0, len(packets), 5):
        await recorder.write(packets[at : at + 5])
    return await recorder.seal(partial=partial)


@pytest.mark.parametrize("encoder", ENCODERS)
async def test_the_original_is_what_the_camera_sent(spool, parts, incident_id, encoder):
    """Packet by packet the same bytes at the same times, with a seal that proves them."""
    source = coded(2 * FPS, encoder=encoder)
    recorder = ClipRecorder(spool, incident_id, on_part=parts.append, keep_original=True)
    assert not recorder.originals
    (sealed,) = await recorded(recorder, source)
    await recorder.aclose()
    (original,) = recorder.originals
    path = spool.source_path(incident_id, 0)
    assert [unit.replace(b"\0\0\0\1", b"\0\0\1") for unit in access_units(path)] == [
        bare(p).replace(b"\0\0\0\1", b"\0\0\1") for p in source
    ]
    assert (original.index, original.codec) == (0, CODECS.get(encoder, encoder))
    assert (original.length_bytes, original.sha256) == (path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest())
    told = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    assert told == {"incident_id": incident_id, "index": 0, "codec": original.codec} | {
        "length_bytes": original.length_bytes,
        "sha256": original.sha256,
    }
    assert sealed.duration_s == pytest.approx(2)
    assert (sealed.reduced, sealed.partial) == ("", "")


@pytest.mark.parametrize("encoder", ["libx264", "libx265", "mpeg4"])
async def test_pixels_keep_their_shape(recorder, parts, encoder):
    """A picture that is shown wider than it is sampled is so in the clip."""
    await recorded(recorder, coded(FPS, encoder=encoder, pixel_aspect=Fraction(12, 11)))
    assert Played(parts[0].path).pixel_aspect == Fraction(12, 11)


async def test_the_source_goes_when_its_part_is_sealed(spool, parts, recorder, hevc):
    """Unless it is to be kept, only the clip stays."""
    await recorded(recorder, hevc)
    assert recorder.originals == ()
    assert sorted(p.name for p in spool.root.iterdir()) == [f"{parts[0].path.stem}.json", parts[0].path.name]


async def test_removing_an_incident_takes_its_original(spool, parts, incident_id, hevc):
    """Nothing of it stays."""
    recorder = ClipRecorder(spool, incident_id, on_part=parts.append, keep_original=True)
    await recorded(recorder, hevc)
    await recorder.aclose()
    await spool.remove(incident_id)
    assert list(spool.root.iterdir()) == []


async def test_who_writes_never_waits_for_an_encoder(recorder, parts, spool, hevc, no_turn):
    """While no picture can be encoded, all that was written is on the disk; the parts follow as soon as one can."""
    await recorder.write(hevc)
    (source,) = spool.root.iterdir()
    fragments, length = fmp4.scan(source.read_bytes())
    assert length == source.stat().st_size
    assert fragments[-1].start_90k + fragments[-1].duration_90k >= 3 * 90_000 - 45_000 - 2 * TICKS
    assert parts == []
    no_turn.close()
    (sealed,) = await recorder.seal()
    assert sealed.duration_s == pytest.approx(3)
    assert metrics.snapshot().get("clip.packets_dropped") is None


async def test_a_clip_closed_while_it_is_encoded_leaves_its_source_whole(tmp_path, incident_id, hevc, no_turn):
    """A drain that runs out of time loses nothing: the source holds all, no part claims to be the clip, no thread stays."""
    before = set(threading.enumerate())
    spool = Spool(tmp_path)
    recorder = ClipRecorder(spool, incident_id, on_part=lambda _: None)
    await recorder.write(hevc)
    sealing = asyncio.create_task(recorder.seal())
    await asyncio.sleep(0)
    sealing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sealing
    closing = asyncio.create_task(recorder.aclose())
    await asyncio.sleep(0)
    no_turn.close()
    await closing
    with pytest.raises(ClipError, match="closed"):
        await recorder.seal()
    assert len(access_units(spool.source_path(incident_id, 0))) == len(hevc)
    assert not spool.part_path(incident_id, 0).with_suffix(".json").exists()
    await spool.aclose()
    for thread in set(threading.enumerate()) - before:
        thread.join(5)
        assert not thread.is_alive()


async def test_what_another_life_left_is_encoded_again(spool, parts, incident_id, hevc):
    """From the sources on the disk alone, torn tail and all, come the parts that were not made."""
    recorder = ClipRecorder(spool, incident_id, on_part=lambda _: None)
    await recorder.write(with_sound(hevc))
    await recorder.aclose()
    path = spool.source_path(incident_id, 0)
    with path.open("ab") as file:
        file.write(b"torn")
    spool.part_path(incident_id, 0).unlink(missing_ok=True)
    sources = await spool.left_sources(incident_id)
    assert [(source.index, source.visible_bytes) for source in sources] == [(0, path.stat().st_size - 4)]
    sealed = await encode_sources(
        spool, incident_id, sources, first_part=0, on_part=parts.append, clock=ManualClock(), partial="cut"
    )
    (again,) = sealed
    assert again.duration_s == pytest.approx(3)
    assert (again.index, again.partial) == (0, "cut")
    played = Played(parts[0].path)
    played.assert_plays()
    assert (len(played.frames), played.sound.codec) == (len(hevc), "aac")
    assert path.exists()


async def test_a_slow_encode_gives_way_in_size_then_in_rate(spool, parts, incident_id, long_hevc, no_turn):
    """Each step is a part of its own, begins with a key frame, and says what it is; no second is lost, nor told twice."""
    clock = WorkClock(0.2)
    recorder = ClipRecorder(spool, incident_id, on_part=parts.append, clock=clock)
    with capture_logs() as logs:
        await recorder.write(with_sound(long_hevc))
        no_turn.close()
        sealed = await recorder.seal()
    await recorder.aclose()
    assert [s.reduced for s in sealed] == ["", "960x90", "640x60", "640x60 at 12.5 fps", "640x60 at 6.25 fps"]
    assert [(e["incident"], e["from"], e["to"]) for e in logs if e["event"] == "clip.reduced"] == [
        (incident_id, "1024x96", "960x90"),
        (incident_id, "960x90", "640x60"),
        (incident_id, "640x60", "640x60 at 12.5 fps"),
        (incident_id, "640x60 at 12.5 fps", "640x60 at 6.25 fps"),
    ]
    assert sum(s.duration_s for s in sealed) == pytest.approx(8, abs=0.3)
    for part, seal in zip(parts, sealed, strict=True):
        played = Played(part.path)
        played.assert_plays()
        assert f"{played.size[0]}x{played.size[1]}" == (seal.reduced.partition(" ")[0] or "1024x96")
        assert played.sound.ends[-1] == pytest.approx(seal.duration_s, abs=0.3)
        assert json.loads(part.path.with_suffix(".json").read_text(encoding="utf-8"))["reduced"] == seal.reduced
    assert len(Played(parts[-1].path).frames) == pytest.approx(sealed[-1].duration_s * FPS / 4, abs=1)


async def test_an_encode_that_keeps_up_gives_nothing_away(spool, parts, incident_id, long_hevc, no_turn):
    """The beginning is a backlog of seconds; to be behind is no reason as long as it melts."""
    recorder = ClipRecorder(spool, incident_id, on_part=parts.append, clock=WorkClock(0.03))
    await recorder.write(long_hevc)
    no_turn.close()
    assert [s.reduced for s in await recorder.seal()] == [""]
    await recorder.aclose()


async def test_one_slow_stretch_gives_way_once(spool, parts, incident_id, long_hevc, no_turn):
    """As soon as it keeps up, no more is given up."""
    recorder = ClipRecorder(spool, incident_id, on_part=parts.append, clock=WorkClock(0.2, reduced_cost_s=0.03))
    await recorder.write(long_hevc)
    no_turn.close()
    assert [s.reduced for s in await recorder.seal()] == ["", "960x90"]
    await recorder.aclose()


async def test_a_stream_of_few_pictures_is_as_long_as_it_was(recorder, parts, spool):
    """The pictures that a decoder still holds at the end last as long as the others."""
    slow = [
        replace(p, pts_90k=p.pts_90k * 10, dts_90k=p.dts_90k * 10, duration_90k=TICKS * 10, arrived_s=100 + n * 10 / FPS)
        for n, p in enumerate(coded(20, encoder="libx265", b_frames=2))
    ]
    (sealed,) = await recorded(recorder, slow)
    assert sealed.duration_s == pytest.approx(8)
    assert len(Played(parts[0].path).frames) == 20


async def test_h264_after_another_codec_comes_in_its_place(recorder, parts, spool, hevc):
    """A camera set to another codec in mid-clip: parts in the order of time, H.264 among them bit for bit."""
    plain = coded(2 * FPS)
    source = [*plain, *later(hevc, arrival_s=2), *later(plain, arrival_s=5), *later(hevc, arrival_s=7)]
    sealed = await recorded(recorder, source, partial="stopped")
    assert [(s.index, s.partial) for s in sealed] == [(0, ""), (1, ""), (2, ""), (3, "stopped")]
    assert [s.duration_s for s in sealed] == pytest.approx([2, 3, 2, 3])
    for part in parts:
        Played(part.path).assert_plays()
    shown = decoded(plain)
    for part in (parts[0], parts[2]):
        assert all((a == b).all() for a, b in zip(Played(part.path).frames, shown, strict=True))
    assert len(list(spool.root.iterdir())) == 8


async def test_only_what_was_encoded_has_an_original(spool, parts, incident_id, hevc):
    """H.264 is its own original."""
    recorder = ClipRecorder(spool, incident_id, on_part=parts.append, keep_original=True)
    await recorded(recorder, [*hevc, *later(coded(FPS), arrival_s=3), *later(hevc, arrival_s=4)])
    await recorder.aclose()
    assert [(o.index, o.codec) for o in recorder.originals] == [(0, "hevc"), (2, "hevc")]
    assert not spool.source_path(incident_id, 1).exists()


@pytest.mark.parametrize("encoder", ENCODERS)
async def test_a_change_in_the_stream_alone_begins_a_new_source(spool, parts, incident_id, encoder):
    """A camera that changes its size without a word, and keeps its word about the codec, is found out at the key frame."""
    one, other = coded(FPS, encoder=encoder), coded(FPS, encoder=encoder, size=(96, 64))
    quiet = [replace(p, parameters=one[0].parameters) for p in later(other, arrival_s=1)]
    recorder = ClipRecorder(spool, incident_id, on_part=parts.append, keep_original=True)
    assert len(await recorded(recorder, one + quiet)) == 2
    await recorder.aclose()
    assert [Played(part.path).size for part in parts] == [(160, 120), (96, 64)]
    assert len(recorder.originals) == 2


async def test_a_codec_that_mp4_does_not_hold_is_told_in_words(recorder, hevc):
    """What to do about it is said too."""
    odd = replace(hevc[0], parameters=replace(hevc[0].parameters, codec="vp8"))
    with pytest.raises(ClipError, match=r"vp8 cannot be recorded: MP4 does not hold it; set the camera to H\.264"):
        await recorder.write([odd])
    assert await recorder.seal() == ()


async def test_a_source_of_which_nothing_decodes_stays_and_stops_no_other(recorder, parts, spool, hevc):
    """It is not thrown away unseen; what follows it is encoded, and says what is missing."""
    sets = hevc[0].data[: hevc[0].data.rindex(b"\0\0\1")]
    told = replace(hevc[0].parameters, extradata=sets)
    noise = [replace(p, data=b"\0\0\1\x26\1" + bytes(range(1, 99)), parameters=told) for p in hevc]
    other = later(coded(FPS, encoder="mjpeg"), arrival_s=3)
    (sealed,) = await recorded(recorder, noise + other)
    assert sealed.partial == "not all of it could be encoded: none of its pictures could be decoded"
    assert len(Played(parts[0].path).frames) == FPS
    assert len(access_units(spool.source_path(parts[0].incident_id, 0))) == len(noise)


async def test_pictures_that_do_not_decode_end_nothing(recorder, parts, hevc):
    """Damage in the middle costs its pictures and no more."""
    noise = [replace(p, data=p.data[:6] + bytes(range(200))) if 30 <= n < 35 else p for n, p in enumerate(hevc)]
    (sealed,) = await recorded(recorder, noise)
    assert sealed.duration_s == pytest.approx(3, abs=0.3)
    Played(parts[0].path).assert_plays()


async def test_a_defect_in_the_encode_costs_no_part_that_is_made(recorder, parts, spool, hevc, monkeypatch):
    """What goes wrong in a way that nobody foresaw is logged, told in the clip, and stops no source after it."""
    feed, fed = Rewriter.feed, 0

    def fails_once(*args):
        nonlocal fed
        fed += 1
        if fed == 4:
            raise IndexError("nobody foresaw this")
        return feed(*args)

    monkeypatch.setattr(Rewriter, "feed", fails_once)
    with capture_logs() as logs:
        sealed = await recorded(recorder, [*hevc, *later(coded(FPS, encoder="mjpeg"), arrival_s=3)])
    assert fed > 4
    assert [event for event in logs if event.get("exc_info")]
    assert [bool(s.partial) for s in sealed] == [False, True]
    assert "IndexError: nobody foresaw this" in sealed[-1].partial
    for part in parts:
        Played(part.path).assert_plays()
    assert len(access_units(spool.source_path(parts[0].incident_id, 0))) == len(hevc)


async def test_a_source_whose_end_the_disk_refuses_costs_that_end_alone(spool, parts, incident_id, hevc, monkeypatch):
    """Also while the encode job is storing a part: what is its own is not taken from it."""
    storing, refused, go_on = asyncio.Event(), asyncio.Event(), asyncio.Event()
    append_part, append_source = PartFile.append, SourceFile.append

    async def slow(part, data, fragments):
        storing.set()
        await go_on.wait()
        await append_part(part, data, fragments)

    async def full(source, data, fragments):
        if storing.is_set():
            refused.set()
            raise OSError(28, "No space left on device")
        await append_source(source, data, fragments)

    monkeypatch.setattr(PartFile, "append", slow)
    monkeypatch.setattr(SourceFile, "append", full)
    recorder = ClipRecorder(spool, incident_id, on_part=parts.append)
    await recorder.write(hevc)
    await storing.wait()
    sealing = asyncio.create_task(recorder.seal())
    await refused.wait()
    go_on.set()
    (sealed,) = await sealing
    assert sealed.partial == "its end could not be written: [Errno 28] No space left on device"
    assert sealed.duration_s == pytest.approx(2.6)  # its last half second
    await recorder.aclose()


async def test_a_source_without_a_hash_is_encoded_all_the_same(spool, parts, incident_id, hevc, monkeypatch):
    """A disk that refuses its seal costs the original, not the clip."""
    refused = 0

    async def seal(source, *, codec):
        nonlocal refused
        refused += 1
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(SourceFile, "seal", seal)
    recorder = ClipRecorder(spool, incident_id, on_part=parts.append, keep_original=True)
    (sealed,) = await recorded(recorder, hevc)
    await recorder.aclose()
    assert refused == 1
    assert sealed.duration_s == pytest.approx(3)
    assert sealed.partial == ""
    assert recorder.originals == ()
    assert len(access_units(spool.source_path(incident_id, 0))) == len(hevc)


class FullDisk:
    """A disk that takes sources, and so many steps of parts, then fails so often, and then takes all."""

    def __init__(self, monkeypatch, *, takes: int, fails: int) -> None:
        self.failed = 0
        real = PartFile.append

        async def append(part, data, fragments):
            nonlocal takes
            if takes <= 0 and self.failed < fails:
                self.failed += 1
                raise OSError(28, "No space left on device")
            takes -= 1
            await real(part, data, fragments)

        monkeypatch.setattr(PartFile, "append", append)


async def test_a_failing_disk_delays_the_parts_and_loses_nothing(spool, parts, incident_id, hevc, monkeypatch):
    """The job tries the disk again; the source is there meanwhile."""
    disk, clock = FullDisk(monkeypatch, takes=2, fails=2), ManualClock()
    recorder = ClipRecorder(spool, incident_id, on_part=parts.append, clock=clock)
    sealing = asyncio.create_task(recorded(recorder, hevc))
    for _ in range(2):
        await clock.asleep()
        await clock.advance(1)
    (sealed,) = await sealing
    assert disk.failed == 2
    assert sealed.duration_s == pytest.approx(3)
    assert not sealed.partial
    assert len(Played(parts[0].path).frames) == len(hevc)
    await recorder.aclose()


async def test_an_encode_that_fails_for_good_keeps_the_source_and_says_so(spool, parts, incident_id, hevc, monkeypatch):
    """What was made is sealed with the reason; what the camera sent stays."""
    disk, clock = FullDisk(monkeypatch, takes=2, fails=10), ManualClock()
    recorder = ClipRecorder(spool, incident_id, on_part=parts.append, clock=clock)
    sealing = asyncio.create_task(recorded(recorder, hevc, partial="stopped"))
    for _ in range(9):
        await clock.asleep()
        await clock.advance(1)
    (sealed,) = await sealing
    assert disk.failed == 10
    assert sealed.partial == "stopped; not all of it could be encoded: [Errno 28] No space left on device"
    Played(parts[0].path).assert_plays()
    assert len(access_units(spool.source_path(incident_id, 0))) == len(hevc)
    await recorder.aclose()


async def test_a_long_group_of_pictures_comes_half_second_by_half_second(spool, incident_id):
    """One of ten seconds is on the disk, and encoded, long before it is over."""
    source = coded(10 * FPS, encoder="mpeg4", gop=1000)
    began: asyncio.Future[PartFile] = asyncio.get_running_loop().create_future()
    recorder = ClipRecorder(spool, incident_id, on_part=began.set_result)
    await recorder.write(source[: 5 * FPS])
    assert len(access_units(spool.source_path(incident_id, 0))) >= 4.4 * FPS
    part = await began
    while part.fragments[-1].start_90k < 3 * 90_000:
        await part.beyond(part.visible_bytes)
    await recorder.write(source[5 * FPS :])
    (sealed,) = await recorder.seal()
    await recorder.aclose()
    assert sealed.duration_s == pytest.approx(10)
