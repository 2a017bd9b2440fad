"""What lies in the spool belongs to a row, is taken into the journal again, or goes; a lost journal is filled from it."""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from structlog.testing import capture_logs

from tests.clip.pictures import FPS, coded
from tests.incident.test_courier import ScriptedChannel
from tests.incident.test_publisher import AUDIENCE, Gate, Yard, at_work, id_of
from tests.incident.test_recovery import recovery
from tests.manual_clock import ManualClock
from vigintd.alert.words import words
from vigintd.clip.recorder import ClipRecorder
from vigintd.incident import Memory, memory
from vigintd.journal import EffectKind, EffectState, IncidentRow, Journal
from vigintd.model import IncidentState, NoVideo
from vigintd.spool import Spool

RESTORED = words("fr").restored


class Box:
    """A box whose daemon is started again and again: one state folder, one clock, one host and one channel."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.clock, self.host, self.channel = folder, ManualClock(), Gate(), ScriptedChannel()
        self.host.open = asyncio.Semaphore(1000)

    @property
    def journal_path(self) -> Path:
        return self.folder / "journal.sqlite3"

    @asynccontextmanager
    async def yard(self):
        """Journal and spool open, sidecars written at the end; nothing is recovered yet."""
        spool = Spool(self.folder / "spool")
        async with Journal.open(self.journal_path, self.clock) as journal:
            keeper = Memory(journal=journal, spool=spool, clock=self.clock)
            yield Yard(self.clock, journal, spool, self.channel, self.host)
            await keeper.run_once()
        await spool.aclose()

    def damage(self) -> None:
        """Write over the header of the closed journal."""
        with self.journal_path.open("r+b") as file:
            file.write(b"\xff" * 100)

    def files(self) -> set[str]:
        return {path.name for path in (self.folder / "spool").iterdir()}


async def record(it: Yard, number: int, *, seal: bool) -> None:
    recorder = ClipRecorder(it.spool, id_of(number), on_part=lambda _part: None)
    await recorder.write(coded(FPS))
    if seal:
        await recorder.seal()
    await recorder.aclose()


async def lived(it: Yard, number: int) -> IncidentRow:
    """An incident with all its story behind it: recorded, published, everybody told."""
    await it.leave(number)
    await it.journal.record_playable(id_of(number))
    await it.journal.settle(f"{id_of(number)}/publish/")
    row: IncidentRow = await it.row(number)
    assert row.incident.state is IncidentState.CLOSED
    return row


async def test_a_damaged_journal_is_filled_again_from_the_sidecars(tmp_path):
    """Every incident is what it was, with who was told, what is owed and how often it was tried; the log counts them."""
    box = Box(tmp_path)
    async with box.yard() as it:
        await lived(it, 1)
        await it.open(2, alerted=False)
        await it.leave(3)
        await it.journal.postpone(f"{id_of(3)}/publish/", "503", box.clock.now() + timedelta(seconds=60))
        before = [await it.row(number) for number in (1, 3)]
    box.damage()
    with capture_logs() as logs:
        async with box.yard() as it:
            await recovery(it).run_once()
            assert [await it.row(number) for number in (1, 3)] == before
            assert (await it.row(2)).incident.state is IncidentState.SEALED
            (damaged,) = it.journal.set_aside()
    (log,) = [log for log in logs if log["event"] == "journal.rebuilt"]
    assert log["log_level"] == "error"
    assert {name: log[name] for name in ("adopted", "guessed", "owed", "removed")} == {
        "adopted": 3,
        "guessed": 0,
        "owed": 3,
        "removed": 0,
    }
    assert log["damaged"] == [str(damaged)]


async def test_nobody_who_was_told_is_told_again_and_who_was_not_is_told_what_happened(tmp_path):
    box = Box(tmp_path)
    async with box.yard() as it:
        await it.open(1, alerted=False)
        await record(it, 1, seal=True)
        await it.journal.settle(f"{id_of(1)}/alert/a@exemple.fr")
        await it.open(2, alerted=False)
        await record(it, 2, seal=True)
    box.damage()
    async with box.yard() as it:
        await recovery(it).run_once()
        async with at_work(it):
            for number in (1, 2):
                await it.until(number, lambda row: row.incident.state is IncidentState.CLOSED)
    assert {alert.incident_id for alert in box.channel.delivered} == {id_of(2)}
    assert box.channel.delivered[0].detection.text == RESTORED
    assert box.channel.delivered[-1].link
    assert sorted(box.host.sealed) == [id_of(1), id_of(2)]


async def test_a_journal_that_lost_its_last_commits_catches_up_with_the_sidecars(tmp_path):
    """A disk had said that they were written. Nobody is told again, and nothing is sent to the host again."""
    box = Box(tmp_path)
    async with box.yard() as it:
        await it.open(1, alerted=False)
    earlier = box.journal_path.read_bytes()
    async with box.yard() as it:
        await record(it, 1, seal=True)
        parts = (await it.spool.salvage(id_of(1), ""),)[0]
        row = await it.row(1)
        await it.journal.record_incident(replace(row.incident, state=IncidentState.SEALED, parts=parts))
        for effect in row.effects:
            await it.journal.settle(effect.key)
        before = await it.row(1)
        assert before.incident.state is IncidentState.CLOSED
    box.journal_path.write_bytes(earlier)
    with capture_logs() as logs:
        async with box.yard() as it:
            assert (await it.row(1)).incident.state is IncidentState.TRIGGERED
            await recovery(it).run_once()
            after = await it.row(1)
    assert after.incident == before.incident
    assert [effect.state for effect in after.effects] == [EffectState.DONE] * 2
    assert "incident.caught_up" in [log["event"] for log in logs]
    assert "incident.recovered" not in [log["event"] for log in logs]


async def test_what_somebody_has_retried_is_not_given_up_by_a_sidecar_of_before(tmp_path):
    """The daemon died before it could write that down beside the clip."""
    box = Box(tmp_path)
    async with box.yard() as it:
        await it.leave(1)
        await it.journal.bury(f"{id_of(1)}/publish/", "no room", no_video=NoVideo.REFUSED)
    sidecar = tmp_path / "spool" / f"{id_of(1)}{memory.SUFFIX}"
    stale = sidecar.read_bytes()
    async with box.yard() as it:
        await it.journal.revive(None, links_until=it.journal.now())
        before = await it.row(1)
    sidecar.write_bytes(stale)
    async with box.yard() as it:
        await recovery(it).run_once()
        assert await it.row(1) == before
        assert before.effects[0].state is EffectState.OWED


async def test_an_empty_journal_beside_a_full_spool_is_a_lost_one(tmp_path):
    """Somebody deleted it, or a file system brought back a file without its bytes."""
    box = Box(tmp_path)
    async with box.yard() as it:
        before = await lived(it, 1)
    box.journal_path.write_bytes(b"")
    with capture_logs() as logs:
        async with box.yard() as it:
            await recovery(it).run_once()
            assert await it.row(1) == before
    assert "journal.rebuilt" in [log["event"] for log in logs]


async def test_a_first_start_is_no_rebuilding(tmp_path):
    box = Box(tmp_path)
    with capture_logs() as logs:
        async with box.yard() as it:
            await recovery(it).run_once()
    assert logs == []


async def test_a_row_that_a_whole_journal_lacks_is_adopted_alone(tmp_path):
    """A disk may lose the last commits and keep what was written after them."""
    box = Box(tmp_path)
    async with box.yard() as it:
        await it.open(1, alerted=False)
    older = box.journal_path.read_bytes()
    async with box.yard() as it:
        await it.open(2, alerted=False)
    box.journal_path.write_bytes(older)
    with capture_logs() as logs:
        async with box.yard() as it:
            await recovery(it).run_once()
            assert len(await it.journal.incidents()) == 2
    assert ("spool.orphans", 1) in [(log["event"], log.get("adopted")) for log in logs]
    assert "journal.rebuilt" not in [log["event"] for log in logs]


async def test_a_clip_of_which_nothing_else_is_known_is_published_and_told_to_everybody(tmp_path):
    """Better a mail too many than a clip nobody hears of. Its time is that of its file."""
    box = Box(tmp_path)
    async with box.yard() as it:
        await record(it, 1, seal=False)
        os.utime(it.spool.part_path(id_of(1), 0), (1_700_000_000, 1_700_000_000))
        await recovery(it).run_once()
        async with at_work(it):
            await it.until(1, lambda row: row.incident.state is IncidentState.CLOSED)
        row = await it.row(1)
    (part,) = row.incident.parts
    assert "stopped while it recorded" in part.partial
    assert row.incident.detection.at.timestamp() + part.duration_s == 1_700_000_000
    alert = box.channel.delivered[0]
    assert (alert.recipient, alert.camera, alert.detection.text) == (AUDIENCE.recipients[0], "inconnue", RESTORED)
    assert box.host.sealed == {id_of(1): [part.sha256]}


async def test_a_damaged_sidecar_is_none(tmp_path):
    """Cut, another incident's, or of a vigintd to come: the clip speaks for itself."""
    box = Box(tmp_path)
    async with box.yard() as it:
        await it.open(1)
        row = await it.row(1)
    good = json.loads(memory.written(row))
    broken = [good | {"schema": 2}, good | {"id": id_of(9)}, good | {"effects": [{}]}, [], "x", good | {"state": "flown"}]
    contents = [*(json.dumps(content).encode() for content in broken), b"", memory.written(row)[:100]]
    box = Box(tmp_path / "other")
    async with box.yard() as it:
        for number, content in enumerate(contents, 10):
            await it.spool.keep(id_of(number), memory.SUFFIX, content)
            await record(it, number, seal=True)
        with capture_logs() as logs:
            await recovery(it).run_once()
        assert len(await it.journal.incidents()) == len(contents)
    assert len([log for log in logs if log["event"] == "sidecar.unreadable"]) == len(contents)


async def test_after_a_recovery_no_orphan_is_left(tmp_path):
    """What was half written, and pictures, sidecars and empty parts of incidents nobody knows, go; all else has a row."""
    box = Box(tmp_path)
    async with box.yard() as it:
        await it.leave(1)
        await it.spool.keep(id_of(2), ".jpg", b"a picture")
        await it.spool.keep(id_of(3), ".0.json", b"{}")
        await (await it.spool.new_part(id_of(4), 0)).close()
        await it.spool.keep(id_of(5), memory.SUFFIX, b"{}")
        await record(it, 6, seal=False)
        for name in (f".{id_of(1)}.jpg.tmp", f".{id_of(7)}.0.json.tmp"):
            (it.spool.root / name).write_bytes(b"half")
        await recovery(it).run_once()
        known = {row.incident.id for row in await it.journal.incidents()}
    assert known == {id_of(1), id_of(6)}
    assert {name.partition(".")[0] for name in box.files()} == known
    assert not [name for name in box.files() if name.startswith(".")]


async def test_what_might_hold_video_and_files_of_others_are_never_removed(tmp_path):
    box = Box(tmp_path)
    strange = {f"{id_of(1)}.0.source.mp4", f"{id_of(1)}.jpg", "lost+found", "notes.txt", ".notes.tmp"}
    async with box.yard() as it:
        for name in strange:
            (it.spool.root / name).write_bytes(b"precious")
        with capture_logs() as logs:
            await recovery(it).run_once()
        assert await it.journal.incidents() == []
    assert box.files() == strange
    assert [log["incident"] for log in logs if log["event"] == "spool.orphan"] == [id_of(1)]


async def test_an_orphan_that_cannot_be_read_holds_up_no_other(tmp_path, monkeypatch):
    box = Box(tmp_path)
    async with box.yard() as it:
        await record(it, 1, seal=False)
        await record(it, 2, seal=False)
        salvage, failed = it.spool.salvage, []

        async def failing(incident_id: str, partial: str):
            if incident_id == id_of(1):
                failed.append(incident_id)
                raise OSError(5, "Input/output error")
            return await salvage(incident_id, partial)

        monkeypatch.setattr(it.spool, "salvage", failing)
        await recovery(it).run_once()
        assert failed == [id_of(1)]
        assert [row.incident.id for row in await it.journal.incidents()] == [id_of(2)]
        assert it.spool.part_path(id_of(1), 0).exists()


async def test_an_unrecorded_incident_is_told_though_only_its_sidecar_is_left(tmp_path):
    box = Box(tmp_path)
    async with box.yard() as it:
        await it.open(1, alerted=False)
    box.damage()
    async with box.yard() as it:
        await recovery(it).run_once()
        async with at_work(it):
            await it.until(1, lambda row: row.incident.state is IncidentState.CLOSED)
    (alert,) = box.channel.delivered
    assert alert.no_video is NoVideo.UNRECORDED


async def test_an_incident_that_killed_starts_before_is_still_counted(tmp_path):
    """A journal that is lost forgives no poison."""
    box = Box(tmp_path)
    async with box.yard() as it:
        await it.open(1)
        for _ in range(3):
            await it.journal.take_over(id_of(1))
    box.damage()
    async with box.yard() as it:
        await recovery(it).run_once()
        assert "set aside" in (await it.row(1)).incident.problem


async def test_what_was_given_up_stays_given_up(tmp_path):
    """A lost journal is no reason to try again what a server refused."""
    box = Box(tmp_path)
    async with box.yard() as it:
        await it.leave(1)
        await it.journal.bury(f"{id_of(1)}/publish/", "403")
    box.damage()
    async with box.yard() as it:
        await recovery(it).run_once()
        row = await it.row(1)
        assert [(effect.kind, effect.state, effect.last_error) for effect in row.effects] == [
            (EffectKind.PUBLISH, EffectState.DEAD, "403")
        ]
        assert row.incident == replace(row.incident, state=IncidentState.CLOSED)
