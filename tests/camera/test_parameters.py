"""Parameters as a value: replaced when a key frame brings others, and only then."""

from hypothesis import given
from hypothesis import strategies as st

from tests.camera.streams import packets_of, write_video
from vigintd.camera.av_stream import _size_by_decoding
from vigintd.camera.parameters import ParameterTracker, begins_picture, codec_of, first_slice, parameter_sets
from vigintd.model import Packet, StreamParameters

SPS, PPS, IDR = b"\x67sps", b"\x68pps", b"\x65slice"


def annex_b(*nals: bytes) -> bytes:
    return b"".join(b"\x00\x00\x00\x01" + nal for nal in nals)


def key(data: bytes, parameters: StreamParameters) -> Packet:
    return Packet(data, 0, 0, 0, True, 0.0, parameters)


class TestParameterSets:
    def test_they_are_found_ahead_of_the_first_slice(self):
        """Three- and four-byte start codes, trailing zeros, and other units between make no difference."""
        data = b"\x00\x00\x01\x09\xf0" + annex_b(SPS + b"\x00") + b"\x00\x00\x01" + PPS + annex_b(b"\x06sei", IDR, SPS)
        assert list(parameter_sets("h264", data)) == [SPS, PPS]

    def test_hevc_has_its_own_numbers(self):
        """VPS, SPS and PPS are units 32 to 34, a slice is any below 32."""
        vps, sps, pps, idr = b"\x40\x01v", b"\x42\x01s", b"\x44\x01p", b"\x26\x01i"
        assert list(parameter_sets("hevc", annex_b(vps, sps, pps, idr))) == [vps, sps, pps]

    def test_other_codecs_have_none(self):
        """A JPEG that happens to hold a start code is left alone."""
        assert list(parameter_sets("mjpeg", annex_b(SPS, IDR))) == []

    def test_the_first_slice_is_where_its_start_code_begins(self):
        """Everything ahead of it can be cut off."""
        head = b"\x00\x00\x01" + SPS + b"\x00\x00\x01" + PPS
        assert first_slice("h264", head + b"\x00\x00\x01" + IDR) == len(head)
        assert first_slice("h264", b"\x00\x00\x01" + IDR) == 0

    @given(codec=st.sampled_from(["h264", "hevc"]), data=st.binary(max_size=200))
    def test_any_bytes_are_survived(self, codec, data):
        """A camera may send anything."""
        assert all(nal in data for nal in parameter_sets(codec, data))
        assert 0 <= first_slice(codec, data) <= len(data)
        assert begins_picture(codec, data) in (True, False)
        assert codec_of(codec, data) in ("h264", "hevc")

    def test_the_first_slice_says_whether_it_begins_the_picture(self):
        """Its first bit, in both codecs."""
        assert begins_picture("h264", annex_b(SPS, b"\x65\x88"))
        assert not begins_picture("h264", annex_b(SPS, b"\x65\x10"))
        assert begins_picture("hevc", annex_b(b"\x26\x01\xac"))
        assert not begins_picture("hevc", annex_b(b"\x26\x01\x2c"))
        assert begins_picture("mjpeg", b"\xff\xd8")


class TestTracker:
    parameters = StreamParameters("h264", 640, 360, annex_b(SPS, PPS))

    def test_the_value_stays_the_same_while_key_frames_repeat_it(self):
        """Also when they bring no sets at all, or only some."""
        tracker = ParameterTracker(self.parameters, lambda _: (1, 1))
        for data in (annex_b(SPS, PPS, IDR), annex_b(IDR), annex_b(PPS, IDR)):
            packet = key(data, self.parameters)
            assert tracker.at_key(packet) is packet
        assert tracker.current is self.parameters

    def test_other_sets_make_another_value(self):
        """With the new sets, and the size that the key frame decodes to."""
        tracker = ParameterTracker(self.parameters, lambda _: (320, 180))
        found = tracker.at_key(key(annex_b(b"\x67other", PPS, IDR), self.parameters)).parameters
        assert found == StreamParameters("h264", 320, 180, annex_b(b"\x67other", PPS))
        assert tracker.at_key(key(annex_b(b"\x67other", PPS, IDR), found)).parameters is found

    def test_an_unknown_size_is_found_by_decoding(self):
        """A description without parameter sets leaves the size open until a key frame decodes."""
        sizes = iter([None, (640, 360)])
        tracker = ParameterTracker(StreamParameters("h264", 0, 0, b""), lambda _: next(sizes))
        first = tracker.at_key(key(annex_b(SPS, PPS, IDR), tracker.current))
        assert (first.parameters.width_px, first.parameters.extradata) == (0, annex_b(SPS, PPS))
        assert tracker.at_key(key(annex_b(SPS, PPS, IDR), tracker.current)).parameters.width_px == 640

    def test_length_prefixed_streams_are_not_searched(self):
        """An avcC record says that there are no start codes."""
        parameters = StreamParameters("h264", 640, 360, b"\x01\x64\x00\x1f")
        tracker = ParameterTracker(parameters, lambda _: (1, 1))
        assert tracker.at_key(key(annex_b(b"\x67other", IDR), parameters)).parameters is parameters

    def test_a_real_change_of_size_in_mid_stream_is_seen(self, tmp_path):
        """What a camera does when somebody changes its resolution."""
        large = packets_of(write_video(tmp_path / "large.ts", seconds=0.2))
        small = packets_of(write_video(tmp_path / "small.ts", seconds=0.2, size=(160, 120)))
        tracker = ParameterTracker(large[0].parameters, _size_by_decoding)
        assert tracker.at_key(large[0]).parameters.width_px == 320
        assert tracker.at_key(small[0]).parameters.width_px == 160

    def test_a_set_up_that_comes_beside_the_data_is_taken(self):
        """RTMP sends a new avcC record where the picture changes."""
        parameters = StreamParameters("h264", 640, 360, b"\x01\x64\x00\x1f")
        tracker = ParameterTracker(parameters, lambda _: (320, 180))
        assert tracker.at_key(key(b"\x00\x00\x00\x01\x65", parameters), parameters.extradata).parameters is parameters
        found = tracker.at_key(key(b"\x00\x00\x00\x01\x65", parameters), b"\x01\x4d\x00\x1e").parameters
        assert found == StreamParameters("h264", 320, 180, b"\x01\x4d\x00\x1e")

    def test_a_change_of_codec_is_seen_by_its_parameter_sets(self):
        """A transport stream may go on as HEVC and back, under the old name."""
        vps, sps, pps, idr = b"\x40\x01v", b"\x42\x01s", b"\x44\x01p", b"\x26\x01i"
        tracker = ParameterTracker(self.parameters, lambda _: (320, 180))
        hevc = tracker.at_key(key(annex_b(b"\x46\x01", vps, sps, pps, idr), self.parameters)).parameters
        assert hevc == StreamParameters("hevc", 320, 180, annex_b(vps, sps, pps))
        assert tracker.at_key(key(annex_b(idr), hevc)).parameters is hevc
        assert tracker.at_key(key(annex_b(SPS, PPS, IDR), hevc)).parameters.codec == "h264"
