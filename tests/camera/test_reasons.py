"""Why a stream cannot be had: one word each, and never a credential."""

import socket
import threading
import traceback
import wave
from contextlib import suppress

import pytest

from tests.camera.streams import request, write_video
from vigintd.camera.av_stream import open_av_stream
from vigintd.camera.stream import StreamRequest
from vigintd.clock import SystemClock
from vigintd.errors import StreamLost


@pytest.fixture
def answering():
    """Starts a server that answers each connection so and closes, or, without answers, is silent. PORT is its own."""
    stop, servers = threading.Event(), []

    def start(*answers: bytes) -> int:
        server = socket.create_server(("127.0.0.1", 0))
        servers.append(server)
        port = str(server.getsockname()[1]).encode()

        def serve() -> None:
            while not stop.is_set():
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection, suppress(OSError):
                    for each in answers:
                        connection.recv(4096)
                        connection.sendall(each.replace(b"PORT", port))
                    if not answers:
                        stop.wait(10)

        threading.Thread(target=serve, daemon=True).start()
        return int(server.getsockname()[1])

    yield start
    stop.set()
    for server in servers:
        server.shutdown(socket.SHUT_RDWR)
        server.close()


def rtsp(status: str) -> bytes:
    return f"RTSP/1.0 {status}\r\nCSeq: 1\r\n\r\n".encode()


def reason(given: StreamRequest) -> str:
    with pytest.raises(StreamLost) as caught:
        open_av_stream(given, SystemClock())
    told = (
        "".join(traceback.format_exception(caught.value))
        + repr((caught.value.__cause__, caught.value.__context__))
        + str(caught.value)
    )
    assert "topsecret" not in told
    return caught.value.reason


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (rtsp("401 Unauthorized"), "unauthorized"),
        (rtsp("403 Forbidden"), "unauthorized"),
        (rtsp("404 Not Found"), "not_found"),
        (rtsp("454 Session Not Found"), "rejected"),
        (rtsp("503 Service Unavailable"), "rejected"),
        (b"\x00\x01 no RTSP at all", "garbage"),
    ],
)
def test_what_a_camera_answers_has_a_word(answering, answer, expected):
    """And the sentence beside it is free of the password."""
    assert reason(request(f"rtsp://cam:topsecret@127.0.0.1:{answering(answer)}/x")) == expected


def test_a_camera_that_does_not_answer_is_a_timeout(answering):
    """Opening ends when its time is over."""
    given = request(f"rtsp://cam:topsecret@127.0.0.1:{answering()}/x", open_timeout_s=0.5)
    assert reason(given) == "timeout"


def test_a_closed_port_is_refused():
    """Nothing listens there."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert reason(request(f"rtsp://cam:topsecret@127.0.0.1:{port}/x")) == "refused"


def test_a_name_without_an_address_is_dns():
    """The resolver says so before FFmpeg is asked."""
    assert reason(request("rtsp://cam:topsecret@no-such-camera.invalid/x")) == "dns"


def test_files_that_are_missing_or_no_video_have_words(tmp_path):
    """For the tests' own sources."""
    (tmp_path / "text.mp4").write_text("no video")
    assert reason(request((tmp_path / "missing.mp4").as_uri())) == "not_found"
    assert reason(request(tmp_path.as_uri())) == "not_found"
    assert reason(request((tmp_path / "text.mp4").as_uri())) == "garbage"


def test_a_codec_that_nobody_knows_is_unsupported_and_sound_alone_no_video(tmp_path):
    """Not the camera's fault, and not one of the network's."""
    video = write_video(tmp_path / "video.mkv", seconds=0.1).read_bytes()
    assert b"V_MPEG4/ISO/AVC" in video
    (tmp_path / "unknown.mkv").write_bytes(video.replace(b"V_MPEG4/ISO/AVC", b"V_NONE4/ISO/AVC"))
    assert reason(request((tmp_path / "unknown.mkv").as_uri())) == "unsupported"
    with wave.open(str(tmp_path / "sound.wav"), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(bytes(1600))
    assert reason(request((tmp_path / "sound.wav").as_uri())) == "no_video"


def test_redirects_for_ever_end_with_the_time_to_open(answering):
    """Only PyAV's own time-out for opening ends them."""
    options = b"RTSP/1.0 200 OK\r\nCSeq: 1\r\nPublic: DESCRIBE\r\n\r\n"
    describe = b"RTSP/1.0 302 Found\r\nCSeq: 2\r\nLocation: rtsp://127.0.0.1:PORT/x\r\n\r\n"
    port = answering(options, describe)
    assert reason(request(f"rtsp://cam:topsecret@127.0.0.1:{port}/x", open_timeout_s=1)) == "timeout"
