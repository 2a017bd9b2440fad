"""What of the control socket is about links: strict about what it is asked, and plain where there is no link host."""

from __future__ import annotations

import json

import aiohttp
import pytest

from tests.control.test_control import Daemon
from tests.manual_clock import ManualClock
from vigintd.control.link_client import LinkClient
from vigintd.control.server import ControlServer
from vigintd.daemon.link_answers import LinkAnswers
from vigintd.errors import ControlError
from vigintd.journal import Journal


@pytest.fixture
async def path(short_path, tmp_path):
    """The control socket of a daemon that publishes on another host."""
    path = short_path / "control.sock"
    clock = ManualClock()
    async with Journal.open(tmp_path / "journal.sqlite3", clock) as journal:
        server = ControlServer(path, Daemon(), LinkAnswers(None, journal))
        await server.start()
        yield path
        await server.aclose()


@pytest.mark.parametrize(
    ("method", "place", "body", "problem"),
    [
        ("GET", "/links?limit=0", None, "limit is a number from 1 to 200"),
        ("GET", "/links?limit=201", None, "limit is a number from 1 to 200"),
        ("GET", "/links?gone=yes", None, "gone is 0 or 1"),
        ("GET", "/audit?after=-1", None, "after is a number from 0 to"),
        ("GET", "/audit?after=9999999999999999", None, "after is a number from 0 to"),
        ("POST", "/links/x/revoke", {}, "recipient is a text that is not empty"),
        ("POST", "/links/x/revoke", {"recipient": ""}, "recipient is a text that is not empty"),
        ("POST", "/links/x/revoke", {"recipients": None}, "the body names a recipient, or null for all"),
        ("POST", "/links/x/extend", {"hours": True}, "hours is a number above 0"),
        ("POST", "/links/x/extend", {"hours": "1"}, "hours is a number above 0"),
        ("POST", "/links/x/extend", {"hours": 0}, "hours is a number above 0"),
        ("POST", "/links/x/hold", {}, "reason is a text that is not empty"),
        ("POST", "/links/x/release", {"now": True}, "the body is an empty object"),
        ("POST", "/links/x/link", [], "the body names a recipient"),
        ("POST", "/links/x/grant", None, "the request is not JSON"),
        ("POST", "/keys", {"name": 5}, "name is a text that is not empty"),
        ("POST", "/keys", {"name": "a", "quota_mb": -1}, "quota_mb is a number above 0"),
        ("POST", "/keys/a/remove", {"key": 5}, "key is a text that is not empty"),
    ],
)
async def test_a_question_that_makes_no_sense_is_refused(path, method, place, body, problem):
    """With what was wanted; nobody revokes all links by leaving a name out."""
    connector = aiohttp.UnixConnector(str(path))
    async with (
        aiohttp.ClientSession("http://vigintd", connector=connector) as session,
        session.request(method, place, data=None if body is None else json.dumps(body)) as answer,
    ):
        assert answer.status == 400
        assert problem in (await answer.json())["error"]


async def test_a_daemon_that_publishes_elsewhere_says_so(path):
    """Its clips, links and keys are that host's."""
    client = LinkClient(path)
    for asked in (client.links(1, gone=False), client.links_of("x"), client.heads(), client.keys(), client.revoke("x", None)):
        with pytest.raises(ControlError, match="publishes on another host"):
            await asked
