"""The video as players ask for it: finished in faststart order, by playlist, as a file; and what is written down of it."""

from __future__ import annotations

import asyncio
import hashlib
import io
import re
from typing import Any

import av
import pytest

from tests.linkhost.client import CLIP, GUARD, Client, inside, path_of, rows
from tests.linkhost.videos import fragments, video
from vigintd import fmp4
from vigintd.linkhost import AuditKind, hls
from vigintd.model import Fragment

PLACES = ["play/0.mp4", "download/0", "playlist.m3u8", "hls/0/0.m4s", "hls/0/1.m4s"]


def times(data: bytes) -> list[Any]:
    """The time and bytes of every picture of a file."""
    with av.open(io.BytesIO(data), "r") as container:
        return [(frame.time, frame.to_ndarray().tobytes()) for frame in container.decode(video=0)]


async def started(client: Client) -> str:
    """A clip without bytes; answers its link."""
    return path_of((await client.create()).json["links"][GUARD])


async def listed(client: Client, link: str) -> list[str]:
    """The lines of the playlist."""
    answer = await client.ask("GET", inside(link, "playlist.m3u8"))
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/vnd.apple.mpegurl"
    return answer.text.splitlines()


async def test_a_finished_part_plays_in_faststart_order(client):
    """ftyp, moov with every sample, mdat: the same pictures at the same times, and every range of it to the byte."""
    data = video(3)
    place = inside(await client.publish(data), "play/0.mp4")
    whole = await client.ask("GET", place)
    film, head = whole.body, len(whole.body) - len(data) + len(fragments(data)[0])
    assert film.index(b"moov") < film.index(b"mdat") < film.index(b"moof")
    assert b"mvex" not in film[:head]
    assert times(film) == times(data)
    for first, last in [(0, 1), (0, len(film) - 1), (head - 10, head + 10), (head, head), (head + 500, len(film) - 1)]:
        answer = await client.ask("GET", place, Range=f"bytes={first}-{last}")
        assert (answer.status, answer.body) == (206, film[first : last + 1])
        assert answer.headers["Content-Range"] == f"bytes {first}-{last}/{len(film)}"
    assert (await client.ask("GET", place, Range=f"bytes={len(film)}-")).status == 416
    assert (await client.ask("HEAD", place)).headers["Content-Length"] == str(len(film))


async def test_the_film_is_not_taken_for_the_evidence(client):
    """It has an ETag of its own, by which ranges go on, and no digest of the evidence."""
    data = video(2)
    link = await client.publish(data)
    evidence = await client.ask("HEAD", inside(link, "download/0"))
    film = await client.ask("HEAD", inside(link, "play/0.mp4"))
    assert "Repr-Digest" in evidence.headers
    assert "Repr-Digest" not in film.headers
    assert film.headers["ETag"] != evidence.headers["ETag"]
    go_on = await client.ask("GET", inside(link, "play/0.mp4"), Range="bytes=0-1", If_Range=film.headers["ETag"])
    assert go_on.status == 206


async def test_the_evidence_is_downloaded_byte_for_byte(client, host):
    """As a file with a plain name and its digest, and written down as a download."""
    data = video(2)
    answer = await client.ask("GET", inside(await client.publish(data), "download/0"))
    assert answer.body == data
    assert answer.headers["Content-Disposition"] == 'attachment; filename="vigint-entree-2026-03-14T10-26-53.mp4"'
    assert re.fullmatch(r"sha-256=:[A-Za-z0-9+/]{43}=:", answer.headers["Repr-Digest"])
    assert answer.headers["ETag"] == f'"{hashlib.sha256(data).hexdigest()}"'
    (row,) = await rows(host, AuditKind.DOWNLOAD, 1)
    assert (row.recipient, row.detail["bytes"]) == (GUARD, len(data))


async def test_what_still_grows_is_neither_film_nor_file(client):
    """Both are of the whole part."""
    link = await started(client)
    await client.append(video(2), 0)
    assert [(await client.ask("GET", inside(link, place))).status for place in PLACES[:2]] == [404, 404]


@pytest.mark.parametrize("broken", [b"\0" * 1000, b"\0\0\0\x18ftypisom" + b"x" * 500, "cut"], ids=["zeros", "ftyp", "cut"])
async def test_what_is_no_whole_video_is_served_as_it_is(client, broken):
    """Strangers' bytes have no plain form; the evidence is shown in its place, and the playlist holds what is whole."""
    data = video(2)[:-100] if broken == "cut" else broken
    link = await client.publish(data)
    assert (await client.ask("GET", link)).status == 200
    assert (await client.ask("GET", inside(link, "play/0.mp4"))).body == data
    assert (await client.ask("GET", inside(link, "playlist.m3u8"))).status == (200 if broken == "cut" else 404)


async def test_the_playlist_grows_with_the_clip(client):
    """A line for what lies between two key frames, as soon as it is whole; none is ever changed; parts are told apart."""
    link = await started(client)
    first, second = video(3), video(1, width=480)
    assert (await client.ask("GET", inside(link, "playlist.m3u8"))).status == 404
    before: list[str] = []
    counts, offset = [], 0
    for piece in fragments(first):
        await client.append(piece, offset)
        offset += len(piece)
        answer = await client.ask("GET", inside(link, "playlist.m3u8"))
        lines = answer.text.splitlines() if answer.status == 200 else []
        assert lines[: len(before)] == before
        assert "#EXT-X-ENDLIST" not in lines
        counts.append(sum(line.startswith("#EXTINF:1.00000,") for line in lines))
        before = lines
    assert counts == [0, 0, 0, 1, 1, 2, 2]
    token = link.partition("?")[2]
    assert before[:9] == [
        "#EXTM3U",
        "#EXT-X-VERSION:7",
        "#EXT-X-INDEPENDENT-SEGMENTS",
        "#EXT-X-TARGETDURATION:2",
        "#EXT-X-MEDIA-SEQUENCE:0",
        "#EXT-X-PLAYLIST-TYPE:EVENT",
        "#EXT-X-START:TIME-OFFSET=0,PRECISE=YES",
        f'#EXT-X-MAP:URI="hls/0/0.m4s?{token}"',
        "#EXTINF:1.00000,",
    ]
    await client.seal(first)
    await client.create(part=1)
    await client.append(second, 0, part=1)
    await client.seal(second, part=1)
    await client.update(ended=True)
    lines = await listed(client, link)
    assert lines[: len(before)] == before
    assert lines[len(before) + 2 : len(before) + 4] == ["#EXT-X-DISCONTINUITY", f'#EXT-X-MAP:URI="hls/1/0.m4s?{token}"']
    assert lines[-1] == "#EXT-X-ENDLIST"
    urls = re.findall(r"hls/\d/\d\.m4s\?token=[A-Za-z0-9_-]{43}", "\n".join(lines))
    base = link.partition("?")[0]
    bodies = [(await client.ask("GET", f"{base}/{url}")).body for url in urls]
    assert b"".join(bodies) == first + second
    for body in bodies:
        assert (
            body.startswith(fragments(first)[0][:8])
            or fmp4.scan(body, 0, fmp4.read_init(first[:2000]), strict=False)[0][0].is_key
        )


async def test_a_segment_that_is_not_whole_is_not_there(client):
    """What is listed never changes, so what may still grow is not served either."""
    pieces = fragments(video(2))
    link = await started(client)
    await client.append(b"".join(pieces[:4]), 0)
    statuses = [(await client.ask("GET", inside(link, f"hls/0/{number}.m4s"))).status for number in range(5)]
    assert statuses == [200, 200, 404, 404, 404]


async def test_a_longer_wait_for_key_frames_is_said(client):
    """No segment is longer than the list's own word (RFC 8216, section 4.3.3.1)."""
    rare = b"".join(fragments(video(6, gop=50)))
    assert "#EXT-X-TARGETDURATION:5" in await listed(client, await client.publish(rare))


def test_a_pause_of_the_camera_belongs_to_the_segment_before_it():
    """Its last picture stays until the next one, so that the times of list and pictures agree."""
    found = [Fragment(at * 10, 10, start, 45_000, is_key=True) for at, start in enumerate([0, 0, 45_000, 180_000])]
    listed = hls.segments(found, sealed=True)
    assert [segment.duration_90k for segment in listed[1:]] == [45_000, 135_000, 45_000]


async def test_a_player_without_media_source_is_written_down(client, host):
    """Playlist and initialisation segment are touches, once in ten minutes; each segment is a play of its own bytes."""
    data = video(2)
    link = await client.publish(data)
    for _ in range(3):
        for place in ("playlist.m3u8", "hls/0/0.m4s"):
            assert (await client.ask("GET", inside(link, place))).status == 200
    answer = await client.ask("GET", inside(link, "hls/0/3.m4s"))
    (play,) = await rows(host, AuditKind.PLAY, 1)
    wanted = fmp4.scan(data)[0][3]
    assert (play.detail["first"], play.detail["bytes"], play.detail["by"]) == (wanted.offset_bytes, len(answer.body), "hls")
    assert [row.detail["what"] for row in await rows(host, AuditKind.PROBE, 2)] == ["playlist", "hls"]


async def test_the_head_of_a_film_is_no_play(client, host):
    """Tables hold no pictures; of what follows, the evidence's own bytes count."""
    data = video(2)
    place = inside(await client.publish(data), "play/0.mp4")
    await client.ask("GET", place, Range="bytes=0-99")
    head = int((await client.ask("HEAD", place)).headers["Content-Length"]) - len(data) + len(fragments(data)[0])
    await client.ask("GET", place, Range=f"bytes={head - 5}-{head + 19}")
    (play,) = await rows(host, AuditKind.PLAY, 1)
    assert (play.detail["first"], play.detail["bytes"]) == (len(fragments(data)[0]), 20)
    assert [row.detail["what"] for row in await rows(host, AuditKind.PROBE, 2)] == ["media", "HEAD media"]


async def test_no_finished_video_is_fetched_by_a_page_itself(client, host):
    """Whoever asks for it as if it were is written down as who plays it."""
    link = await client.publish(video(2))
    for place in ("part/0.mp4", "play/0.mp4", "hls/0/1.m4s"):
        await client.ask("GET", inside(link, place) + "&auto")
    assert [row.detail["by"] for row in await rows(host, AuditKind.PLAY, 3)] == ["part", "play", "hls"]


async def test_what_a_page_plays_by_itself_is_a_play_once_a_person_acts(client, host, session):
    """Until then it is a probe, however much was sent; what was sent before the act counts, and what comes after it."""
    data = video(2)
    link = await started(client)
    await client.append(data, 0)
    assert (await client.ask("POST", inside(link, "watched"))).status == 204
    alone = inside(link, "live/0.mp4") + "&auto"
    async with session.get(client.base + alone) as answer:
        await answer.content.readexactly(len(data))
    (probe,) = await rows(host, AuditKind.PROBE, 1)
    assert (probe.detail["what"], probe.detail["bytes"]) == ("autoplay", len(data))
    async with session.get(client.base + alone) as answer:
        await answer.content.readexactly(len(data))
        for _ in range(2):
            assert (await client.ask("POST", inside(link, "watched"))).status == 204
    plays = await rows(host, AuditKind.PLAY, 2)
    assert [row.detail["bytes"] for row in plays] == [len(data), len(data)]


async def test_nobody_but_the_links_holder_plays(client, clock):
    """404 with another token and 410 after the clip's time, on every request anew."""
    link = await client.publish(video(2))
    stranger = re.sub(r"token=.*", "token=" + "A" * 43, link)
    assert {(await client.ask("GET", inside(stranger, place))).status for place in PLACES} == {404}
    assert (await client.ask("POST", inside(stranger, "watched"))).status == 404
    assert {(await client.ask("GET", inside(link, place))).status for place in PLACES} == {200}
    clock.jump(49 * 3600)
    assert {(await client.ask("GET", inside(link, place))).status for place in PLACES} == {410}


async def test_a_revoked_link_plays_nothing_more(client, host):
    """Not the next segment of a playlist, nor a range of the film; another recipient's goes on."""
    owner = "patron@exemple.fr"
    links = (await client.create(recipients=[GUARD, owner])).json["links"]
    data = video(2)
    await client.append(data, 0)
    await client.seal(data)
    await host.links.revoke(await host.links.clip(CLIP), GUARD)
    for name, status in ((GUARD, 404), (owner, 200)):
        statuses = {(await client.ask("GET", inside(path_of(links[name]), place))).status for place in PLACES}
        assert statuses == {status}


async def test_ffmpegs_reader_follows_the_playlist_to_its_end(client):
    """It reads the pictures of a clip that still grows, waits for more, and ends with the clip, with every picture."""
    data = video(4)
    pieces = fragments(data)
    link = await started(client)
    half = b"".join(pieces[:5])
    await client.append(half, 0)
    loop, seen = asyncio.get_running_loop(), asyncio.Semaphore(0)

    def read() -> list[float | None]:
        # From the beginning, and without waiting for five seconds of video before it says what it is.
        options = {"live_start_index": "0", "fpsprobesize": "0", "analyzeduration": "100000"}
        with av.open(client.base + inside(link, "playlist.m3u8"), options=options, timeout=20) as container:
            found = []
            for frame in container.decode(video=0):
                found.append(frame.time)
                loop.call_soon_threadsafe(seen.release)
            return found

    reading = asyncio.create_task(asyncio.to_thread(read))
    await seen.acquire()
    await client.append(data[len(half) :], len(half))
    await client.seal(data)
    await client.update(ended=True)
    assert await reading == [time for time, _ in times(data)]
