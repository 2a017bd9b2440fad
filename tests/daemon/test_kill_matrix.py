"""Killed at any named point, a daemon loses nothing that was acknowledged: the next one seals, publishes and tells.

Every point of `failpoints.POINTS` is here, so that one that is added is missed. Of each kind some are part of every run;
the others come to it where `VIGINTD_EVERY_POINT` is set (`make campaign-kill-points`).
"""

from __future__ import annotations

import asyncio
import os
import signal
from uuid import uuid4

import pytest
import pytest_asyncio

from tests.daemon.faulty import FPS, pictures
from tests.daemon.killing import Kill, KillAtExpiry, KillAtFirstStart, KillAtRetry, KillAtStart, KillWhileItGrows, Lane
from vigintd.demo.rtsp import RtspCamera
from vigintd.failpoints import POINTS

pytestmark = pytest.mark.asyncio(loop_scope="module")


def retry(box):
    return box.control.retry(None)


def lose_the_journal(state_dir):
    for path in state_dir.glob("journal.sqlite3*"):
        path.unlink()


def leave_an_orphan(state_dir):
    """What a box that died long ago, and knew nothing of sidecars, may have left."""
    orphan = str(uuid4())
    for suffix in (".jpg", ".0.json"):
        (state_dir / "spool" / f"{orphan}{suffix}").write_bytes(b"{}")


ERROR, REFUSED, NO_HOST = "mail.send.before=error", "mail.send.before=refuse", "upload.create.before=refuse"

ALWAYS = [
    Kill("journal.open_incident.before"),
    Kill("journal.open_incident.after"),
    Kill("journal.record_incident.before", passage=2),
    Kill("journal.record_playable.after"),
    Kill("journal.settle.before"),
    Kill("journal.settle.after", passage=2),
    Kill("journal.bury.after", way=REFUSED, then=retry),
    Kill("journal.bury.before", way=NO_HOST),
    Kill("spool.create.after"),
    Kill("spool.append.before"),
    Kill("spool.append.written"),
    KillWhileItGrows("spool.append.after", passage=2),
    Kill("spool.seal.before"),
    Kill("spool.seal.after"),
    Kill("spool.rename.before"),
    Kill("spool.rename.before", passage=3),
    Kill("memory.write.after"),
    Kill("upload.append.before"),
    Kill("upload.append.sending"),
    Kill("upload.append.after"),
    Kill("upload.seal.after"),
    Kill("upload.update.before"),
    Kill("mail.send.before"),
    Kill("mail.data.after"),
    Kill("linkhost.create.after"),
    Kill("linkhost.append.after"),
    Kill("linkhost.commit.after"),
    Kill("linkhost.put_metadata.after"),
    KillAtFirstStart("linkhost.make_key.before"),
    KillAtStart("recovery.survey.before"),
    KillAtStart("recovery.salvage.after"),
    KillAtStart("journal.record_incident.before"),
    KillAtStart("journal.adopt.after", damage=lose_the_journal),
    KillAtStart("spool.seal.before"),
    KillAtExpiry("linkhost.remove.after"),
    KillAtExpiry("spool.remove.after"),
]
ALSO = [
    KillAtStart("journal.take_over.after"),
    Kill("linkhost.seal.before"),
    Kill("linkhost.commit.before"),
    Kill("linkhost.add_part.before"),
    Kill("mail.data.before"),
    Kill("mail.link.after"),
    Kill("upload.seal.before"),
    Kill("upload.create.after"),
    Kill("snapshot.keep.before"),
    Kill("spool.rename.after", passage=2),
    KillAtRetry("journal.revive.after", then=retry),
    Kill("journal.hasten.before"),
    Kill("journal.record_incident.after"),
    Kill("journal.record_incident.before"),
    Kill("journal.record_incident.after", passage=2),
    Kill("journal.record_playable.before"),
    Kill("journal.hasten.after"),
    Kill("journal.settle.after"),
    Kill("journal.settle.before", passage=2),
    Kill("journal.postpone.before", way=ERROR, then=retry),
    Kill("journal.postpone.after", way=ERROR, then=retry),
    Kill("journal.bury.before", way=REFUSED, then=retry),
    KillAtRetry("journal.revive.before", then=retry),
    Kill("spool.create.before"),
    Kill("spool.append.after"),
    Kill("spool.rename.after"),
    Kill("spool.rename.before", passage=2),
    Kill("spool.rename.after", passage=3),
    Kill("snapshot.keep.after"),
    Kill("memory.write.before"),
    Kill("upload.create.before"),
    KillWhileItGrows("upload.append.before", passage=2),
    Kill("upload.update.after"),
    Kill("mail.send.after"),
    Kill("mail.link.before"),
    Kill("linkhost.create.before"),
    Kill("linkhost.add_part.after"),
    Kill("linkhost.append.before"),
    KillWhileItGrows("linkhost.commit.before", passage=2),
    KillWhileItGrows("linkhost.commit.after", passage=2),
    Kill("linkhost.seal.after"),
    Kill("linkhost.put_metadata.before"),
    KillAtFirstStart("linkhost.make_key.after"),
    KillAtStart("linkhost.change.before"),
    KillAtStart("linkhost.change.after"),
    KillAtStart("recovery.survey.after"),
    KillAtStart("recovery.salvage.before"),
    KillAtStart("journal.take_over.before"),
    KillAtStart("journal.record_incident.after"),
    KillAtStart("journal.adopt.before", damage=lose_the_journal),
    KillAtStart("spool.seal.after"),
    KillAtStart("spool.remove.before", damage=leave_an_orphan),
    KillAtExpiry("linkhost.remove.before"),
    KillAtExpiry("linkhost.bury.before"),
    KillAtExpiry("linkhost.bury.after"),
    KillAtExpiry("spool.remove.before"),
]
KILLS = {kill.name: kill for kill in (*ALWAYS, *(ALSO if os.environ.get("VIGINTD_EVERY_POINT") else ()))}
LANES = 3


def lanes_of(kills):
    """Boxes that go side by side: one that records for long, one whose clock is set, and the others."""
    long = [kill for kill in kills if isinstance(kill, KillAtStart | KillWhileItGrows)]
    expiring = [kill for kill in kills if isinstance(kill, KillAtExpiry)]
    short = [kill for kill in kills if kill not in (*long, *expiring)]
    lanes = [*(Lane(short[number::LANES]) for number in range(LANES)), Lane(long, post_roll_s=20), Lane(expiring)]
    return [lane for lane in lanes if lane.kills]


def _asks(item, path):
    return item.path == path and hasattr(item, "callspec")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def lanes(log_folder, request):
    """Every story that is asked for, under way."""
    asked_for = [item.callspec.params["name"] for item in request.session.items if _asks(item, request.path)]
    camera = RtspCamera(await asyncio.to_thread(pictures), fps=FPS)
    url = await camera.start()
    lanes = lanes_of([kill for name, kill in KILLS.items() if name in asked_for])
    tasks = [asyncio.create_task(lane.run(log_folder, url)) for lane in lanes]
    yield lanes
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await camera.stop()


@pytest_asyncio.fixture(loop_scope="module")
async def outcome(lanes, name):
    return await next(lane.outcomes[name] for lane in lanes if name in lane.outcomes)


each = pytest.mark.parametrize("name", KILLS)


@each
async def test_it_died_there(outcome):
    assert outcome.code == -signal.SIGKILL


@each
async def test_what_was_acknowledged_is_there_and_nothing_is_owed_any_more(outcome, name):
    ids = [incident["id"] for incident in outcome.incidents]
    assert len(ids) <= 1
    assert outcome.promised is None or [outcome.promised] == ids
    for incident in outcome.incidents:
        assert incident["state"] == "closed"
        assert {effect["kind"]: effect["state"] for effect in incident["effects"]}["alert"] == "done"


@each
async def test_the_link_shows_what_was_sealed_or_the_mail_says_that_nothing_was_recorded(outcome):
    """Or that its time has passed."""
    for incident in outcome.incidents:
        assert outcome.letters
        if incident["parts"]:
            assert outcome.shown
            assert incident["no_video"] is None
        else:
            assert incident["no_video"] == "unrecorded"
            assert not any(letter.link for letter in outcome.letters)
    assert all((shown == sealed) is not outcome.is_expired for shown, sealed in outcome.shown)


@each
async def test_at_most_one_mail_came_twice_and_was_then_the_same_message(outcome):
    assert len(outcome.letters) <= 2
    assert len({letter.message["Message-ID"] for letter in outcome.letters}) == len(outcome.incidents)


async def test_every_file_belongs_to_an_incident_and_holds_what_was_sealed(lanes):
    assert [await lane.faults for lane in lanes] == [[]] * len(lanes)


async def test_every_point_there_is_was_struck():
    assert {kill.point for kill in (*ALWAYS, *ALSO)} == POINTS
