"""`vigintd demo`, as a person and as a program run it; and what it says when something does not happen."""

from __future__ import annotations

import asyncio
import hashlib
import io
import itertools
import json
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import av
import pytest

from tests.demo.conftest import FPS
from vigintd.demo import run, scene, story
from vigintd.errors import PermanentError

DEADLINE_S = 120.0
LINK = re.compile(r"^  (http://127\.0\.0\.1:\d+/video/[0-9a-f-]{36}\?token=[A-Za-z0-9_-]{43})$")


def started(folder: Path, log_folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """A demo of its own, with nothing of this environment but a folder for temporary files."""
    environ = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(folder),
        "LANG": "C.UTF-8",
        "TMPDIR": str(folder),
        "VIGINTD_MAIL__PORT": "1",
    }
    with (log_folder / f"demo-{'-'.join(arguments) or 'plain'}.log").open("w") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "vigintd", "demo", *arguments], stdout=subprocess.PIPE, stderr=log, text=True, env=environ
        )


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    # Deeper than a unix socket's path may be.
    return Path(tmp_path_factory.mktemp("a-folder-for-temporary-files-that-lies-rather-deep-in-the-file-system-for-a-socket"))


@pytest.fixture(scope="module")
def both(folder, log_folder) -> Iterator[dict[str, subprocess.Popen[str]]]:
    """The two demos run side by side: each mostly waits for somebody to leave the shop."""
    demos = {"once": started(folder, log_folder, "--once", "--json"), "plain": started(folder, log_folder)}
    yield demos
    for demo in demos.values():
        demo.kill()
        demo.communicate()


def test_a_person_sees_the_mail_and_a_link_that_plays_until_ctrl_c(both, log_folder):
    """The mail's text, its link by itself, the page behind it; after Ctrl-C nothing is left, and nothing is said."""
    demo = both["plain"]
    told: list[str] = []
    link = ""
    while not link:
        line = demo.stdout.readline()
        assert line, f"it ended early: {told}"
        told.append(line)
        if found := LINK.match(line.rstrip("\n")):
            link = found[1]
    assert any("ALERTE SYSTÈME VIGINT" in line for line in told)
    with urlopen(link, timeout=20) as page:
        assert page.status == 200
        assert b"<video" in page.read()
    (mail,) = [Path(line.partition(": ")[2].strip()) for line in (demo.stdout.readline(),) if ".eml" in line]
    assert mail.read_bytes().startswith(
        (b"From:", b"Subject:", b"Message-ID:", b"MIME-Version:", b"Date:", b"To:", b"Content-Type:")
    )
    demo.send_signal(signal.SIGINT)
    rest, _ = demo.communicate(timeout=DEADLINE_S)
    log = (log_folder / "demo-plain.log").read_text()
    assert demo.returncode == 0, log
    assert "Traceback" not in log
    assert "Error" not in rest
    assert not mail.parent.parent.exists()


def test_once_and_json_give_one_object_whose_files_stay(both, log_folder):
    """Standard output is one JSON object; the mail is there, the clip has the hash and plays."""
    demo = both["once"]
    out, _ = demo.communicate(timeout=DEADLINE_S)
    log = (log_folder / "demo---once---json.log").read_text()
    assert demo.returncode == 0, log
    outcome = json.loads(out)
    assert out.count("\n") == 1
    assert set(outcome) == {
        "incident_id", "link", "mail_path", "clip_path", "sha256", "detection_to_mail_s", "detection_to_playable_s",
    }  # fmt: skip
    assert LINK.match(f"  {outcome['link']}")
    assert outcome["incident_id"] in outcome["link"]
    assert outcome["incident_id"].encode() in Path(outcome["mail_path"]).read_bytes()
    assert hashlib.sha256(Path(outcome["clip_path"]).read_bytes()).hexdigest() == outcome["sha256"]
    assert 0 < outcome["detection_to_playable_s"] <= outcome["detection_to_mail_s"] < 20
    with av.open(outcome["clip_path"]) as clip:
        video = clip.streams.video[0]
        times = [float(coded.pts * video.time_base) for coded in clip.demux(video) if coded.size and coded.pts is not None]
        assert video.codec_context.name == "h264"
    assert all(earlier < later for earlier, later in itertools.pairwise(times))
    assert times[-1] > 4 + 3, "pre-roll and post-roll"
    assert outcome["link"].partition("token=")[2] not in log


@pytest.fixture
def quick(monkeypatch, packets, tmp_path):
    """A demo without the drawing, in this process."""
    monkeypatch.setattr(story, "_encoded_scene", lambda: packets * 6)
    monkeypatch.setattr(scene, "FPS", FPS)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield monkeypatch
    assert list(tmp_path.glob("vigintd-*")) == []


async def test_a_daemon_that_fails_ends_the_demo_with_its_error(quick):
    """What the daemon says is what the user reads."""

    async def fails(settings, *, clock, notifier):
        raise PermanentError("the disk is made of cheese")

    quick.setattr(story, "serve", fails)
    with pytest.raises(PermanentError, match="made of cheese"):
        await run(once=True, as_json=True, out=io.StringIO())


async def test_a_daemon_that_never_gets_ready_is_not_waited_for_for_ever(quick):
    """The wait has an end and a sentence."""

    async def hangs(settings, *, clock, notifier):
        await asyncio.Event().wait()

    quick.setattr(story, "serve", hangs)
    quick.setattr(story, "READY_S", 0.1)
    with pytest.raises(story.DemoFailed, match=r"not ready within 0\.1 s"):
        await run(once=True, as_json=False, out=io.StringIO())


async def test_a_mail_that_never_comes_is_said_with_what_is_known(quick):
    """A real daemon that sees nothing move: the sentence names its camera's state."""
    quick.setattr(story, "MAIL_S", 3)
    with pytest.raises(story.DemoFailed, match=r"no mail with a link came within 3 s; 0 incidents, camera entree is live"):
        await run(once=True, as_json=False, out=io.StringIO())


@pytest.mark.parametrize("once", [True, False])
async def test_a_daemon_that_was_told_to_stop_ends_the_demo(quick, once):
    """Ctrl-C reaches the daemon, which ends in order: quietly for a person, an error for a program that wanted an outcome."""

    async def stops(settings, *, clock, notifier):
        notifier.ready("1 camera")

    quick.setattr(story, "serve", stops)
    if once:
        with pytest.raises(story.DemoFailed, match="stopped before the clip was whole"):
            await run(once=True, as_json=True, out=io.StringIO())
    else:
        await run(once=False, as_json=False, out=io.StringIO())
