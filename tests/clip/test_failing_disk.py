"""A disk whose fsync fails: the file takes nothing more, what was good of it stays, and the clip goes on in another."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path
from uuid import uuid4

import pytest

from tests.clip.pictures import FPS, Played, coded
from vigintd.clip.recorder import ClipRecorder
from vigintd.spool import NotDurable, disk


def failing(monkeypatch, path: Path) -> list[int]:
    """The next fsync of this file fails; answers a list of the descriptors it failed on."""
    real, failed = os.fsync, list[int]()

    def broken(descriptor):
        if not failed and Path(f"/proc/self/fd/{descriptor}").readlink() == path:
            failed.append(descriptor)
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", broken)
    return failed


async def test_after_a_failed_fsync_the_clip_goes_on_in_another_part(recorder, parts, monkeypatch):
    """The part ends where it is good and says why; the next begins at the next key frame. Both play."""
    plain = coded(4 * FPS)
    await recorder.write(plain[:50])
    failed = failing(monkeypatch, parts[0].path)
    good_bytes = parts[0].visible_bytes
    with pytest.raises(NotDurable):
        await recorder.write(plain[50:70])
    assert failed
    await recorder.write(plain[70:])
    first, second = await recorder.seal()
    assert (first.length_bytes, first.partial) == (good_bytes, "the disk failed: Input/output error")
    assert (second.index, second.partial, second.duration_s) == (1, "", 1.0)
    for part in parts:
        Played(part.path).assert_plays()
        assert part.sealed
        assert part.sealed.sha256 == hashlib.sha256(part.path.read_bytes()).hexdigest()


async def test_a_part_of_which_nothing_became_durable_leaves_no_gap(recorder, parts, monkeypatch, spool):
    """Its number is the next one's."""
    plain = coded(4 * FPS)
    with monkeypatch.context() as patch:
        patch.setattr(disk, "_fsync", lambda _: (_ for _ in ()).throw(NotDurable(5, "Input/output error")))
        with pytest.raises(NotDurable):
            await recorder.write(plain[:50])
    await recorder.write(plain[50:])
    (sealed,) = await recorder.seal()
    assert (sealed.index, sealed.duration_s) == (0, 2.0)
    assert sorted(path.name for path in spool.root.iterdir()) == [parts[0].path.with_suffix(".json").name, parts[0].path.name]


async def test_after_a_failed_fsync_the_camera_is_spooled_into_another_source(spool, parts, monkeypatch):
    """What came before it and what comes after are parts; nobody looks for what was lost in the source that failed."""
    incident_id = str(uuid4())
    hevc = coded(4 * FPS, encoder="libx265", gop=FPS)
    recorder = ClipRecorder(spool, incident_id, on_part=parts.append)
    await recorder.write(hevc[: 2 * FPS])
    failed = failing(monkeypatch, spool.source_path(incident_id, 0))
    with pytest.raises(NotDurable):
        await recorder.write(hevc[2 * FPS : 3 * FPS])
    assert failed
    await recorder.write(hevc[3 * FPS :])
    first, second = await recorder.seal()
    assert (first.index, second.index) == (0, 1)
    assert first.duration_s == pytest.approx(1.5, abs=0.3)
    assert second.duration_s == pytest.approx(1)
    for part in parts:
        Played(part.path).assert_plays()
    await recorder.aclose()
    assert sorted(path.suffix for path in spool.root.iterdir()) == [".json", ".json", ".mp4", ".mp4"]
