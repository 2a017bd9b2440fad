"""Key frames in pieces become whole again, at the price of a delay only where there are pieces."""

from vigintd.camera.access_units import AccessUnits, Unit

CODE = b"\x00\x00\x01"
HEAD = CODE + b"\x67sps" + CODE + b"\x68pps"
IDR = CODE + b"\x65\x88slice"
MORE = CODE + b"\x65\x0fslice"


def unit(data: bytes, pts: int | None, *, is_key: bool = False) -> Unit:
    return Unit(data, pts, pts, 0, is_key, 0.0)


def test_pieces_of_the_same_time_are_joined_without_repeated_parameter_sets():
    """SPS and PPS in the middle of an access unit are what broke it."""
    units = AccessUnits("h264")
    assert units.take(unit(HEAD + IDR, 0, is_key=True)) == []
    assert units.take(unit(HEAD + MORE, 0, is_key=True)) == []
    key, delta = units.take(unit(b"delta", 1))
    assert (key.data, delta.data) == (HEAD + IDR + MORE, b"delta")
    assert units.take(unit(HEAD + IDR, 2, is_key=True)) == []


def test_a_stream_in_one_piece_is_delayed_by_its_first_key_frame_only():
    """After that every packet comes out as it goes in."""
    units = AccessUnits("h264")
    first, delta, second = unit(IDR, 0, is_key=True), unit(b"delta", 1), unit(IDR, 2, is_key=True)
    assert units.take(first) == []
    assert units.take(delta) == [first, delta]
    assert units.take(second) == [second]
    assert units.rest() == []


def test_pieces_without_a_time_are_told_by_their_slices():
    """The first packet of an RTSP stream bears none; it gets that of its other piece."""
    units = AccessUnits("h264")
    assert units.take(unit(HEAD + IDR, None, is_key=True)) == []
    assert units.take(unit(HEAD + MORE, 0, is_key=True)) == []
    key, _ = units.take(unit(b"delta", 1))
    assert (key.data, key.pts) == (HEAD + IDR + MORE, 0)


def test_pieces_are_learnt_from_the_first_that_is_seen():
    """A stream whose first key frame came in one piece: the second comes out in two, the third whole."""
    units = AccessUnits("h264")
    units.take(unit(IDR, 0, is_key=True))
    units.take(unit(b"delta", 1))
    assert len(units.take(unit(HEAD + IDR, 2, is_key=True))) == 1
    assert len(units.take(unit(HEAD + MORE, 2, is_key=True))) == 1
    assert len(units.take(unit(b"delta", 3))) == 1
    assert units.take(unit(HEAD + IDR, 4, is_key=True)) == []
    assert units.take(unit(HEAD + MORE, 4, is_key=True)) == []
    assert units.take(unit(b"delta", 5))[0].data == HEAD + IDR + MORE


def test_two_key_frames_without_a_time_stay_two():
    """The first slice of each begins a picture."""
    units = AccessUnits("h264")
    first, second = unit(HEAD + IDR, None, is_key=True), unit(HEAD + IDR, 1, is_key=True)
    assert units.take(first) == []
    assert units.take(second) == [first, second]


def test_a_time_that_never_changes_is_not_one_picture():
    """A broken camera must not fill the memory."""
    units = AccessUnits("h264")
    whole = [one for _ in range(2000) for one in units.take(unit(HEAD + MORE, 0, is_key=True))]
    assert len(whole) > 1000
    assert max(len(one.data) for one in whole) < 512 * 20


def test_what_is_held_at_the_end_is_not_lost():
    """A stream that ends at a key frame."""
    units = AccessUnits("hevc")
    key = unit(IDR, 0, is_key=True)
    units.take(key)
    assert units.rest() == [key]


def test_codecs_without_slices_are_never_held():
    """Each picture of Motion JPEG is whole."""
    key = unit(b"jpeg", 0, is_key=True)
    assert AccessUnits("mjpeg").take(key) == [key]
