"""What every test has: the reasons for skipping, a folder for logs, short-lived folders for sockets."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest

from tests.real.parts import require
from vigintd import failpoints, logs, metrics


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs a part that this machine lacks, with its reason; in the gate (`CI=true`) that is a failure."""
    for marker in item.iter_markers("needs"):
        for part in marker.args:
            require(part)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the test that reads the logs of the whole run behind all others."""
    items.sort(key=lambda item: item.path.name == "test_no_secret_in_any_log.py")


@pytest.fixture(scope="session")
def log_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every log of the run is written here, and read by one test at the end."""
    return tmp_path_factory.mktemp("logs")


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
