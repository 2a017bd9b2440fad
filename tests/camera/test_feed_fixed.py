"""What of a stream is decoded and shown where a rate is asked for, and where nobody watches."""

from itertools import pairwise

import pytest

from tests.camera.scenes import eyes_of, feed_for, lookouts
from tests.camera.streams import packets_of, write_video
from vigintd.model import Packet


@pytest.fixture
def video(tmp_path) -> list[Packet]:
    """Two seconds, fifty pictures each, a key frame each fifth of a second."""
    return packets_of(write_video(tmp_path / "block.mp4", seconds=2))


class TestFixedRate:
    @pytest.mark.parametrize("fps", [4, 5, 15])
    def test_shows_so_many_pictures_a_second_evenly(self, video, fps):
        eyes = eyes_of(lambda _: None)
        feed = feed_for([eyes], detect_fps=fps)
        for packet in video:
            feed.see(packet)
        assert len(eyes.shown_s) == pytest.approx(2 * fps, abs=1)
        assert all(later - earlier >= 1 / fps - 0.021 for earlier, later in pairwise(eyes.shown_s))

    def test_says_of_each_key_frame_that_it_decoded(self, video):
        feed = feed_for([eyes_of(lambda _: None)], detect_fps=5)
        keys = [feed.see(packet) for packet in video]
        assert sum(key is not None for key in keys) == sum(packet.is_key for packet in video)

    def test_needs_no_thread(self, video):
        feed = feed_for([eyes_of(lambda _: None)], detect_fps=5)
        feed.see(video[0])
        assert lookouts() == []


class TestUnwatched:
    @pytest.mark.parametrize("detect_fps", [5, None])
    def test_decodes_a_key_frame_now_and_then_and_has_no_thread(self, video, detect_fps):
        feed = feed_for([], detect_fps=detect_fps)
        keys = [packet.arrived_s for packet in video if feed.see(packet) is not None]
        assert len(keys) == 3
        assert lookouts() == []
