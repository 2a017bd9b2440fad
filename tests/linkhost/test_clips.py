"""What an uploader may ask about its own clips, and of nobody else's."""

from __future__ import annotations

import json

import pytest

from tests.linkhost.client import CLIP, GUARD, OTHER_CLIP, OTHER_KEY, Client, inside, path_of, rows
from tests.linkhost.videos import video
from vigintd.linkhost import AuditKind

PLACES = [("GET", "links"), ("POST", "links"), ("POST", "links/extend"), ("POST", "links/revoke"), ("GET", "audit")]


async def tell(client: Client, place: str, value: object, clip: str = CLIP):
    return await client.api("POST", f"/clips/{clip}/{place}", data=json.dumps(value))


@pytest.mark.parametrize(("method", "place"), PLACES)
async def test_a_clip_of_another_key_is_none(client, session, method, place):
    """The same 404 as for one that there is not; without a key, 401."""
    await client.create()
    other = Client(session, client.base, OTHER_KEY)
    for asked, clip in ((other, CLIP), (client, OTHER_CLIP)):
        answer = await asked.api(method, f"/clips/{clip}/{place}", data=b'{"recipient": null, "hours": 1}')
        assert (answer.status, answer.json) == (404, {"error": "no such clip"})
    assert (await client.ask(method, f"/api/v1/clips/{CLIP}/{place}")).status == 401


async def test_who_came_is_told_without_a_token(client, host):
    link = await client.publish(video(2))
    await client.ask("GET", inside(link, "part/0.mp4"))
    await rows(host, AuditKind.PLAY, 1)
    shown = (await client.api("GET", f"/clips/{CLIP}/links")).json
    assert [recipient["played"] for recipient in shown["recipients"]] == [True]
    assert [visit["kind"] for visit in shown["visits"]] == ["play"]
    record = await client.api("GET", f"/clips/{CLIP}/audit?after=1")
    assert [row["kind"] for row in record.json["rows"]] == ["link", "upload", "play"]
    assert link.partition("token=")[2] not in str(shown) + record.text


async def test_links_are_granted_extended_and_revoked(client, host):
    """Each is written down with where it came from; the operator's word stands above it."""
    await client.publish(video(2))
    link = path_of((await tell(client, "links", {"recipient": "police@exemple.fr"})).json["link"])
    assert (await client.ask("GET", link)).status == 200
    assert (await tell(client, "links/extend", {"hours": 2})).json["expires_at"] == "2026-03-16T11:26:53+00:00"
    revoked = (await tell(client, "links/revoke", {"recipient": "police@exemple.fr"})).json["revoked"]
    assert revoked == ["police@exemple.fr"]
    assert (await client.ask("GET", link)).status == 404
    assert (await tell(client, "links", {"recipient": "police@exemple.fr"})).status == 409
    assert (await tell(client, "links/revoke", {"recipient": None})).json["revoked"] == [GUARD]
    changed = [row for row in await host.audit(CLIP) if row.kind in (AuditKind.EXTENDED, AuditKind.REVOKED)]
    assert {(row.address, row.client) for row in changed} == {("127.0.0.0/24", "Python")}


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("links", {}),
        ("links", {"recipient": None}),
        ("links", {"recipient": ""}),
        ("links/extend", {}),
        ("links/extend", {"hours": "2"}),
        ("links/extend", {"hours": True}),
        ("links/extend", {"hours": -1}),
        ("links/revoke", {}),
        ("links/revoke", {"recipient": 5}),
    ],
)
async def test_what_makes_no_sense_changes_nothing(client, host, place, value):
    await client.create()
    assert (await tell(client, place, value)).status == 400
    assert [row.kind for row in await host.audit(CLIP)] == [AuditKind.UPLOAD, AuditKind.LINK]


async def test_an_uploader_reads_what_has_happened_since_it_asked_last(client, host, session):
    """The lines of its own clips, by their places; nothing new is an empty list."""
    other = Client(session, client.base, OTHER_KEY)
    await client.create()
    await other.create(OTHER_CLIP)
    first = (await client.api("GET", "/events")).json["rows"]
    assert [(row["seq"], row["clip"]) for row in first] == [(1, CLIP), (2, CLIP)]
    assert [row["seq"] for row in (await other.api("GET", "/events")).json["rows"]] == [3, 4]
    assert (await client.api("GET", "/events?after=2")).json["rows"] == []
    link = path_of((await client.create()).json["links"][GUARD])
    await client.ask("GET", link)
    (row,) = (await client.api("GET", "/events?after=2")).json["rows"]
    assert (row["seq"], row["kind"], row["recipient"]) == (5, "probe", GUARD)
    for after in ("x", "-1", "1" * 16):
        assert (await client.api("GET", f"/events?after={after}")).status == 400
    assert (await client.ask("GET", "/api/v1/events")).status == 401
