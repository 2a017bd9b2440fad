"""What counts as a whole fragment, and what is said of it."""

import re
import struct
import tracemalloc
from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fmp4.boxes import box, children, descriptor, esds, fragment, full, init, moof, moov, sound_entry, with_sound, words
from vigintd import fmp4
from vigintd.model import Fragment

MOVIE = (
    init()
    + fragment(0, [3600] * 10, b"a" * 900)
    + fragment(36_000, [3600] * 5, b"b" * 300, key=False)
    + box(b"styp", b"msdh")
    + fragment(54_000, [3600], b"")
)


def test_fragments_cover_the_file_without_a_gap():
    """The leading ftyp+moov and every moof+mdat are found, small boxes before a moof being part of its fragment."""
    found, consumed = fmp4.scan(MOVIE)
    assert consumed == len(MOVIE)
    assert [(f.start_90k, f.duration_90k, f.is_key) for f in found] == [
        (0, 0, False),
        (0, 36_000, True),
        (36_000, 18_000, False),
        (54_000, 3_600, True),
    ]
    assert found[0] == Fragment(0, len(init()), 0, 0, is_key=False)
    assert [f.offset_bytes for f in found[1:]] == [f.offset_bytes + f.length_bytes for f in found[:-1]]


@settings(deadline=None)
@given(st.lists(st.integers(0, len(MOVIE)), max_size=40))
def test_any_split_of_the_bytes_gives_the_same_fragments(cuts):
    """How the bytes arrive does not matter."""
    parser = fmp4.FragmentParser()
    edges = [0, *sorted(cuts), len(MOVIE)]
    found = [f for a, b in pairwise(edges) for f in parser.feed(MOVIE[a:b])]
    assert found == fmp4.scan(MOVIE)[0]
    assert parser.whole_bytes == len(MOVIE)


def test_a_fragment_is_told_with_its_last_byte_and_not_before():
    """One byte short is not whole."""
    whole = len(init()) + len(fragment(0, [3600]))
    data = init() + fragment(0, [3600])
    assert [len(fmp4.scan(data[:n])[0]) for n in (len(init()) - 1, len(init()), whole - 1, whole)] == [0, 1, 1, 2]


def test_a_scan_goes_on_in_the_middle_of_a_file():
    """With the tracks of its beginning, a file can be read on from any fragment."""
    found, _ = fmp4.scan(MOVIE)
    start = found[2].offset_bytes
    rest, consumed = fmp4.scan(memoryview(MOVIE)[start:], start, fmp4.read_init(MOVIE[: found[0].length_bytes]))
    assert rest == found[2:]
    assert consumed == len(MOVIE) - start


def test_other_timescales_become_90_khz_without_drift():
    """Fragments of a track of 30000 ticks a second join exactly."""
    data = init(30_000) + fragment(1001, [1001]) + fragment(2002, [1001] * 2)
    one, two = fmp4.scan(data)[0][1:]
    assert (one.start_90k, one.duration_90k) == (3003, 3003)
    assert one.start_90k + one.duration_90k == two.start_90k


def test_defaults_come_from_tfhd_then_trex():
    """A sample without own duration or flags takes the fragment's, then the movie's."""
    trex = full(b"trex", 0, 0, words(1, 1, 1500, 0, 0x10000))
    head = box(b"ftyp", b"isom") + moov(trex=trex)
    run = full(b"trun", 0, 0, words(4))
    by_trex = box(b"moof", box(b"traf", full(b"tfhd", 0, 0, words(1)), run)) + box(b"mdat")
    by_tfhd = box(b"moof", box(b"traf", full(b"tfhd", 0, 0x38, words(1, 3000, 9, 0)), run)) + box(b"mdat")
    per_sample = full(b"trun", 0, 0x700, words(1, 100, 9, 0))
    by_sample = box(b"moof", box(b"traf", full(b"tfhd", 0, 0, words(1)), per_sample)) + box(b"mdat")
    found = fmp4.scan(head + by_trex + by_tfhd + by_sample)[0][1:]
    assert [(f.duration_90k, f.is_key) for f in found] == [(6000, False), (12_000, True), (100, True)]


def both(*trafs: bytes) -> bytes:
    """A fragment of several tracks."""
    return box(b"moof", *(box(kind, body) for moof in trafs for kind, body in children(moof))) + box(b"mdat", b"both")


TALKIE = (
    with_sound(sound_entry())
    + both(moof(0, [24_000], track_id=2), moof(0, [3600] * 10))
    + both(moof(36_000, [3600], key=False), moof(24_000, [1024] * 4, track_id=2))
    + both(moof(28_096, [1024], track_id=2))
)


def test_the_video_track_gives_time_and_key():
    """Of a fragment with sound, the picture's time counts, whichever comes first; sound alone goes by its own."""
    assert fmp4.read_init(TALKIE)[0].is_video
    assert [(f.start_90k, f.duration_90k, f.is_key) for f in fmp4.scan(TALKIE)[0][1:]] == [
        (0, 36_000, True),
        (36_000, 3600, False),
        (52_680, 1920, False),
    ]


def test_a_page_can_be_told_codec_and_size():
    """RFC 6381 string and picture size come from the initialisation segment."""
    assert fmp4.codec_string(init()) == "avc1.64001F"
    assert fmp4.video_size(init()) == (1920, 1080)
    with pytest.raises(ValueError, match=r"no H\.264"):
        fmp4.codec_string(box(b"ftyp") + moov(handler=b"soun"))


@pytest.mark.parametrize(
    ("inside", "codec"),
    [
        (esds(), "mp4a.40.2"),
        (esds(setup=b"\x2b\x92\x08\x00"), "mp4a.40.5"),
        (esds(setup=b"\xf9\x48\x40"), "mp4a.40.42"),
        (esds(0x6B), "mp4a.6B"),
        (esds(flags=0xE0, between=b"\0\1\3url\0\2"), "mp4a.40.2"),
    ],
)
def test_a_page_is_told_the_sound_too(inside, codec):
    """Object type and audio object type, as RFC 6381, section 3.3 has them, behind the picture's codec."""
    assert fmp4.codec_string(with_sound(sound_entry(inside))) == f"avc1.64001F, {codec}"


@pytest.mark.parametrize("entry", [sound_entry(b""), box(b"Opus", bytes(28))])
def test_sound_of_an_unknown_codec_names_none(entry):
    """A player that was told the picture alone would refuse the file in the middle."""
    assert fmp4.scan(with_sound(entry))[1] == len(with_sound(entry))
    with pytest.raises(ValueError, match="unknown codec"):
        fmp4.codec_string(with_sound(entry))


TFHD = full(b"tfhd", 0, 0, words(1))
HUGE = struct.pack(">I4sQ", 1, b"mdat", 1 << 60)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"<html>captive portal</html>", "does not belong"),
        (box(b"moov"), "does not belong"),
        (box(b"ftyp") + box(b"mdat"), "does not belong"),
        (init() + box(b"mdat"), "does not belong"),
        (init() + moof(0, [1]) + box(b"free"), "does not belong"),
        (init() + moof(0, [1]) + moof(0, [1]), "does not belong"),
        (struct.pack(">I4s", 0, b"ftyp"), "0 bytes"),
        (struct.pack(">I4s", 7, b"ftyp"), "7 bytes"),
        (box(b"ftyp") + struct.pack(">I4s", 0xFFFF_FFFF, b"moov"), "4294967295 bytes"),
        (box(b"ftyp") + box(b"moov"), "without a track"),
        (box(b"ftyp") + box(b"moov", struct.pack(">I4s", 99, b"trak")), "reaches beyond"),
        (box(b"ftyp") + box(b"moov", b"\0\0\0"), "cut"),
        (box(b"ftyp") + moov(0), "timescale"),
        (init() + box(b"moof"), "without samples"),
        (init() + moof(0, [1], track_id=7), "not in moov"),
        (init() + box(b"moof", box(b"traf", full(b"trun", 0, 0, words(1)))), "before its tfhd"),
        (
            init() + box(b"moof", box(b"traf", full(b"tfhd", 0, 0, words(1)), full(b"trun", 0, 0x100, words(1 << 31)))),
            "too short",
        ),
        (init() + box(b"moof", box(b"traf", full(b"tfhd", 0, 8, words(1)))), "too short"),
        (init() + moof((1 << 64) - 1, [1]), "beyond all sense"),
        (with_sound(sound_entry(full(b"esds", 0, 0))), "too short"),
        (with_sound(sound_entry(full(b"esds", 0, 0, b"\4\0"))), "4 where 3"),
        (with_sound(sound_entry(full(b"esds", 0, 0, b"\3\xff\xff\xff\x7f"))), "beyond its box"),
        (with_sound(sound_entry(full(b"esds", 0, 0, descriptor(3, b"\0\1\x40\xff")))), "too short"),
        (with_sound(sound_entry(esds(setup=b"\x15"))), "too short"),
    ],
)
def test_what_is_no_clip_is_refused_with_a_reason(data, sentence):
    """Strangers' bytes raise `ValueError`, at once and ever after."""
    parser = fmp4.FragmentParser()
    with pytest.raises(ValueError, match=sentence):
        parser.feed(data)
    with pytest.raises(ValueError, match=sentence):
        parser.feed(b"")


def test_a_torn_tail_ends_a_lenient_scan():
    """Recovery finds what was whole before the first byte that is not."""
    for tail in (bytes(500), b"\xff" * 64, fragment(0, [1])[:-1]):
        found, consumed = fmp4.scan(MOVIE + tail, strict=False)
        assert (len(found), consumed) == (4, len(MOVIE))


def test_too_many_tracks_are_refused():
    """A fragment's cost is bounded by bounding the tracks."""
    tracks = [box(kind, body) for n in range(1, 12) for kind, body in children(moov(track_id=n)) if kind == b"trak"]
    with pytest.raises(ValueError, match="tracks"):
        fmp4.scan(box(b"ftyp") + box(b"moov", *tracks))


def test_a_claimed_length_allocates_nothing():
    """A gigantic media box costs no memory, nor does a gigantic count of samples without fields."""
    run = full(b"trun", 0, 0, words(0xFFFF_FFFF))
    many = box(b"moof", box(b"traf", full(b"tfhd", 0, 0x8, words(1, 1)), run))
    parser = fmp4.FragmentParser()
    tracemalloc.start()
    parser.feed(init() + many + HUGE)
    for _ in range(64):
        parser.feed(bytes(65_536))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 400_000


@settings(max_examples=300)
@given(st.data(), st.sampled_from([MOVIE, TALKIE]))
def test_hostile_bytes_raise_or_wait(data, movie):
    """Any change of any bytes ends in fragments inside the data, in waiting, or in `ValueError`: nothing else."""
    mangled = bytearray(movie)
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(mangled) - 1))
        mangled[at : at + data.draw(st.integers(0, 8))] = data.draw(st.binary(max_size=8))
    with suppress(ValueError):
        assert re.fullmatch(r"avc[13]\.[0-9A-F]{6}(, mp4a\.[0-9A-F]{2}(\.\d+)?)*", fmp4.codec_string(bytes(mangled)))
    try:
        found, consumed = fmp4.scan(bytes(mangled))
    except ValueError:
        return
    assert consumed <= len(mangled)
    assert sum(f.length_bytes for f in found) == consumed


@given(st.binary(max_size=200))
def test_noise_raises_or_waits(noise):
    """Bytes that were never a clip do no harm, also behind a good beginning."""
    for head in (b"", init()):
        parser = fmp4.FragmentParser()
        try:
            parser.feed(head + noise)
        except ValueError:
            continue
        assert parser.whole_bytes <= len(head + noise)
