"""Starting is recovering: what was being recorded is sealed as far as it came, and goes its way."""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager
from dataclasses import replace
from random import Random

import pytest

from tests.clip.pictures import FPS, Played, coded, later
from tests.incident.test_publisher import AUDIENCE, Yard, at_work, id_of, yard
from vigintd.clip.recorder import ClipRecorder
from vigintd.errors import JournalUnavailable
from vigintd.incident import Recovery
from vigintd.incident.recovery import MOST_TAKEOVERS
from vigintd.journal import EffectKind
from vigintd.model import MEDIA_CLOCK_HZ, IncidentState, NoVideo
from vigintd.spool import SourceFile
from vigintd.spool.stored import scan


def recovery(it: Yard) -> Recovery:
    return Recovery(
        journal=it.journal,
        spool=it.spool,
        courier=it.courier,
        publisher=it.publisher,
        audience=AUDIENCE,
        clock=it.clock,
        random=Random(1),
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


async def _stays(_source: SourceFile) -> None:
    """As it would be when the daemon died before."""


@asynccontextmanager
async def encoding_left(tmp_path, *, encoded_s: float, before: str = "", encoder: str = "libx265", alerted: bool = True):
    """An incident of four seconds that must be encoded, whose daemon died when `encoded_s` of them were.

    With `before`, two seconds of that encoder came first, and are whole.
    """
    async with yard(tmp_path) as it:
        incident = await it.open(1, alerted=alerted)
        recorder = ClipRecorder(it.spool, incident.id, on_part=lambda _part: None)
        if before:
            await recorder.write(coded(2 * FPS, encoder=before))
        await recorder.write(later(coded(4 * FPS, encoder=encoder), arrival_s=2, ticks=2 * MEDIA_CLOCK_HZ))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(SourceFile, "drop", _stays)
            *_, last = await recorder.seal()
        await recorder.aclose()
        part = it.spool.part_path(incident.id, last.index)
        part.with_suffix(".json").unlink()
        whole = [each for each in scan(part) if each.start_90k + each.duration_90k <= encoded_s * MEDIA_CLOCK_HZ]
        os.truncate(part, whole[-1].offset_bytes + whole[-1].length_bytes)
        await it.journal.record_incident(replace(incident, state=IncidentState.RECORDING, pre_roll_s=1.0))
        yield it


async def test_of_a_clip_that_was_not_encoded_yet_what_the_camera_sent_is_encoded(tmp_path):
    """HEVC that a dead daemon had only spooled becomes the clip, and says that it was cut."""
    async with encoding_left(tmp_path, encoded_s=0) as it:
        taking_up = recovery(it)
        await taking_up.run_once()
        assert (await it.row(1)).incident.state is IncidentState.RECORDING
        await taking_up.encode_left()
        row = await it.row(1)
        assert row.incident.state is IncidentState.SEALED
        (part,) = row.incident.parts
        assert part.duration_s == 4
        assert "stopped while it recorded" in part.partial


async def test_what_a_death_left_unencoded_is_encoded_behind_the_parts_that_are_there(tmp_path):
    """From the key frame before their end on, so that nothing is missing."""
    async with encoding_left(tmp_path, encoded_s=1.52) as it:
        taking_up = recovery(it)
        await taking_up.run_once()
        await taking_up.encode_left()
        first, second = (await it.row(1)).incident.parts
        assert (first.index, first.duration_s, second.index, second.duration_s) == (0, 1.52, 1, 3)
        assert "stopped while it recorded" in second.partial
        played = Played(it.spool.part_path(id_of(1), second.index))
        played.assert_plays()
        assert len(played.frames) == 3 * FPS


@pytest.mark.parametrize(("before", "encoder"), [("libx264", "libx265"), ("mjpeg", "libx265"), ("libx265", "libx264")])
async def test_a_death_in_a_clip_of_several_codecs_leaves_no_gap_either(tmp_path, before, encoder):
    """Parts that were recorded as they came count for no source, nor those of one source for another."""
    async with encoding_left(tmp_path, before=before, encoder=encoder, encoded_s=1.52) as it:
        taking_up = recovery(it)
        await taking_up.run_once()
        await taking_up.encode_left()
        parts = (await it.row(1)).incident.parts
        assert [(part.index, part.duration_s) for part in parts] == [(0, 2), (1, 1.52), (2, 3)]
        played = Played(it.spool.part_path(id_of(1), 2))
        played.assert_plays()
        assert len(played.frames) == 3 * FPS


async def test_what_is_left_to_encode_is_published_while_it_is_encoded_and_never_given_up(tmp_path):
    """The publisher takes the parts that are there, and waits for the others."""
    async with encoding_left(tmp_path, encoded_s=1.52, alerted=False) as it:
        taking_up = recovery(it)
        await taking_up.run_once()
        it.host.open.release()
        async with at_work(it):
            await it.channel.until(lambda: it.channel.delivered)
            assert it.channel.delivered[0].link
            await taking_up.encode_left()
            await it.until(1, lambda row: row.incident.state is IncidentState.CLOSED)
        assert it.host.sealed == {id_of(1): [part.sha256 for part in (await it.row(1)).incident.parts]}
        assert len(it.host.sealed[id_of(1)]) == 2


async def test_a_clip_that_was_encoded_to_its_end_is_sealed_at_once(tmp_path):
    async with encoding_left(tmp_path, encoded_s=3.52) as it:
        await recovery(it).run_once()
        row = await it.row(1)
        assert row.incident.state is IncidentState.SEALED
        assert [part.duration_s for part in row.incident.parts] == [3.52]


async def test_a_death_while_the_rest_is_encoded_is_taken_up_again(tmp_path, monkeypatch):
    async with encoding_left(tmp_path, encoded_s=0.52) as it:
        taking_up = recovery(it)
        await taking_up.run_once()
        new_part, begun = it.spool.new_part, asyncio.Event()

        async def noted(incident_id: str, index: int):
            part = await new_part(incident_id, index)
            begun.set()
            return part

        with monkeypatch.context() as patch:
            patch.setattr(it.spool, "new_part", noted)
            encoding = asyncio.create_task(taking_up.encode_left())
            await begun.wait()
        encoding.cancel()
        await asyncio.wait([encoding])
        assert (await it.row(1)).incident.state is IncidentState.RECORDING
        again = recovery(it)
        await again.run_once()
        await again.encode_left()
        row = await it.row(1)
        assert row.incident.state is IncidentState.SEALED
        assert sum(part.duration_s for part in row.incident.parts) >= 4


async def test_what_was_encoded_goes_even_when_every_start_dies_of_the_rest(tmp_path):
    async with encoding_left(tmp_path, encoded_s=1.52) as it:
        for _ in range(MOST_TAKEOVERS + 1):
            await recovery(it).run_once()
        row = await it.row(1)
        assert row.incident.state is IncidentState.SEALED
        assert "set aside" in row.incident.problem
        assert [part.duration_s for part in row.incident.parts] == [1.52]


async def test_a_journal_that_fails_when_the_rest_is_encoded_delays_it(tmp_path, monkeypatch):
    """And ends no daemon."""
    async with encoding_left(tmp_path, encoded_s=1.52) as it:
        taking_up = recovery(it)
        await taking_up.run_once()
        record, failed = it.journal.record_incident, list[object]()

        async def failing(incident):
            if not failed:
                failed.append(incident)
                raise JournalUnavailable("the disk is busy")
            await record(incident)

        monkeypatch.setattr(it.journal, "record_incident", failing)
        encoding = asyncio.create_task(taking_up.encode_left())
        await it.until(1, lambda row: row.incident.state is IncidentState.SEALED)
        await encoding
        assert failed
