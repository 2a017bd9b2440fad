"""A spool and a recorder on real files."""

from uuid import uuid4

import pytest

from vigintd import failpoints, metrics
from vigintd.clip.recorder import ClipRecorder
from vigintd.spool import PartFile, Spool


@pytest.fixture
async def spool(tmp_path):
    metrics.reset()
    spool = Spool(tmp_path)
    yield spool
    await spool.aclose()
    failpoints.disarm()


@pytest.fixture
def parts() -> list[PartFile]:
    """The parts that were announced."""
    return []


@pytest.fixture
async def recorder(spool, parts):
    recorder = ClipRecorder(spool, str(uuid4()), on_part=parts.append)
    yield recorder
    await recorder.aclose()
