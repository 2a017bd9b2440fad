"""A fragmented file seen as a plain MP4 in faststart order: the same samples, without a byte moved."""

import io
import struct
from contextlib import suppress

import av
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.clip.pictures import coded, with_sound
from tests.fmp4.boxes import box, children, fragment, full, init, moof, moov, words
from vigintd import fmp4
from vigintd.clip.recorder import ClipRecorder
from vigintd.spool import PartFile, Spool

CLIP = "0b9d3a52-6f0e-4c55-9a0e-2f6c1d7e8a90"


def plain(data: bytes) -> bytes:
    """The whole plain file."""
    tables = fmp4.SampleTables()
    found = fmp4.FragmentParser(on_moof=tables.take).feed(data)
    begin = found[0].length_bytes if found else 0
    return fmp4.faststart_head(data[:begin], tables, len(data) - begin) + data[begin:]


def packets(data: bytes) -> list[tuple[object, ...]]:
    """Every packet with all that a player knows of it, track by track."""
    with av.open(io.BytesIO(data), "r") as container:
        found = [
            (p.stream.index, p.dts, p.pts, p.duration, p.time_base, p.is_keyframe, bytes(p))
            for p in container.demux()
            if p.size
        ]
    return sorted(found, key=lambda packet: packet[:2])


def pictures(data: bytes) -> list[tuple[object, bytes]]:
    """Every decoded picture with its time."""
    with av.open(io.BytesIO(data), "r") as container:
        return [(frame.time, frame.to_ndarray().tobytes()) for frame in container.decode(video=0)]


def heard(data: bytes) -> list[tuple[object, bytes]]:
    """Every decoded frame of sound with its time."""
    with av.open(io.BytesIO(data), "r") as container:
        return [(frame.time, frame.to_ndarray().tobytes()) for frame in container.decode(audio=0)]


@pytest.mark.parametrize(
    ("b_frames", "open_gop", "sound"), [(0, False, ""), (2, False, "pcm_alaw"), (2, True, "aac")], ids=["plain", "b", "open"]
)
async def test_a_recorded_clip_is_the_same_film(tmp_path, b_frames, open_gop, sound):
    """Every packet, picture and sound of the evidence, at its time; the order is ftyp, moov, mdat; it can be sought in."""
    video = coded(100, b_frames=b_frames, open_gop=open_gop)
    spool, parts = Spool(tmp_path), list[PartFile]()
    recorder = ClipRecorder(spool, CLIP, on_part=parts.append)
    await recorder.write(with_sound(video, sound) if sound else video)
    await recorder.seal()
    data = parts[0].path.read_bytes()
    await recorder.aclose()
    await spool.aclose()
    film = plain(data)
    assert [kind for kind, _ in children(struct.pack(">I4s", 8 + len(film), b"file") + film)] == [b"ftyp", b"moov", b"mdat"]
    assert film.endswith(data[fmp4.scan(data)[0][1].offset_bytes :])
    assert packets(film) == packets(data)
    assert pictures(film) == pictures(data)
    if sound:
        assert heard(film) == heard(data) != []
    with av.open(io.BytesIO(film), "r") as container:
        container.seek(2_500_000)
        # As exact as a plain file: the key frame before, not the beginning.
        assert 1.9 <= float(next(container.decode(video=0)).time or 0) <= 2.2


def test_a_gap_between_fragments_stays_a_gap():
    """The sample before it lasts until the next one begins."""
    data = init() + two_samples(0) + two_samples(90_000)
    assert [(packet[1], packet[2]) for packet in packets(plain(data))] == [
        (0, 0),
        (3600, 3600),
        (90_000, 90_000),
        (93_600, 93_600),
    ]


def test_a_file_that_begins_late_is_shown_late():
    """What a fragmented file says by its first time, a plain one says by an edit."""
    film = plain(init() + two_samples(180_000))
    edits = film[film.index(b"elst") + 4 :]
    assert struct.unpack_from(">IIIi", edits, 4)[:3] == (2, 180_000, 0xFFFF_FFFF)
    assert [packet[2] for packet in packets(film)] == [180_000, 183_600]


def two_samples(start: int, *, offset: int | None = None, sizes: tuple[int, int] = (3, 2)) -> bytes:
    """A fragment of two samples in five bytes, whose run says where they lie."""

    def moof_with(at: int) -> bytes:
        run = full(b"trun", 0, 0x301, words(2), struct.pack(">i", at), words(3600, sizes[0], 3600, sizes[1]))
        traf = box(b"traf", full(b"tfhd", 0, 0x2_0000, words(1)), full(b"tfdt", 1, 0, struct.pack(">Q", start)), run)
        return box(b"moof", full(b"mfhd", 0, 0, words(1)), traf)

    return moof_with(len(moof_with(0)) + 8 if offset is None else offset) + box(b"mdat", b"video")


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (init(), "no picture"),
        (init() + two_samples(7200) + two_samples(0), "back in time"),
        (init() + two_samples(0, offset=10_000), "outside"),
        (init() + two_samples(0, offset=-10_000), "outside"),
        (init() + two_samples(0, sizes=(3, 300)), "outside"),
        (init() + two_samples(1 << 61), "longer than"),
    ],
)
def test_what_has_no_plain_form_is_refused(data, why):
    """It is then shown as it is."""
    with pytest.raises(ValueError, match=why):
        plain(data)


def test_a_count_of_samples_is_bounded():
    """A run without fields takes no bytes, whatever it counts."""
    run = full(b"trun", 0, 0, words(0xFFFF_FFF0))
    huge = box(b"moof", box(b"traf", full(b"tfhd", 0, 0, words(1)), run)) + box(b"mdat", b"")
    trex = full(b"trex", 0, 0, words(1, 1, 0, 0, 0))
    with pytest.raises(ValueError, match="more than"):
        plain(box(b"ftyp", b"isom", bytes(4)) + moov(trex=trex) + huge)


@pytest.mark.parametrize("length", [5, 1 << 32])
def test_a_file_beyond_four_gigabytes_has_wide_offsets(length):
    """`co64` and a wide `mdat`, and only then."""
    data = init() + two_samples(0)
    tables = fmp4.SampleTables()
    fmp4.FragmentParser(on_moof=tables.take).feed(data)
    head = fmp4.faststart_head(init(), tables, max(length, len(data) - len(init())))
    assert (b"co64" in head) == (length > 5)
    kind = b"co64" if length > 5 else b"stco"
    (place,) = struct.unpack_from(">Q" if length > 5 else ">I", head, head.index(kind) + 12)
    assert (head + data[len(init()) :])[place : place + 5] == b"video"


BROKEN = init() + fragment(0, [3600] * 3) + moof(10_800, [3600]) + box(b"mdat", b"1234") + two_samples(14_400)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(BROKEN) - 1), st.integers(0, 255)), max_size=12))
def test_strangers_bytes_are_refused_or_answered(changes):
    """Whatever the boxes hold: a head, or `ValueError`."""
    data = bytearray(BROKEN)
    for at, value in changes:
        data[at] = value
    with suppress(ValueError):
        assert len(plain(bytes(data))) < len(data) + 10_000
