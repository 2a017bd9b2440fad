"""A journal that is damaged keeps no daemon from starting: its incidents go on from their files, and alerts still go."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.daemon.box import boxed, camera
from tests.daemon.test_restart import assert_link_shows_the_clip, assert_nobody_was_told_twice
from tests.daemon.web import fetch
from vigintd.errors import ControlError
from vigintd.journal.schema import SCHEMA_VERSION

PAGE_BYTES = 4096


def whole(journal: Path) -> bytes:
    """What is in it, the log of its last commits included."""
    with closing(sqlite3.connect(journal)) as database:
        assert database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
    return journal.read_bytes()


def noise(length: int) -> bytes:
    return random.Random(7).randbytes(length)


def overwrite_under_way(journal: Path) -> None:
    """Write over the tables of a journal that a daemon has open, and have the daemon read them from the disk again."""
    content = bytearray(whole(journal))
    with closing(sqlite3.connect(journal)) as other:
        for (page,) in other.execute("SELECT rootpage FROM sqlite_schema WHERE rootpage > 0").fetchall():
            content[(page - 1) * PAGE_BYTES : page * PAGE_BYTES] = noise(PAGE_BYTES)
        journal.write_bytes(content)
        # A commit of another process, after which a connection does not rely on what it has in memory.
        other.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


DAMAGES = {
    "the header": lambda content: b"\xff" * PAGE_BYTES + content[PAGE_BYTES:],
    "a page": lambda content: content[: 2 * PAGE_BYTES] + noise(PAGE_BYTES) + content[3 * PAGE_BYTES :],
    "truncated": lambda content: content[: len(content) // 2 + 7],
    "empty": lambda _content: b"",
}


async def test_a_journal_damaged_by_a_power_cut_costs_no_incident(short_path, log_folder, rtsp_cameras):
    """Cut in mid-recording, then damaged in one way after the other: the link shows the clip, and the status says why."""
    rtsp = await rtsp_cameras()
    async with boxed(short_path, log_folder, {"entree": camera(rtsp.url, post_roll_s=20)}) as box:
        journal = box.state_dir / "journal.sqlite3"
        await box.start()
        await box.event("camera.live", camera="entree")
        incident_id = await box.trigger("entree")
        letter = await box.letter()
        assert letter.link
        for number, damage in enumerate(DAMAGES.values()):
            await box.kill()
            assert (box.state_dir / "spool" / f"{incident_id}.incident.json").exists()
            journal.write_bytes(damage(whole(journal)))
            await box.start()
            rebuilt = await box.event("journal.rebuilt")
            assert (rebuilt["level"], rebuilt["adopted"], rebuilt["guessed"]) == ("error", 1, 0)
            assert len(rebuilt["damaged"]) == min(number + 1, 3)
            assert (await box.control.status())["journal"]["damaged"] == rebuilt["damaged"]
            if not number:
                await assert_link_shows_the_clip(box, incident_id, letter.link)
        assert (await fetch(letter.link)).status == 200
        assert_nobody_was_told_twice(box, kills=len(DAMAGES))
        again = await box.trigger("entree")
        assert (await box.letter(lambda letter: again in (letter.link or ""))).link


async def test_a_journal_damaged_under_way_is_told_and_mended_by_the_next_start(short_path, log_folder, rtsp_cameras):
    """The incident that could not be written down is mailed as such; what was written before is there again."""
    rtsp = await rtsp_cameras()
    async with boxed(short_path, log_folder, {"entree": camera(rtsp.url)}, alert={"text_after_s": 1}) as box:
        journal = box.state_dir / "journal.sqlite3"
        await box.start()
        await box.event("camera.live", camera="entree")
        incident_id = await box.trigger("entree")
        link = (await box.letter(lambda letter: letter.link is not None)).link
        assert link
        await box.closed(incident_id)
        overwrite_under_way(journal)
        with pytest.raises(ControlError, match="could not be written to the journal"):
            await box.trigger("entree")
        assert (await box.event("journal.damaged"))["level"] == "error"
        told = await box.letter()
        assert told.link is None
        assert "journal" in told.text
        assert await box.died() == 1
        await box.start()
        assert (await box.event("journal.rebuilt"))["adopted"] == 1
        assert (await fetch(link)).status == 200
