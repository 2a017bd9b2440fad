"""A disk that is full, read-only or failing: alerts go, nothing owed is deleted, the daemon says so, and it goes on."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import itertools
import os
import signal
import subprocess
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.daemon.box import Box, boxed, camera, free_port
from tests.daemon.test_story import assert_playable_h264, leads_to, sealed_clip
from tests.real.parts import remount, small_disk
from vigintd.demo.mailbox import Letter
from vigintd.errors import ControlError

DISK_KB = 8 * 1024


class Ballast:
    """Somebody else's file, as large as the disk allows."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "ballast"

    def fill(self, *, but_bytes: int = 0) -> None:
        """Fill the disk but for so much; asserts that it is full then."""
        with self.path.open("wb", buffering=0) as file:
            with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
                file.writelines(itertools.repeat(bytes(4096)))
            file.truncate(file.tell() - but_bytes)

    def go(self) -> None:
        self.path.unlink()


@asynccontextmanager
async def on_a_small_disk(folder: Path, log_folder: Path, url: str, on: str = "spool", **options: Any):
    """A box with a small disk for its spool, or for all its state; one of its two cameras has longer incidents."""
    place = folder / "state" / ("" if on == "state" else on)
    with small_disk(place, size_kb=DISK_KB):
        async with boxed(folder, log_folder, {"entree": camera(url), "cour": camera(url, post_roll_s=3)}, **options) as box:
            yield box, Ballast(place), place


def lines(box: Box, name: str) -> int:
    return sum(event["event"] == name for event in box.events)


async def recorded_whole(box: Box) -> Letter:
    """One more incident ends as if nothing had ever been; its mail."""
    incident_id = await box.trigger("entree")
    letter = await box.letter(lambda letter: leads_to(incident_id, letter))
    incident, clip = await sealed_clip(box, letter)
    assert incident["problem"] == incident["parts"][0]["partial"] == ""
    assert_playable_h264(clip)
    return letter


async def assert_told_that_the_disk_took_nothing(box: Box, incident_id: str, because: str) -> None:
    letter = await box.letter(lambda letter: letter.link is None)
    assert "Le disque de l'appareil est plein ou défaillant" in letter.text
    incident = await box.closed(incident_id)
    assert incident["no_video"] == "unstored"
    assert because in incident["problem"]
    assert incident["parts"] == []


@pytest.mark.needs("small-disk")
async def test_a_disk_that_was_full_before_costs_the_video_and_not_the_alert(short_path, log_folder, rtsp_cameras):
    """People are told at once, with the picture; once somebody makes room, everything is recorded again."""
    rtsp = await rtsp_cameras()
    async with on_a_small_disk(short_path, log_folder, rtsp.url) as (box, ballast, _):
        ballast.fill(but_bytes=512 * 1024)
        await box.start()
        full = await box.event("disk.full")
        await box.event("camera.live", camera="entree")
        incident_id = await box.trigger("entree")
        await assert_told_that_the_disk_took_nothing(box, incident_id, "the disk is full: 0 MB of it are free")
        assert (await box.control.status())["disk"]["full"] == full["reason"]
        ballast.go()
        await box.event("disk.room")
        published = await recorded_whole(box)
        assert (await box.control.status())["disk"]["full"] == ""
        assert (lines(box, "disk.full"), lines(box, "disk.room"), lines(box, "clip.ended_early")) == (1, 1, 1)
        await assert_makes_room_and_its_link_lives_on(box, ballast, published)


async def assert_makes_room_and_its_link_lives_on(box: Box, ballast: Ballast, letter: Letter) -> None:
    """Shortly before the bound, the clip that the host has leaves the spool, and who has its link sees it still."""
    incident, clip = await sealed_clip(box, letter)
    (part,) = incident["parts"]
    ballast.fill(but_bytes=1280 * 1024)
    await box.trigger("entree")
    await box.event("spool.made_room", incident=incident["id"])
    assert not Path(part["path"]).exists()
    assert (await sealed_clip(box, letter))[1] == clip
    assert lines(box, "disk.full") == 1


@pytest.mark.needs("small-disk")
async def test_a_disk_that_fills_up_amid_a_recording_ends_the_clip_and_takes_nothing_that_is_owed(
    short_path, log_folder, rtsp_cameras
):
    """The host is away, so all is owed: the clip before stays whole, this one is sealed at its last whole fragment."""
    rtsp = await rtsp_cameras()
    away = {"host": "tus", "url": f"http://127.0.0.1:{free_port()}", "api_key": "a-key-that-no-log-may-hold"}
    alert = {"text_after_s": 0.5}
    async with on_a_small_disk(short_path, log_folder, rtsp.url, publish=away, alert=alert) as (box, ballast, _):
        await box.start()
        await box.event("camera.live", camera="entree")
        before = await box.trigger("entree")
        await box.event("clip.sealed", incident=before)
        await box.letter()
        await box.event("camera.live", camera="cour")
        incident_id = await box.trigger("cour")
        assert (await box.letter()).link is None
        ballast.fill()
        early = await box.event("clip.ended_early", incident=incident_id)
        assert "the disk is full" in early["reason"]
        await box.event("clip.sealed", incident=incident_id)
        for owed in (before, incident_id):
            incident = await box.control.incident(owed)
            assert incident
            (part,) = incident["parts"]
            clip = Path(part["path"]).read_bytes()
            assert hashlib.sha256(clip).hexdigest() == part["sha256"]
            assert_playable_h264(clip)
            assert ("the disk is full" in part["partial"]) is (owed == incident_id)
        assert lines(box, "spool.made_room") == 0
        assert await box.event("disk.full")


@pytest.mark.needs("small-disk")
async def test_a_disk_that_becomes_read_only_is_told_and_so_is_that_it_is_well_again(short_path, log_folder, rtsp_cameras):
    rtsp = await rtsp_cameras()
    async with on_a_small_disk(short_path, log_folder, rtsp.url) as (box, _, place):
        await box.start()
        await box.event("camera.live", camera="entree")
        before, _ = await sealed_clip(box, await recorded_whole(box))
        await remounted(place, "ro")
        with pytest.raises(OSError, match="Read-only"):
            (place / "probe").touch()
        incident_id = await box.trigger("entree")
        await assert_told_that_the_disk_took_nothing(box, incident_id, "the disk is read-only")
        assert (await box.event("disk.full"))["reason"] == "the disk is read-only"
        assert Path(before["parts"][0]["path"]).exists()
        remount(place, "rw")
        await box.event("disk.room")


async def remounted(place: Path, option: str) -> None:
    """Remount as soon as nothing is being written there: a sidecar may be."""
    async with asyncio.timeout(20):
        while True:
            try:
                return remount(place, option)
            except OSError:
                await asyncio.sleep(0.05)


@pytest.mark.needs("small-disk")
async def test_a_state_folder_without_room_for_a_row_is_told_by_a_mail_of_its_own(short_path, log_folder, rtsp_cameras):
    """Not even the journal can be written: the mail says so, and with room everything is as ever."""
    rtsp = await rtsp_cameras()
    alert = {"text_after_s": 0.5}
    async with on_a_small_disk(short_path, log_folder, rtsp.url, "state", alert=alert) as (box, ballast, _):
        await box.start()
        await box.event("camera.live", camera="entree")
        ballast.fill()
        with pytest.raises(ControlError, match="could not be written to the journal"):
            await box.trigger("entree")
        letter = await box.letter()
        assert letter.link is None
        assert "inscrire l'incident dans son journal" in letter.text
        assert await box.event("mail.sent_unwritten")
        assert await box.event("disk.full")
        ballast.go()
        await box.event("disk.room")
        await recorded_whole(box)


@pytest.mark.needs("strace")
async def test_a_fragment_whose_fsync_fails_is_never_shown_and_the_clip_goes_on_in_another_part(
    short_path, log_folder, rtsp_cameras
):
    """EIO from the kernel: the part ends where it is good, and says so; link and hashes are as promised."""
    rtsp = await rtsp_cameras()
    async with boxed(short_path, log_folder, {"entree": camera(rtsp.url, post_roll_s=5)}) as box:
        await box.start()
        await box.event("camera.live", camera="entree")
        incident_id = await box.trigger("entree")
        letter = await box.letter()
        assert letter.link
        part_path = box.state_dir / "spool" / f"{incident_id}.0.mp4"
        async with failing_fsync(box, part_path) as trace:
            damaged = await box.event("clip.damaged", incident=incident_id)
        assert "Input/output error" in damaged["error"]
        assert trace.read_text(encoding="utf-8").count("EIO (Input/output error) (INJECTED)") >= 1
        incident, first = await sealed_clip(box, letter)
        assert [part["index"] for part in incident["parts"]] == [0, 1]
        assert incident["parts"][0]["partial"] == "the disk failed: Input/output error"
        assert hashlib.sha256(first).hexdigest() == incident["parts"][0]["sha256"]
        for part in incident["parts"]:
            clip = Path(part["path"]).read_bytes()
            assert hashlib.sha256(clip).hexdigest() == part["sha256"]
            assert_playable_h264(clip)


@asynccontextmanager
async def failing_fsync(box: Box, path: Path):
    """While it lasts, each thread's first fsync of that file fails; gives the record of the system calls."""
    assert box._process
    trace = box.folder / "strace.txt"
    inject = ("-e", "trace=fsync", "-e", "inject=fsync:error=EIO:when=1")
    strace = await asyncio.create_subprocess_exec(
        *("strace", "-f", "-qq", "-o", str(trace), "-P", str(path), *inject, "-p", str(box._process.pid)),
        stderr=subprocess.DEVNULL,
    )
    try:
        yield trace
    finally:
        with suppress(ProcessLookupError):
            strace.send_signal(signal.SIGINT)
        await strace.wait()
