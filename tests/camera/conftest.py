"""Real streams for the camera's tests."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest
import structlog

from tests.camera.streams import RtspServer, start_server, write_video
from vigintd import logs


@pytest.fixture(scope="session")
def video(tmp_path_factory) -> Path:
    """A second of H.264 in MP4."""
    return write_video(tmp_path_factory.mktemp("video") / "block.mp4")


@pytest.fixture(scope="session")
def annex_b(tmp_path_factory) -> Path:
    """The same as a transport stream: Annex B, parameter sets in it."""
    return write_video(tmp_path_factory.mktemp("video") / "block.ts")


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """What is logged, as it would be written."""
    before = structlog.get_config()
    written = io.StringIO()
    logs.configure("json", stream=written)
    yield written
    structlog.configure(**before)


@pytest.fixture
def rtsp() -> Iterator[Callable[..., RtspServer]]:
    """Starts RTSP servers of the test's own; see `tests/real/gst_rtsp.py` for the arguments."""
    with _servers() as start:
        yield start


@pytest.fixture(scope="module")
def shared_rtsp() -> Iterator[Callable[..., RtspServer]]:
    """The same for tests that leave a server as they found it: one for each set of arguments."""
    with _servers() as start:
        yield cache(start)


@contextmanager
def _servers() -> Iterator[Callable[..., RtspServer]]:
    servers: list[RtspServer] = []

    def start(*arguments: str) -> RtspServer:
        server = RtspServer(*start_server(arguments), arguments)
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.kill()
