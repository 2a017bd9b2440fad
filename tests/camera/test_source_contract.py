"""The camera source contract: what every stream promises to the capture thread, whoever reads it."""

import itertools
import threading
from collections.abc import Iterator

import pytest

from tests.camera.streams import assert_ends_when_told, packets_of, write_video
from tests.camera.streams import request as stream_request
from vigintd.camera.av_stream import open_av_stream
from vigintd.camera.decode import Decoder
from vigintd.camera.stream import Stream, Wire
from vigintd.clock import SystemClock
from vigintd.model import Packet

gst = pytest.mark.needs("gst-rtsp-server")


class ScriptedStream:
    """The tests' own source: the packets it is given, and then silence."""

    def __init__(self, packets: list[Packet]) -> None:
        self._packets = packets
        self._stop = threading.Event()

    def packets(self) -> Iterator[Packet]:
        for one in self._packets:
            if self._stop.is_set():
                return
            yield one
        self._stop.wait()

    def interrupt(self) -> None:
        self._stop.set()

    def wire(self) -> Wire | None:
        return None

    def close(self) -> None:
        self._stop.set()


def url_of(kind: str, fixtures: pytest.FixtureRequest) -> str:
    match kind:
        case "h264" | "h265":
            return str(fixtures.getfixturevalue("shared_rtsp")("--codec", kind, "--fps", "30", "--gop", "10").url)
        case "file":
            return str(fixtures.getfixturevalue("video").as_uri())
        case "transport stream":
            return str(fixtures.getfixturevalue("annex_b").as_uri())
        case _:
            folder = fixtures.getfixturevalue("tmp_path")
            return write_video(folder / "block.mov", codec="mjpeg", options={}).as_uri()


@pytest.fixture(
    params=[
        pytest.param("h264", marks=gst),
        pytest.param("h265", marks=gst),
        "file",
        "transport stream",
        "mjpeg file",
        "scripted",
    ]
)
def stream(request: pytest.FixtureRequest, annex_b) -> Iterator[Stream]:
    """A stream of each kind, opened."""
    if request.param == "scripted":
        opened: Stream = ScriptedStream(packets_of(annex_b))
    else:
        opened = open_av_stream(stream_request(url_of(request.param, request)), SystemClock())
    yield opened
    opened.close()


def test_it_begins_at_a_key_frame_and_decode_times_rise(stream):
    """The first packet can be decoded without any other, and no muxer will refuse the times."""
    packets = list(itertools.islice(stream.packets(), 15))
    assert packets[0].is_key
    assert all(later.dts_90k > earlier.dts_90k for earlier, later in itertools.pairwise(packets))
    assert all(later.arrived_s >= earlier.arrived_s for earlier, later in itertools.pairwise(packets))
    assert all(packet.pts_90k >= packet.dts_90k for packet in packets)
    assert all(packet.data for packet in packets)


def test_packets_share_one_value_of_parameters(stream):
    """Who asks whether a stream has changed compares identities, and finds the picture's size there."""
    packets = list(itertools.islice(stream.packets(), 15))
    assert len({id(packet.parameters) for packet in packets}) == 1
    assert (packets[0].parameters.width_px, packets[0].parameters.height_px) == (320, 240)


def test_packets_decode_without_their_container(stream):
    """Packets and parameters are all a decoder needs, so that a ring can be read after its camera has gone."""
    packets = list(itertools.islice(stream.packets(), 15))
    decoder = Decoder(packets[0].parameters)
    pictures = [picture for packet in packets for picture in decoder.decode(packet)]
    assert pictures[0].is_sound_key
    assert len(pictures) >= 14
    assert pictures[0].luma().shape == (240, 320)
    assert pictures[0].arrived_s == packets[0].arrived_s


def test_an_interrupt_from_another_thread_ends_it_quietly(stream):
    """A reader that waits for the next packet returns soon, and without an error."""
    assert_ends_when_told(stream)


def test_closing_and_interrupting_more_than_once_does_no_harm(stream):
    """Whoever cleans up need not know who did before."""
    next(iter(stream.packets()))
    stream.interrupt()
    stream.close()
    stream.close()
    stream.interrupt()
