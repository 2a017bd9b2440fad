"""API keys: several, named, changed without a gap; each brings clips and opens none."""

from __future__ import annotations

import re

import pytest

from tests.linkhost.client import BASE_URL, CLIP, GUARD, KEY, OTHER_CLIP, Client, inside, path_of
from tests.linkhost.videos import video
from vigintd.linkhost import AuditKind, LinkHost, Refusal


def with_key(client: Client, key: str) -> Client:
    return Client(client.session, client.base, key)


async def works(client: Client, key: str) -> bool:
    return (await with_key(client, key).api("OPTIONS", "/uploads")).status == 204


async def test_a_key_is_made_named_and_kept_by_its_hash(client, host, tmp_path, log_text):
    """It is told once; neither database nor log holds it, and the record says that it was made."""
    key = await host.keyring.add("nvr-2", None)
    assert re.fullmatch(r"vigintd_[A-Za-z0-9_-]{43}", key)
    assert await works(client, key)
    stored = b"".join(path.read_bytes() for path in (tmp_path / "linkhost").iterdir() if path.is_file())
    assert key.encode() not in stored
    assert key not in log_text()
    (row,) = [row for row in await host.record.page(0) if row.kind is AuditKind.KEY]
    (known,) = [known for known in await host.keyring.listed() if known["name"] == "nvr-2"]
    assert row.detail == {"what": "added", "name": "nvr-2", "key": known["key"]}
    assert not known["configured"]


async def test_a_key_is_changed_without_a_gap(client, host):
    """Two of a name are valid at once, and see the same clips; a third waits until one is removed."""
    old, new = await host.keyring.add("nvr-2", None), await host.keyring.add("nvr-2", None)
    assert (await with_key(client, old).create()).status == 201
    assert (await with_key(client, new).append(b"abc", 0)).status == 204
    first, second = [str(key["key"]) for key in await host.keyring.listed() if key["name"] == "nvr-2"]
    with pytest.raises(Refusal, match=f"nvr-2 has two keys .{first}, {second}.; remove"):
        await host.keyring.add("nvr-2", None)
    with pytest.raises(Refusal, match="say which"):
        await host.keyring.remove("nvr-2", None)
    assert (await host.keyring.remove("nvr-2", first)).id == first
    assert [await works(client, key) for key in (old, new)] == [False, True]
    assert (await with_key(client, new).head()).headers["Upload-Offset"] == "3"
    await host.keyring.remove("nvr-2", None)
    assert not await works(client, new)
    with pytest.raises(Refusal, match="no key of nvr-2 was added here"):
        await host.keyring.remove("nvr-2", None)


async def test_an_added_key_outlives_the_process_and_a_configured_one_does_not(tmp_path, clock, session):
    host = LinkHost(tmp_path, base_url=BASE_URL, api_keys={"nvr": KEY}, clock=clock)
    await host.start(listen=None, unix_path=None)
    added = await host.keyring.add("nvr-2", 1000)
    await host.aclose()
    host = LinkHost(tmp_path, base_url=BASE_URL, api_keys={}, clock=clock)
    await host.start(listen=("127.0.0.1", 0), unix_path=None)
    client = Client(session, f"http://127.0.0.1:{host.port}")
    assert [await works(client, key) for key in (added, KEY)] == [True, False]
    assert [(key["name"], key["quota_bytes"]) for key in await host.keyring.listed()] == [("nvr-2", 1000)]
    await host.aclose()


async def test_a_key_opens_no_video(client, host):
    """Neither its own clip's nor another's: it brings bytes, and is told how many there are."""
    link = await client.publish(video(2))
    stranger = with_key(client, await host.keyring.add("nvr-2", None))
    for path in (f"/video/{CLIP}", f"/video/{CLIP}/part/0.mp4", f"/video/{CLIP}?token={stranger.key}"):
        answer = await client.ask("GET", path, Authorization=f"Bearer {client.key}", X_API_Key=client.key)
        assert answer.status == 404
    for method in ("HEAD", "DELETE"):
        assert (await stranger.api(method, f"/uploads/{CLIP}.0")).status == 404
    assert (await stranger.create()).status == 409
    assert (await stranger.update(ended=True)).status == 404
    assert (await client.api("GET", f"/uploads/{CLIP}.0")).status == 405
    assert (await client.ask("GET", inside(link, "part/0.mp4"))).status == 200


@pytest.mark.parametrize("name", ["", "-x", "a b", "é", "x" * 64, "a\n", "../x"])
async def test_a_name_is_plain(host, name):
    with pytest.raises(Refusal, match="a name is of 1 to 63 letters"):
        await host.keyring.add(name, None)


async def test_a_configured_name_is_taken(host):
    """Whoever started the host with it says what its key is."""
    with pytest.raises(Refusal, match="nvr is the name of a key that is configured"):
        await host.keyring.add("nvr", None)
    with pytest.raises(Refusal, match="no key of nvr was added here"):
        await host.keyring.remove("nvr", None)


async def test_a_quota_bounds_what_is_held_for_a_key(client, host, clock):
    """507 with what is left, whatever the length of the body is said to be; room comes back when clips expire."""
    nvr = with_key(client, await host.keyring.add("nvr-2", 1000))
    await nvr.create(expiry_h=1)
    assert (await nvr.append(bytes(900), 0)).status == 204
    await nvr.create(OTHER_CLIP)
    for body in (None, bytes(101)):
        refused = await nvr.append(bytes(101), 0, OTHER_CLIP, body=body)
        assert refused.status == 507
        assert "the quota of this API key leaves 100 bytes; older clips must expire first" in refused.json["error"]
    assert (await nvr.head(OTHER_CLIP)).headers["Upload-Offset"] == "0"
    assert (await nvr.append(bytes(100), 0, OTHER_CLIP)).status == 204
    assert (await nvr.append(b"x", 100, OTHER_CLIP)).status == 507
    assert (await client.create("3c1f7f0e-0d52-4f0e-8d66-8a5b1c2d3e4f")).status == 201, "others are not concerned"
    await clock.advance(3600)
    await host.run_once()
    assert (await nvr.append(b"x", 100, OTHER_CLIP)).status == 204
    (key,) = [key for key in await host.keyring.listed() if key["name"] == "nvr-2"]
    assert (key["held_bytes"], key["quota_bytes"]) == (101, 1000)


async def test_a_clip_too_large_is_413_also_under_a_quota(client, host):
    """What no waiting would change is told apart from what will."""
    nvr = with_key(client, await host.keyring.add("nvr-2", 10_000_000))
    link = path_of((await nvr.create()).json["links"][GUARD])
    assert (await nvr.append(bytes(2_000_001), 0)).status == 413
    assert (await client.ask("GET", inside(link, "part/0.mp4"))).status == 404


async def test_a_new_key_may_change_the_quota_or_leave_it(host):
    await host.keyring.add("nvr-2", 1000)
    await host.keyring.add("nvr-2", None)
    assert [key["quota_bytes"] for key in await host.keyring.listed() if key["name"] == "nvr-2"] == [1000, 1000]
    (first, _) = [str(key["key"]) for key in await host.keyring.listed() if key["name"] == "nvr-2"]
    await host.keyring.remove("nvr-2", first)
    await host.keyring.add("nvr-2", 2000)
    assert [key["quota_bytes"] for key in await host.keyring.listed() if key["name"] == "nvr-2"] == [2000, 2000]
