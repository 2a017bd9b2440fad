"""What every test has: the reasons for skipping, a folder for logs, short-lived folders for sockets."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.leaks import leaks
from tests.real.parts import require
from vigintd import failpoints, logs, metrics


def pytest_configure() -> None:
    """Tables are as wide as each test says: a worker is told the width of the terminal that pytest runs in."""
    os.environ.pop("COLUMNS", None)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs a part that this machine lacks, with its reason; in the gate (`CI=true`) that is a failure."""
    for marker in item.iter_markers("needs"):
        for part in marker.args:
            require(part)


@pytest.fixture(scope="session")
def log_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Every log of the run, or of one of its workers, is written here, and searched for secrets at the end."""
    folder = tmp_path_factory.mktemp("logs")
    yield folder
    assert leaks(folder) == []


@pytest.fixture(scope="session", autouse=True)
def _in_process_log(log_folder):
    with (log_folder / "in-process.log").open("w", encoding="utf-8") as stream:
        logs.configure("json", level="debug", stream=stream)
        yield


@pytest.fixture(autouse=True)
def _nothing_armed():
    yield
    failpoints.disarm()
    metrics.reset()


@pytest.fixture
def short_path():
    """A folder with a short name: a unix socket's path holds 107 bytes, and pytest's own folders are long."""
    folder = Path(tempfile.mkdtemp(prefix="vgt-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
