"""The campaigns in small: the same parts and the same counts, in seconds, and no figure of speed."""

from __future__ import annotations

import json

import pytest

from tests.campaigns import kill, many_cameras, reconnects, results, uploads
from tests.campaigns.flapping import BREAKS
from tests.campaigns.process import quantile


async def test_streams_that_break_again_and_again_leave_no_thread_and_no_descriptor_behind():
    figures = await reconnects.measured(cameras=3, reconnects=15)
    assert figures.reconnects >= 15
    assert all(figures.broken[way] >= 1 for way in BREAKS), figures.broken
    # One is told of a silent camera, the others of one that went away.
    assert figures.reasons["stalled"] >= 1
    assert sum(figures.reasons.values()) >= 15
    # Fewer, where something of another test has ended meanwhile.
    assert max(figures.left) <= 0
    assert figures.readers_abandoned == 0


async def test_of_several_cameras_recorded_and_watched_no_packet_is_lost():
    figures = await many_cameras.measured(4, seconds=1.5, mode="sub", small=True)
    assert (figures.lost, figures.dropped, figures.reconnects) == (0, {}, 0)
    assert figures.received == figures.sent >= 4 * 25
    assert figures.pictures > 0
    assert figures.rings_mb > 0


async def test_of_an_upload_that_many_watch_the_host_holds_little():
    figures = await uploads.measured(8, request_mb=2, seeks=2)
    assert figures.size_mb >= 8
    # Five follow it from its first byte, and five seek about.
    assert figures.sent_mb >= 5 * figures.size_mb
    assert figures.seek_p99_s > 0
    assert 0 < figures.grown_mb < 50


async def test_daemons_that_are_killed_again_and_again_lose_nothing():
    figures = await kill.measured(6, boxes=2, cameras=2)
    assert figures.kills == 6
    assert figures.acknowledged >= 1
    assert (figures.lost, figures.wrong_clips, figures.faults) == ([], [], [])
    assert figures.mails >= figures.incidents >= figures.acknowledged
    assert figures.duplicates <= figures.kills


def test_a_result_says_where_and_how_it_was_measured(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    results.tell("flight", "A flight", [("height", "3 m", "≥ 2 m")], {"height_m": 3}, command="make flight", write=True)
    told = json.loads((tmp_path / "flight.json").read_text(encoding="utf-8"))
    assert (told["command"], told["figures"]) == ("make flight", {"height_m": 3})
    assert {"date", "processor", "cores", "python", "ffmpeg", "vigintd"} <= set(told["machine"])
    page = (tmp_path / "flight.md").read_text(encoding="utf-8")
    assert "| height | 3 m | ≥ 2 m |" in page
    assert told["machine"]["date"] in page
    assert "A flight" in capsys.readouterr().out


def test_a_result_is_written_only_when_that_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "FOLDER", tmp_path / "bench")
    results.tell("flight", "A flight", [], {}, command="make flight", write=False)
    assert not (tmp_path / "bench").exists()


@pytest.mark.parametrize(("share", "value"), [(0.0, 1), (0.5, 3), (0.99, 5), (1.0, 5)])
def test_a_quantile_is_one_of_the_values(share, value):
    assert quantile([5.0, 1.0, 4.0, 2.0, 3.0], share) == value
