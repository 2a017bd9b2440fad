"""Cameras as they really are: whatever one does, it is named, it comes back, its clip plays, and no other camera notices.

All faults strike one daemon at the same time (see `faulty`); each test looks at one of the stories.
"""

from __future__ import annotations

import asyncio
import io
import tempfile
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from random import Random
from urllib.parse import urlsplit

import av
import av.error
import pytest
import pytest_asyncio

from tests.daemon.faulty import FPS, HEALTHY_S, STALL_S, Trouble, clip_of, pictures, staged
from tests.daemon.test_story import assert_playable_h264
from tests.real import faults
from tests.real.camera_lock import Lock
from tests.real.parts import missing_part
from tests.real.scripted_camera import Fault

pytestmark = pytest.mark.asyncio(loop_scope="module")


class PowerCut(Trouble):
    """The camera is off, and its address refuses; it comes back on the same port."""

    async def strike(self, stage, camera):
        await camera.stop()
        return self.make()

    async def confirm(self, stage, fault):
        camera = urlsplit(stage.box.config["cameras"]["refused"]["url"])
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(camera.hostname, camera.port)
        fault.fire()

    async def end(self, stage, camera):
        await camera.start(urlsplit(camera.url).hostname, camera.port)


class FromTheStart(Trouble):
    """Decided before the camera is played, and shown later."""

    async def prepare(self, stage, camera):
        camera.strike(self.make())

    async def strike(self, stage, camera):
        return camera.fault


class NameGone(Trouble):
    """The camera's name has no address any more: the daemon's resolver fails for it while a file is there."""

    async def prepare(self, stage, camera):
        folder = stage.box.folder
        self._flag, self._count = folder / "no-such-name", folder / "asked-in-vain"
        (folder / "sitecustomize.py").write_text(
            f"""
import pathlib, socket
flag, count, resolve = pathlib.Path({str(self._flag)!r}), pathlib.Path({str(self._count)!r}), socket.getaddrinfo
def getaddrinfo(host, *args, **kwargs):
    if host == "localhost" and flag.exists():
        with count.open("a") as file:
            file.write("x")
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    return resolve(host, *args, **kwargs)
socket.getaddrinfo = getaddrinfo
""",
            encoding="utf-8",
        )
        stage.box.environ["PYTHONPATH"] = str(folder)

    async def strike(self, stage, camera):
        self._flag.touch()
        camera.drop_clients()
        return self.make()

    async def confirm(self, stage, fault):
        fault.fired = len(self._count.read_bytes())

    async def end(self, stage, camera):
        self._flag.unlink()


PASSWORD = "camera-p@ssw0rd/with#all"
"""One of those that are looked for in every log at the end of a run."""


def by_url(camera):
    return {"url": camera.url.replace("//", f"//{camera.lock.credentials}@")}


def by_keys(camera):
    return {"username": camera.lock.user, "password": camera.lock.password}


def by_name(camera):
    return {"url": camera.url.replace("127.0.0.1", "localhost")}


def by_two_addresses(camera):
    return {"url": [camera.url, f"{camera.url}?second"]}


def soon_frozen(_camera):
    return {"frozen_after_s": 6}


LOST = {
    "refused": PowerCut(Fault, "refused"),
    "dns": NameGone(Fault, "dns", settings=by_name, host="127.0.0.1"),
    "not_found": Trouble(faults.not_found, "not_found", cut=True),
    "redirects": Trouble(faults.redirects, "redirects", cut=True),
    "password_basic": Trouble(
        faults.PasswordChanged, "unauthorized", cut=True, lock=Lock(("basic",), password=PASSWORD), settings=by_url
    ),
    "password_digest": Trouble(
        faults.PasswordChanged, "unauthorized", cut=True, lock=Lock(("digest-qop",), password=PASSWORD), settings=by_keys
    ),
    "mute": Trouble(faults.Mute, "timeout", cut=True),
    "silent": Trouble(faults.Silent, "stalled"),
    "silent_after_play": Trouble(faults.Silent, "stalled", cut=True),
    "rtcp_only": Trouble(faults.RtcpOnly, "no_video"),
    "trickle": Trouble(faults.Trickle, "no_video"),
    "garbage": Trouble(lambda: faults.Garbage(Random(11)), "garbage"),
    "fin": Trouble(lambda: faults.Cut(reset=False), "ended"),
    "rst": Trouble(lambda: faults.Cut(reset=True), "ended"),
    "first_of_two": Trouble(faults.first_not_found, "ended", cut=True, settings=by_two_addresses),
    "vanished": Trouble(faults.Vanished, "vanished"),
    "frozen": Trouble(lambda: faults.Shows(pictures()[:1]), "frozen", settings=soon_frozen),
}
"""Faults that cost the stream."""
KEPT = {
    "resized": Trouble(lambda: faults.Shows(pictures((240, 320))), ""),
    "jump_ahead": Trouble(lambda: faults.ClockJumps(3 * 3600), ""),
    "jump_back": Trouble(lambda: faults.ClockJumps(-5 * 3600), ""),
    "wrap": FromTheStart(lambda: faults.ClockWraps(8), "", settings=lambda _camera: {"post_roll_s": 8}),
}
"""Faults that must not."""
BRIEF = {"fin", "rst", "first_of_two"}
"""Those that the camera can be had in spite of, so that the incident under way goes on after them."""
HEALTHY = ("entree", "cour")


def lacks(name):
    """Why this machine cannot show that fault, or None."""
    return missing_part("socket-filter") if name == "vanished" else None


def each(names):
    """Those faults as parameters, in an order that is the same in every run."""
    marks = {"vanished": pytest.mark.needs("socket-filter")}
    return [pytest.param(name, marks=marks.get(name, ())) for name in LOST | KEPT if name in names]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(log_folder):
    with tempfile.TemporaryDirectory(prefix="vgt-") as folder:
        troubles = {name: trouble for name, trouble in (LOST | KEPT).items() if not lacks(name)}
        async with staged(Path(folder), log_folder, troubles, HEALTHY) as stage:
            yield stage


def is_live(event, name):
    """Whether a line of the log says that this camera is live."""
    return (event["event"], event.get("camera")) == ("camera.live", name)


def times_s(clip):
    """When each packet of a clip is decoded."""
    with av.open(io.BytesIO(clip), "r") as container:
        return [float((packet.dts or 0) * (packet.time_base or 0)) for packet in container.demux(video=0) if packet.size]


def pictures_of(clip):
    """What can be decoded of a clip up to the first damage."""
    found: list[av.VideoFrame] = []
    with av.open(io.BytesIO(clip), "r") as container, suppress(av.error.InvalidDataError):
        found += container.decode(video=0)
    return found


@pytest.mark.parametrize("name", each(LOST))
async def test_a_lost_camera_says_why_in_the_log_and_in_status(stage, name):
    story = await stage.stories[name]
    assert story.fired > 0
    assert story.lost["reason"] == LOST[name].reason
    if name not in BRIEF:
        assert (story.status["state"], story.status["reason"]) == ("lost", LOST[name].reason)
        assert story.status["problem"]


@pytest.mark.parametrize("name", each({"silent", "rtcp_only", "trickle", "vanished"}))
async def test_a_camera_that_sends_no_more_video_is_given_up_when_its_time_is_over(stage, name):
    """Not much later than `stall_timeout_s` after its last packet."""
    story = await stage.stories[name]
    assert STALL_S - 0.5 <= story.noticed_after_s <= STALL_S + 1.5


@pytest.mark.parametrize("name", each(LOST))
async def test_a_lost_camera_comes_back_by_itself(stage, name):
    story = await stage.stories[name]
    assert (story.after["state"], story.after["reason"]) == ("live", "")
    assert story.after["reconnects"] >= 1


@pytest.mark.parametrize("name", each(set(LOST) - BRIEF - {"frozen", "garbage"}))
async def test_an_incident_whose_camera_is_lost_ends_with_a_clip_that_plays_and_says_that_it_is_cut(stage, name):
    story = await stage.stories[name]
    assert story.incident["problem"] == ""
    recorded_s = sum(assert_playable_h264(clip_of(part)) for part in story.parts)
    assert 1 <= recorded_s <= story.promised_s - 2
    assert story.parts[-1]["partial"]


@pytest.mark.parametrize("name", each(BRIEF))
async def test_an_incident_goes_on_when_its_camera_is_back(stage, name):
    """Its clip may lack the seconds without a camera; it lacks no more, and is no longer than the wall clock says."""
    story = await stage.stories[name]
    recorded_s = sum(assert_playable_h264(clip_of(part)) for part in story.parts)
    assert story.promised_s - 3 <= recorded_s <= story.promised_s + 1


async def test_a_camera_whose_first_address_is_gone_lives_at_its_second_one(stage):
    await stage.stories["first_of_two"]
    first, second = [event for event in stage.box.events if is_live(event, "first_of_two")][:2]
    assert (first["url"].endswith("/cam"), second["url"].endswith("/cam?second")) == (True, True)


@pytest.mark.parametrize("name", each(BRIEF))
async def test_a_clip_with_a_cut_in_it_says_so(stage, name):
    story = await stage.stories[name]
    assert any(part["partial"] for part in story.parts)


async def test_garbage_does_not_cost_what_was_recorded_before_it(stage):
    """The clip begins with whole pictures, its hash is right and its times rise; what came after them is the camera's."""
    story = await stage.stories["garbage"]
    assert story.incident["problem"] == ""
    first, *_ = clips = [clip_of(part) for part in story.parts]
    assert len(pictures_of(first)) >= FPS
    for clip in clips:
        assert all(earlier < later for earlier, later in pairwise(times_s(clip)))


async def test_a_wrong_password_is_not_tried_again_and_again(stage):
    """Cameras lock an account for it: in the seconds of an incident it is shown once, and once more for what is recorded."""
    for name in ("password_basic", "password_digest"):
        assert (await stage.stories[name]).fired <= 2


@pytest.mark.parametrize("name", each({"frozen", "jump_ahead", "jump_back", "wrap"}))
async def test_a_clip_is_as_long_as_the_wall_clock_says_whatever_the_cameras_clock_or_picture_does(stage, name):
    story = await stage.stories[name]
    (part,) = story.parts
    assert abs(assert_playable_h264(clip_of(part)) - story.promised_s) < 1
    assert abs(part["duration_s"] - story.promised_s) < 1
    assert part["partial"] == ""


async def test_another_picture_size_gives_a_second_part_of_the_same_incident(stage):
    story = await stage.stories["resized"]
    assert len(story.parts) == 2
    assert abs(sum(assert_playable_h264(clip_of(part)) for part in story.parts) - story.promised_s) < 1
    assert story.after["width_px"] == 320


@pytest.mark.parametrize("name", each(KEPT))
async def test_a_strange_camera_is_not_lost(stage, name):
    story = await stage.stories[name]
    assert story.fired > 0
    assert (story.status["state"], story.status["reconnects"]) == ("live", 0)
    assert not [event for event in stage.box.events if event["event"] == "camera.lost" and event["camera"] == name]


@pytest.mark.parametrize("name", HEALTHY)
async def test_no_other_camera_loses_anything_meanwhile(stage, name):
    neighbour = await stage.neighbours[name]
    assert (neighbour.status["state"], neighbour.status["reconnects"]) == ("live", 0)
    assert abs(neighbour.missing) <= FPS // 3
    counters = (await stage.box.control.status())["counters"]
    lossy = {key: counts for key, counts in counters.items() if "dropped" in key or "missed" in key}
    assert not any(name in counts for counts in lossy.values()), lossy
    (part,) = neighbour.incident["parts"]
    steps_s = [later - earlier for earlier, later in pairwise(times_s(clip_of(part)))]
    assert len(steps_s) > HEALTHY_S * FPS
    # That every one is there is said above; a machine that is short of time may send some late.
    assert max(steps_s) < 0.5
