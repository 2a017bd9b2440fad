"""A picture that stands still: the camera sends on, and shows nothing that happens."""

import json

import pytest

from tests.camera.scene import Fed, Scene, no_redirect, running, until
from tests.camera.streams import packets_of, settings
from tests.manual_clock import ManualClock
from vigintd.camera.stillness import Stillness
from vigintd.retry import Backoff

URL = "rtsp://10.0.0.11/x"


@pytest.fixture
def pictures(annex_b):
    """Key frames that differ."""
    return [packet for packet in packets_of(annex_b) if packet.is_key]


class Show:
    """A camera that shows a picture every ten seconds."""

    def __init__(self, url: str | list[str] = URL, *, frozen_after_s: float = 60, wait_s: float = 8) -> None:
        self.clock = ManualClock()
        self.fed = Fed()
        self.scene = Scene(
            settings(url, stall_timeout_s=600, frozen_after_s=frozen_after_s),
            open_stream=self.fed,
            clock=self.clock,
            backoff=Backoff(wait_s, 64),
            is_redirected=no_redirect,
        )

    @property
    def state(self) -> tuple[str, str]:
        return self.scene.camera.status.state, self.scene.camera.status.reason

    async def show(self, picture, times: int = 1) -> set[tuple[str, str]]:
        """Show it, and answer what the camera was meanwhile."""
        states = set()
        for _ in range(times):
            await self.fed.show(picture)
            states.add(self.state)
            await self.clock.advance(10)
        return states

    async def opened(self, count: int) -> None:
        await until(lambda: len(self.fed.opened_s) >= count)


async def test_one_same_picture_for_too_long_is_no_life(pictures, log):
    """The camera is lost, its stream is opened anew, and that is said once."""
    show = Show()
    async with running(show.scene):
        await show.opened(1)
        assert await show.show(pictures[0], 6) == {("live", "")}
        await show.fed.show(pictures[0])
        assert show.state == ("lost", "frozen")
        await show.opened(2)
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    assert [line["event"] for line in lines if "reason" in line] == ["camera.lost"]


async def test_connecting_again_is_no_sign_of_life(pictures, log):
    """With the same picture the camera stays lost, its stream is opened ever more seldom, and what comes is recorded."""
    show = Show()
    async with running(show.scene):
        await show.opened(1)
        await show.show(pictures[0], 7)
        packets = show.scene.camera.status.packets
        while len(show.fed.opened_s) < 6:
            assert await show.show(pictures[0]) == {("lost", "frozen")}
        assert show.scene.camera.status.packets > packets + 5
        assert show.scene.camera.status.reconnects == 0
    # Four waits of up to 8, 16, 32 and 64 seconds, each noticed at the next picture or the one after.
    assert 60 <= show.fed.opened_s[5] - show.fed.opened_s[1] <= 120 + 4 * 20
    assert log.getvalue().count('"camera.lost"') == 1
    assert log.getvalue().count('"camera.live"') == 1


async def test_another_picture_makes_it_live_in_the_same_connection(pictures):
    """Once a key frame is looked at again; and it is counted as a return."""
    show = Show(wait_s=16)
    async with running(show.scene):
        await show.opened(1)
        await show.show(pictures[0], 6)
        await show.fed.show(pictures[0])
        await show.opened(2)
        await show.fed.show(pictures[0])
        assert show.state == ("lost", "frozen")
        await show.clock.advance(6)
        await show.fed.show(pictures[1])
        assert show.state == ("live", "")
        assert show.scene.camera.status.reconnects == 1
        assert await show.show(pictures[1], 6) == {("live", "")}
        assert len(show.fed.opened_s) == 2


@pytest.mark.parametrize(("url", "frozen_after_s"), [(URL, 0), ("file:///a.mp4", 60)], ids=["never asked for", "a file loops"])
async def test_some_may_show_the_same_for_ever(pictures, url, frozen_after_s):
    show = Show(url, frozen_after_s=frozen_after_s)
    async with running(show.scene):
        await show.opened(1)
        assert await show.show(pictures[0], 30) == {("live", "")}


async def test_of_several_urls_the_next_is_tried_and_judged_by_its_own_pictures(pictures):
    """A second stream of the camera may still be alive, and looks the same only by chance."""
    show = Show([URL, "rtsp://10.0.0.12/x"])
    async with running(show.scene):
        await show.opened(1)
        await show.show(pictures[0], 7)
        # The first again, in vain, and then the second.
        await show.opened(2)
        while show.scene.camera.status.url == URL:
            await show.show(pictures[0])
        await show.opened(3)
        assert await show.show(pictures[0], 5) == {("live", "")}
        # The switch may have cost one picture or none.
        assert ("lost", "frozen") in await show.show(pictures[0], 2)


class TestStillness:
    def test_the_time_away_does_not_count(self):
        """A camera that was off for an hour has not shown anything for an hour."""
        still = Stillness(60)
        assert not still.see(1, 0)
        still.begin()
        assert not still.see(1, 3600)
        assert not still.see(1, 3659)
        assert still.see(1, 3660)

    def test_frozen_it_stays_until_another_picture_comes(self):
        """Over as many lives as it takes."""
        still = Stillness(60)
        still.see(1, 0)
        assert still.see(1, 60)
        for _ in range(3):
            still.begin()
            assert not still.is_frozen
            assert still.see(1, 61)
        assert not still.see(2, 62)
        assert not still.see(1, 63)
        still.begin()
        assert not still.see(1, 100)
