"""What was given up and is retried by hand goes its whole way again."""

from __future__ import annotations

import asyncio

from tests.incident.test_publisher import at_work, id_of, yard
from vigintd.errors import HostRefused
from vigintd.model import AlertKind, IncidentState, NoVideo


async def test_a_clip_that_a_host_refused_is_published_on_demand_and_its_link_follows(tmp_path):
    """The key was wrong, and somebody has put it right."""
    async with yard(tmp_path) as it:
        it.host.open = asyncio.Semaphore(10)
        sha256 = await it.leave(1, alerted=False, text_after_s=86_400)
        it.host.trouble = HostRefused("401 wrong key")
        async with at_work(it):
            await it.until(1, lambda row: row.incident.state is IncidentState.CLOSED)
            assert it.host.fired
            it.host.trouble = None
            assert [effect.kind for effect in await it.courier.retry(id_of(1))] == ["publish"]
            it.publisher.look()
            await it.until(1, lambda row: row.incident.state is IncidentState.CLOSED)
        told = [(letter.recipient, letter.kind, letter.no_video) for letter in it.channel.delivered]
        assert told == [("a@exemple.fr", AlertKind.TEXT, NoVideo.REFUSED), ("a@exemple.fr", AlertKind.FOLLOW_UP, None)]
        assert it.host.sealed == {id_of(1): [sha256]}
        assert await it.courier.retry(None) == []
