"""A journal that takes no row: nothing is recorded, and people are told that rather than nothing."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.incident.test_courier import ID, PEOPLE, ScriptedChannel, house
from tests.incident.test_story import PLAN, ScriptedHost, Stage, both
from tests.manual_clock import ManualClock
from vigintd.errors import JournalUnavailable, MailRefused
from vigintd.incident.courier import UNWRITTEN_S
from vigintd.journal import EffectKind, Journal, Owed
from vigintd.model import AlertKind, Detection, Incident, NoVideo
from vigintd.spool import Spool


async def live_through(folder: Path, fill) -> None:
    """A story whose journal is filled up, by `fill`, before its first row."""
    clock, spool, channel = ManualClock(), Spool(folder / "spool"), ScriptedChannel()
    async with Journal.open(folder / "journal.sqlite3", clock) as journal:
        await fill(journal)
        stage = Stage(clock, journal, spool, channel, ScriptedHost(), plan=PLAN, filled=True)
        living = asyncio.create_task(stage.story.run())
        while not living.done():
            asleep = asyncio.ensure_future(clock.asleep())
            await asyncio.wait({asleep, living}, return_when=asyncio.FIRST_COMPLETED)
            asleep.cancel()
            await clock.advance(1)
        with pytest.raises(JournalUnavailable, match="full"):
            await living
        assert not stage.story.promised
        assert clock.monotonic_s() <= stage.detection.arrived_s + PLAN.audience.text_after_s + 1
        assert await journal.incident(ID) is None
        assert await stage.told() == both(AlertKind.TEXT, NoVideo.UNWRITTEN)
    await spool.aclose()


async def test_a_full_journal_does_not_keep_people_in_the_dark(tmp_path):
    """SQLite's own SQLITE_FULL, for as long as the text alert is waited for."""

    async def fill(journal: Journal) -> None:
        await journal._database.execute("PRAGMA max_page_count = 1")  # no page more than there is
        detection = Detection("entree", 0.0, ManualClock().now(), "motion")
        owed = [Owed(EffectKind.ALERT, who) for who in PLAN.audience.recipients]
        number = 100
        while number < 1000:
            try:
                await journal.open_incident(Incident(f"00000000-0000-4000-8000-{number:012d}", detection), owed)
            except JournalUnavailable:
                return
            number += 1
        pytest.fail("there is always room")

    await live_through(tmp_path, fill)


_ON_A_FULL_DISK = """
import asyncio, errno, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from tests.incident.test_unwritten import live_through
folder = Path(sys.argv[1])
async def fill(_journal):
    with (folder / "ballast").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError as error:
            assert error.errno == errno.ENOSPC
asyncio.run(live_through(folder, fill))
print("told")
"""


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("unshare") is None, reason="mounting a small disk needs root and unshare")
async def test_a_full_disk_does_not_keep_people_in_the_dark(tmp_path):
    """A real one of half a megabyte, seen by one process only."""
    mounted = f'mount -t tmpfs -o size=512k none "{tmp_path}" && exec "$@"'
    command = ["unshare", "-m", "sh", "-c", mounted, "sh", sys.executable, "-c", _ON_A_FULL_DISK, tmp_path, Path.cwd()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: ASYNC221 - nothing else runs in this loop
    if "mount:" in done.stderr or "unshare:" in done.stderr:
        pytest.skip(done.stderr.strip())
    assert done.stdout.endswith("told\n"), done.stderr


async def test_one_recipients_failure_is_not_the_others(tmp_path):
    """Tried once each: what is not written down cannot be owed."""
    async with house(tmp_path, MailRefused("550 no such user")) as it:
        await it.courier.tell_unwritten(Incident(ID, Detection("entree", 0.0, it.clock.now(), "motion")))
        assert it.channel.fired == 1
        assert it.told() == [(PEOPLE[1], AlertKind.TEXT, NoVideo.UNWRITTEN)]


async def test_a_camera_that_goes_on_seeing_says_so_once_in_a_while(tmp_path):
    """Without rows each detection is an incident; the log has them all."""
    async with house(tmp_path) as it:

        async def tell(number: int, camera: str) -> None:
            detection = Detection(camera, 0.0, it.clock.now(), "motion")
            await it.courier.tell_unwritten(Incident(f"00000000-0000-4000-8000-{number:012d}", detection))

        with capture_logs() as logs:
            for number in range(5):
                await tell(number, "entree")
        assert len([log for log in logs if log["event"] == "mail.unwritten_again"]) == 4
        await tell(5, "parking")
        await it.clock.advance(UNWRITTEN_S)
        await tell(6, "entree")
        assert [alert.camera for alert in it.channel.delivered] == ["entree"] * 2 + ["parking"] * 2 + ["entree"] * 2
