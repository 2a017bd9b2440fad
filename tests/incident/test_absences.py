"""A clip says when its camera was away, and only then."""

from __future__ import annotations

from dataclasses import replace

import pytest

from vigintd.incident.absences import Absences
from vigintd.model import Packet, StreamParameters

PARAMETERS = StreamParameters("h264", 320, 240, b"")


def stream(arrivals: list[float], *, dts_s: list[float] | None = None) -> list[Packet]:
    """Packets that arrive then, with these decode times (those of their arrival where none are given)."""
    times = arrivals if dts_s is None else dts_s
    return [
        Packet(b"", round(90_000 * time), round(90_000 * time), 0, is_key=True, arrived_s=arrival, parameters=PARAMETERS)
        for arrival, time in zip(arrivals, times, strict=True)
    ]


def steady(start_s: float, count: int, step_s: float = 0.04) -> list[float]:
    return [start_s + number * step_s for number in range(count)]


def said(packets: list[Packet]) -> str:
    absences = Absences()
    absences.look(packets)
    return absences.text


def test_a_steady_stream_says_nothing():
    assert said(stream(steady(5, 500))) == ""


def test_an_outage_is_told_with_its_time_and_length():
    assert said(stream([*steady(5, 101), *steady(11, 100)])) == "the camera was away for 2.0 s at 4 s"


def test_packets_that_were_held_up_on_the_way_are_no_outage():
    """They come in a burst, and the camera's clock says that nothing is missing."""
    assert said(stream([*steady(5, 100), *steady(12, 100, 0.001)], dts_s=steady(5, 200))) == ""


@pytest.mark.parametrize("restart_s", [0.0, 1000.0])
def test_a_camera_that_begins_its_clock_anew_was_away(restart_s):
    packets = stream([*steady(5, 100), *steady(12, 100)], dts_s=[*steady(5, 100), *steady(restart_s, 100)])
    assert said(packets) == "the camera was away for 3.0 s at 4 s"


@pytest.mark.parametrize("step_s", [0.9, 1, 4, 10])
def test_a_camera_of_few_pictures_is_there_all_the_time(step_s):
    absences = Absences()
    absences.look(stream(steady(5, 20, step_s)))
    assert absences.text == ""
    assert absences.at_end(5 + 20 * step_s) == ""


def test_a_camera_that_shows_few_pictures_at_night_is_soon_understood():
    """From 25 a second to one in two seconds: only the first few steps pass for outages."""
    text = said(stream([*steady(5, 500), *steady(30, 100, 2.0)]))
    assert text.endswith("and once more")


def test_a_long_outage_hides_no_other_after_it():
    assert said(stream([*steady(5, 101), *steady(60, 50), *steady(64, 50)])).endswith("51.0 s at 4 s, 2.0 s at 57 s")


@pytest.mark.parametrize(("end_s", "is_told"), [(11.9, False), (12.1, True)])
def test_a_camera_that_did_not_come_back_is_told(end_s, is_told):
    absences = Absences()
    absences.look(stream(steady(5, 101)))
    assert bool(absences.at_end(end_s)) is is_told


def test_of_many_outages_some_are_told_and_the_rest_counted():
    packets = stream([time for start in range(0, 60, 6) for time in steady(start, 50)])
    assert said(packets).count(" at ") == 3
    assert said(packets).endswith("and 6 times more")


def test_batches_make_no_difference():
    packets = stream([*steady(5, 101), *steady(11, 100)])
    absences = Absences()
    for packet in packets:
        absences.look([replace(packet)])
    assert absences.text == said(packets)
