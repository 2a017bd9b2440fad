"""The picture in the mail is the one of the detection."""

import asyncio
import io
import threading
from dataclasses import replace

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.clip.pictures import FPS, coded, decoded, later, pictures, rgb
from vigintd.clip import snapshot
from vigintd.clip.encode import encode_pictures
from vigintd.clip.snapshot import snapshot_jpeg
from vigintd.errors import ClipError
from vigintd.model import Packet


def shown(jpeg: bytes) -> NDArray[np.uint8]:
    with av.open(io.BytesIO(jpeg), "r", format="jpeg_pipe") as container:
        (frame,) = container.decode(video=0)
    return rgb(frame)


def nearest(jpeg: bytes, packets: list[Packet]) -> int:
    """Number of the picture that the JPEG shows."""
    picture = shown(jpeg).astype(int)
    return int(np.argmin([abs(picture - frame).mean() for frame in decoded(packets)]))


@pytest.mark.parametrize(("moment_s", "number"), [(100, 0), (101.0, 25), (101.5, 37), (101.99, 49), (999, 49), (5, 0)])
async def test_the_picture_is_the_last_by_the_moment(moment_s, number):
    """The last picture that had arrived; the first where all came later."""
    packets = coded(2 * FPS)
    assert nearest(await snapshot_jpeg(packets, moment_s), packets) == number


@pytest.mark.parametrize("encoder", ["libx265", "mjpeg"])
async def test_any_codec_gives_a_picture(encoder):
    """What is not H.264 is decoded as well."""
    packets = coded(10, encoder=encoder)
    assert nearest(await snapshot_jpeg(packets, 100.2), packets) == 5


async def test_it_is_a_jpeg_that_mail_programs_know():
    """JFIF, in colour, in full range."""
    colours = np.zeros((64, 96, 3), np.uint8)
    colours[:, :32], colours[:, 32:64] = (255, 255, 255), (220, 20, 20)
    jpeg = await snapshot_jpeg(encode_pictures([colours], fps=1, gop=1, crf=10), 0)
    assert jpeg[:4] == b"\xff\xd8\xff\xe0"
    assert jpeg[6:10] == b"JFIF"
    picture = shown(jpeg)
    for column, colour in ((16, (255, 255, 255)), (48, (220, 20, 20)), (80, (0, 0, 0))):
        assert abs(picture[32, column].astype(int) - colour).max() <= 8


async def test_wide_pictures_are_scaled():
    """No wider than asked, in proportion; smaller ones stay as they are."""
    packets = encode_pictures(pictures(1, 320, 176), fps=1, gop=1)
    assert shown(await snapshot_jpeg(packets, 0, max_width_px=160)).shape == (88, 160, 3)
    assert shown(await snapshot_jpeg(packets, 0)).shape == (176, 320, 3)


async def test_past_the_deadline_the_newest_picture_serves():
    """A group of pictures too long for the deadline gives an earlier picture instead of none."""
    packets = coded(4 * FPS, gop=1000)
    assert nearest(await snapshot_jpeg(packets, 999, deadline_s=30), packets) == len(packets) - 1
    # On the thread itself, with a deadline that was over before decoding began.
    assert nearest(snapshot._picture(packets, 0.0, 1280), packets) < len(packets) - 1


async def test_a_damaged_packet_is_passed_over():
    """Garbage after the key frame leaves the picture before it."""
    packets = coded(3)
    packets[2] = replace(packets[2], data=b"\0\0\0\1")
    assert nearest(await snapshot_jpeg(packets, 999), packets[:2]) in (0, 1)


async def test_without_a_key_frame_there_is_no_picture():
    """What cannot be decoded is said, not invented."""
    packets = coded(5)
    for hopeless in ([], packets[1:], [replace(packets[0], data=bytes(50))]):
        with pytest.raises(ClipError):
            await snapshot_jpeg(hopeless, 999)


async def test_snapshots_at_once_are_bounded(monkeypatch):
    """Beyond the bound a snapshot is refused at once, and the bound frees itself."""
    packets = coded(2)
    go_on = threading.Event()
    real = snapshot._picture

    def held_up(*args):
        go_on.wait(10)
        return real(*args)

    monkeypatch.setattr(snapshot, "_picture", held_up)
    jobs = [asyncio.create_task(snapshot_jpeg(packets, 999, deadline_s=30)) for _ in range(snapshot._MOST_WAITING)]
    await asyncio.sleep(0)
    with pytest.raises(ClipError, match="too many"):
        await snapshot_jpeg(packets, 999)
    go_on.set()
    assert all(await asyncio.gather(*jobs))
    assert await snapshot_jpeg(later(packets, arrival_s=1), 999)


async def test_a_snapshot_that_hangs_is_given_up(monkeypatch):
    """Twice the deadline is the longest that an alert waits for its picture."""
    go_on = threading.Event()
    monkeypatch.setattr(snapshot, "_picture", lambda *_: go_on.wait(10))
    with pytest.raises(ClipError, match="too long"):
        await snapshot_jpeg(coded(1), 999, deadline_s=0.02)
    go_on.set()
