"""The Sparse AI v1 wire, as a program that was made for it speaks it."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
from typing import Any

import aiohttp
import pytest

from tests.linkhost.client import CLIP, KEY, OTHER_CLIP, OTHER_KEY, Answer, Client, path_of
from vigintd.linkhost import AuditKind

VIDEO = b"\x00\x00\x00\x18ftypisom" + bytes(range(256)) * 1000
"""It need not be a video for anything that this wire promises."""


def told(video: bytes = VIDEO, clip: str = CLIP, **changes: Any) -> dict[str, Any]:
    return {
        "video_id": clip,
        "upload_timestamp": "2026-03-14T10:26:53+01:00",
        "expiration_time": "2026-03-16T10:26:53+01:00",
        "source": "vigint-security-system",
        "type": "security_incident",
        "incident_type": "vol à l'étalage",
        "risk_level": "HIGH",
        "confidence": 0.87,
        "frame_count": 250,
        "analysis": "Une personne glisse un article sous son manteau.",
        "file_hash": hashlib.sha256(video).hexdigest(),
        **changes,
    }


class Seed:
    """Speaks as the service did from which this one descends."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.key = {"Authorization": f"Bearer {KEY}"}

    async def upload(self, video: bytes = VIDEO, clip: str = CLIP, *, metadata: Any = None, **fields: str) -> Answer:
        form = aiohttp.FormData(quote_fields=False)
        form.add_field("video", io.BytesIO(video), filename=f"{clip}.mp4", content_type="video/mp4")
        form.add_field("metadata", json.dumps(told(video, clip) if metadata is None else metadata))
        for name, value in {"expiration_hours": "48", "access_type": "private", **fields}.items():
            form.add_field(name, value)
        return await self.ask("POST", "upload", data=form, X_Video_ID=clip)

    async def ask(self, method: str, place: str, *, data: Any = None, **headers: str) -> Answer:
        return await self.client.ask(method, f"/api/v1/videos/{place}", data=data, **{**self.key, **headers})

    async def verify(self, token: str, clip: str = CLIP) -> Any:
        return (await self.ask("GET", f"link/verify?video_id={clip}&token={token}")).json

    async def extend(self, hours: Any, clip: str = CLIP) -> Answer:
        return await self.ask("POST", "link/extend", data=json.dumps({"video_id": clip, "additional_hours": hours}))


@pytest.fixture
def seed(client) -> Seed:
    return Seed(client)


def token_of(answer: Answer) -> str:
    return str(answer.json["private_link"]).partition("?token=")[2]


async def test_an_upload_is_answered_with_a_private_link_that_brings_the_video(seed, client, clock):
    answer = await seed.upload()
    assert answer.status == 200
    assert answer.json["success"] is True
    assert answer.json["video_id"] == CLIP
    assert answer.json["expiration_time"] == (clock.now().replace(day=16)).isoformat()
    link = path_of(answer.json["private_link"])
    assert link == f"/video/{CLIP}?token={token_of(answer)}"
    page = await client.ask("GET", link)
    assert page.status == 200
    assert "sous son manteau" in page.text
    assert hashlib.sha256(VIDEO).hexdigest() in page.text
    video = await client.ask("GET", link.replace("?", "/download/0?"))
    assert (video.status, video.body) == (200, VIDEO)


async def test_the_x_api_key_header_is_a_key_too(seed):
    seed.key = {"X-API-Key": KEY}
    assert (await seed.upload()).status == 200


@pytest.mark.parametrize("key", [{}, {"Authorization": "Bearer wrong"}, {"X-API-Key": "wrong"}])
async def test_without_a_right_key_nothing_is_done(seed, key):
    seed.key = key
    for answer in (await seed.upload(), await seed.extend(1), await seed.ask("DELETE", f"upload/{CLIP}")):
        assert answer.status == 401
        assert answer.json["error"]


async def test_the_same_video_twice_is_answered_the_same_and_another_under_its_id_is_refused(seed):
    first, again = await seed.upload(), await seed.upload()
    assert first.json == again.json
    other = await seed.upload(VIDEO + b"x")
    assert other.status == 409
    assert (await seed.verify(token_of(first)))["valid"] is True


async def test_two_uploads_of_one_video_at_once_leave_one(seed, host):
    answers = await asyncio.gather(seed.upload(), seed.upload())
    assert any(answer.status == 200 for answer in answers)
    assert (await seed.upload()).status == 200
    made = [row for row in await host.audit(CLIP) if row.detail.get("what") == "created"]
    assert len(made) == 1


async def test_fields_may_come_in_any_order(seed, client):
    form = aiohttp.FormData(quote_fields=False)
    form.add_field("expiration_hours", "2")
    form.add_field("metadata", json.dumps(told()))
    form.add_field("access_type", "private")
    form.add_field("video", VIDEO, filename="v.mp4", content_type="video/mp4")
    answer = await seed.ask("POST", "upload", data=form, X_Video_ID=CLIP)
    assert answer.status == 200
    assert (await seed.verify(token_of(answer)))["remaining_hours"] == 2


async def test_a_link_is_verified_with_what_is_left_of_it(seed, clock):
    token = token_of(await seed.upload())
    await clock.advance(12 * 3600)
    assert await seed.verify(token) == {
        "valid": True,
        "expiration_time": "2026-03-16T09:26:53+00:00",
        "remaining_hours": 36,
    }
    await clock.advance(36 * 3600)
    assert await seed.verify(token) == {"valid": False, "expiration_time": "2026-03-16T09:26:53+00:00", "remaining_hours": 0}


async def test_of_a_wrong_token_and_of_an_unknown_video_nothing_is_told(seed):
    await seed.upload()
    nothing = {"valid": False, "expiration_time": None, "remaining_hours": 0}
    assert await seed.verify("A" * 43) == await seed.verify("A" * 43, OTHER_CLIP) == await seed.verify("", "../..") == nothing


async def test_a_link_is_extended(seed, clock):
    token = token_of(await seed.upload())
    answer = await seed.extend(24)
    assert answer.status == 200
    assert answer.json["new_expiration"] == "2026-03-17T09:26:53+00:00"
    assert answer.json["total_hours"] == 72
    await clock.advance(71 * 3600)
    assert (await seed.verify(token))["valid"] is True


@pytest.mark.parametrize("hours", [0, -1, "nan", "NaN", None, True, "x", [], 10_000])
async def test_an_extension_that_makes_no_sense_changes_nothing(seed, hours):
    token = token_of(await seed.upload())
    answer = await seed.extend(hours)
    assert answer.status == 400
    assert "additional_hours" in answer.json["error"]
    assert (await seed.verify(token))["remaining_hours"] == 48


async def test_a_video_is_kept_for_thirty_days_at_most(seed):
    await seed.upload()
    answer = await seed.extend(720)
    assert answer.status == 409
    assert "30 days" in answer.json["error"]


async def test_a_deleted_video_is_gone_and_deleting_it_again_says_so(seed, client, host):
    link = path_of((await seed.upload()).json["private_link"])
    assert (await seed.ask("DELETE", f"upload/{CLIP}")).status == 200
    assert (await client.ask("GET", link)).status == 410
    assert (await seed.ask("DELETE", f"upload/{CLIP}")).status == 404
    assert [row.detail["by"] for row in await host.audit(CLIP) if row.kind is AuditKind.DELETED] == ["nvr"]
    assert (await seed.upload()).status == 410


async def test_another_key_can_do_nothing_to_a_video(seed):
    token = token_of(await seed.upload())
    seed.key = {"Authorization": f"Bearer {OTHER_KEY}"}
    assert (await seed.upload()).status == 409
    assert (await seed.extend(1)).status == 404
    assert (await seed.ask("DELETE", f"upload/{CLIP}")).status == 404
    assert (await seed.verify(token))["valid"] is False


WRONG = {
    "a hash of something else": ({"metadata": told(b"another")}, 400, "file_hash"),
    "an id of another": ({"metadata": told(clip=OTHER_CLIP)}, 400, "video_id"),
    "metadata that is no object": ({"metadata": [1]}, 400, "JSON"),
    "public access": ({"access_type": "public"}, 400, "access_type"),
    "no hours": ({"expiration_hours": "soon"}, 400, "expiration_hours"),
    "a thousand hours": ({"expiration_hours": "1000"}, 400, "expiration_hours"),
    "an empty video": ({"video": b""}, 400, "no video"),
    "a video that is too large": ({"video": bytes(2_000_001)}, 413, "2000000"),
    "a field without end": ({"note": "x" * 70_000}, 413, "field"),
    "fields without end": ({f"f{number}": "x" for number in range(20)}, 413, "fields"),
}


@pytest.mark.parametrize(("changes", "status", "word"), WRONG.values(), ids=list(WRONG))
async def test_what_is_wrong_is_said_and_leaves_nothing_behind(seed, tmp_path, changes, status, word):
    answer = await seed.upload(**changes)
    assert (answer.status, word in answer.json["error"]) == (status, True), answer.text
    assert sum(path.stat().st_size for path in (tmp_path / "linkhost" / "clips").iterdir()) == 0
    assert (await seed.upload()).status == 200


@pytest.mark.parametrize(
    ("content_type", "body", "status"),
    [
        ("video/mp4", b"x", 415),
        ("multipart/form-data", b"x", 400),
        ("multipart/form-data; boundary=b", b"nothing that begins", 400),
        ("multipart/form-data; boundary=b", b"--b\r\n\r\nno name\r\n--b--\r\n", 400),
        ("multipart/form-data; boundary=b", b"--b\r\nContent-Type: multipart/mixed; boundary=c\r\n\r\n--c--\r\n--b--\r\n", 400),
        (
            "multipart/form-data; boundary=b",
            b'--b\r\nContent-Disposition: form-data; name="metadata"\r\n\r\n\xff\r\n--b--\r\n',
            400,
        ),
    ],
)
async def test_what_is_no_form_is_refused(seed, content_type, body, status):
    answer = await seed.ask("POST", "upload", data=body, X_Video_ID=CLIP, Content_Type=content_type)
    assert answer.status == status
    assert answer.json["error"]


@pytest.mark.parametrize("clip", ["", "..%2f..", "x" * 300, CLIP.replace("-", ""), CLIP[:-1] + "é"])
async def test_an_id_is_a_uuid(seed, clip):
    assert (await seed.upload(clip=clip.encode("ascii", "backslashreplace").decode())).status == 400


async def test_an_upload_that_broke_off_is_made_again_from_the_beginning(seed, host, client):
    async def half():
        yield b'--b\r\nContent-Disposition: form-data; name="video"\r\n\r\n' + VIDEO[:1000]
        raise ConnectionError

    with pytest.raises((aiohttp.ClientError, ConnectionError)):
        await seed.ask("POST", "upload", data=half(), X_Video_ID=CLIP, Content_Type="multipart/form-data; boundary=b")
    answer = await seed.upload()
    assert answer.status == 200
    video = await client.ask("GET", path_of(answer.json["private_link"]).replace("?", "/download/0?"))
    assert (video.status, video.body) == (200, VIDEO)
