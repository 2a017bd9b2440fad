"""Pictures as the demo's camera sends them."""

import numpy as np

from tests.clip.pictures import decoded, pictures
from vigintd.clip import h264
from vigintd.clip.encode import encode_pictures


def test_pictures_become_packets_a_camera_could_send():
    """One annex B packet a picture, rising times, key frames as asked and each with its parameter sets."""
    shown = list(pictures(20))
    packets = encode_pictures(shown, fps=12.5, gop=5, start_s=7)
    assert [p.pts_90k for p in packets] == [n * 7200 for n in range(20)]
    assert all(p.dts_90k == p.pts_90k and p.duration_90k == 7200 for p in packets)
    assert [p.is_key for p in packets] == [n % 5 == 0 for n in range(20)]
    assert all(len(h264.parameter_sets(p.data)) == (2 if p.is_key else 0) for p in packets)
    assert all(p.data.startswith(b"\0\0\0\1") for p in packets)
    assert packets[-1].arrived_s == 7 + 19 / 12.5
    parameters = packets[0].parameters
    assert (parameters.codec, parameters.width_px, parameters.height_px) == ("h264", 160, 120)
    assert h264.parameter_sets(packets[0].data) == h264.read_extradata(parameters.extradata).parameter_sets
    assert all(p.parameters is parameters for p in packets)
    for frame, picture in zip(decoded(packets), shown, strict=True):
        assert abs(frame.astype(int) - picture).mean() < 12


def test_no_pictures_are_no_packets():
    """Nothing in, nothing out."""
    assert encode_pictures([], fps=25, gop=25) == []


def test_colours_come_out_as_they_went_in():
    """White stays white and red stays red: the range is said and kept."""
    for colour in ((255, 255, 255), (0, 0, 0), (220, 20, 20)):
        picture = np.full((64, 64, 3), colour, np.uint8)
        (frame,) = decoded(encode_pictures([picture], fps=1, gop=1, crf=10))
        assert abs(frame.astype(int) - picture).max() <= 6
