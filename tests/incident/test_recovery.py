"""Starting is recovering: what was being recorded is sealed as far as it came, and goes its way."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import replace

from tests.clip.pictures import FPS, coded
from tests.incident.test_publisher import AUDIENCE, Yard, at_work, id_of, yard
from vigintd.clip.recorder import ClipRecorder
from vigintd.incident import Recovery
from vigintd.incident.recovery import MOST_TAKEOVERS
from vigintd.journal import EffectKind
from vigintd.model import IncidentState, NoVideo


def recovery(it: Yard) -> Recovery:
    return Recovery(
        journal=it.journal, spool=it.spool, courier=it.courier, publisher=it.publisher, audience=AUDIENCE, clock=it.clock
    )


@asynccontextmanager
async def left_behind(tmp_path, *, recorded: bool):
    """An incident whose daemon died while it recorded, its alert not sent yet."""
    async with yard(tmp_path) as it:
        incident = await it.open(1, alerted=False)
        if recorded:
            recorder = ClipRecorder(it.spool, incident.id, on_part=lambda _part: None)
            await recorder.write(coded(3 * FPS))
            await recorder.aclose()
            await it.journal.record_incident(replace(incident, state=IncidentState.RECORDING, pre_roll_s=1.0))
        yield it


async def test_a_cut_clip_is_sealed_published_and_told(tmp_path):
    """It says that it was cut, and the alert has its link."""
    async with left_behind(tmp_path, recorded=True) as it:
        await recovery(it).run_once()
        row = await it.row(1)
        assert row.incident.state is IncidentState.SEALED
        (part,) = row.incident.parts
        assert "stopped while it recorded" in part.partial
        assert row.incident.ended_at is not None
        assert (row.incident.ended_at - row.incident.detection.at).total_seconds() == part.duration_s - 1
        it.host.open.release()
        async with at_work(it):
            await it.channel.until(lambda: it.channel.delivered)
            assert it.channel.delivered[0].link
            await it.until(1, lambda row: row.incident.state is IncidentState.CLOSED)
        assert it.host.sealed == {id_of(1): [part.sha256]}


async def test_an_incident_of_which_nothing_was_recorded_is_told_at_once_and_says_so(tmp_path):
    async with left_behind(tmp_path, recorded=False) as it:
        await recovery(it).run_once()
        it.host.open.release()
        async with at_work(it):
            await it.channel.until(lambda: it.channel.delivered)
            await it.until(1, lambda row: row.incident.state is IncidentState.CLOSED)
        assert it.channel.delivered[0].no_video is NoVideo.UNRECORDED
        assert "stopped while it recorded" in (await it.row(1)).incident.problem


async def test_what_was_sealed_already_is_left_to_the_publisher(tmp_path):
    """A daemon may be stopped many times while a host is away."""
    async with yard(tmp_path) as it:
        await it.leave(1)
        before = await it.row(1)
        for _ in range(MOST_TAKEOVERS + 2):
            await recovery(it).run_once()
        assert await it.row(1) == before


async def test_an_incident_that_kills_every_start_is_set_aside_and_told(tmp_path):
    """It holds up no other, its text alert goes, and its files stay for whoever looks into it."""
    async with left_behind(tmp_path, recorded=True) as it:
        await it.open(2, alerted=False)
        for _ in range(MOST_TAKEOVERS):
            await it.journal.take_over(id_of(1))
        await recovery(it).run_once()
        poison, other = await it.row(1), await it.row(2)
        assert poison.incident.no_video is NoVideo.UNRECORDED
        assert "set aside" in poison.incident.problem
        assert it.spool.part_path(id_of(1), 0).exists()
        assert other.incident.state is IncidentState.SEALED
        due = await it.journal.due(EffectKind.ALERT)
        assert {effect.incident_id for effect in due} == {id_of(1), id_of(2)}


async def test_an_incident_that_cannot_be_taken_up_holds_up_no_other(tmp_path, monkeypatch):
    """A bad sector under one clip is that clip's alone."""
    async with left_behind(tmp_path, recorded=True) as it:
        await it.open(2, alerted=False)
        salvage, failed = it.spool.salvage, []

        async def failing(incident_id: str, partial: str):
            if incident_id == id_of(1):
                failed.append(incident_id)
                raise OSError(5, "Input/output error")
            return await salvage(incident_id, partial)

        monkeypatch.setattr(it.spool, "salvage", failing)
        await recovery(it).run_once()
        assert failed == [id_of(1)]
        assert (await it.row(1)).incident.state is IncidentState.RECORDING
        assert (await it.row(2)).incident.state is IncidentState.SEALED


async def test_a_row_whose_id_was_written_over_keeps_no_daemon_from_starting(tmp_path):
    """It names no file that could be; the others are taken up."""
    async with left_behind(tmp_path, recorded=True) as it:
        incident = (await it.row(1)).incident
        await it.journal.open_incident(replace(incident, id="\ufffd" * 36), [])
        await recovery(it).run_once()
        assert (await it.row(1)).incident.state is IncidentState.SEALED


async def test_of_a_clip_that_was_not_encoded_yet_what_the_camera_sent_is_encoded(tmp_path):
    """HEVC that a dead daemon had only spooled becomes the clip, and says that it was cut."""
    async with yard(tmp_path) as it:
        incident = await it.open(1)
        recorder = ClipRecorder(it.spool, incident.id, on_part=lambda _part: None)
        await recorder.write(coded(FPS, encoder="libx265"))
        await recorder.aclose()
        for part in it.spool.root.glob("*.?.mp4"):
            part.unlink()
        taking_up = recovery(it)
        await taking_up.run_once()
        assert (await it.row(1)).incident.state is IncidentState.TRIGGERED
        await taking_up.encode_left()
        row = await it.row(1)
        assert row.incident.state is IncidentState.SEALED
        (part,) = row.incident.parts
        assert part.duration_s > 0
        assert "stopped while it recorded" in part.partial
