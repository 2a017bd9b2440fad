"""`vigintd check`: what is tried, and what is said of it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.cli.streams import STREAM
from vigintd.camera.probe import CameraFacts
from vigintd.cli import check as check_module
from vigintd.cli.advice import figures
from vigintd.cli.check import AT_ONCE, Finding, Probes, State, examine, probe_folders, probe_host
from vigintd.config import Settings, SpoolSettings, load
from vigintd.errors import DetectorError, HostRefused, HostUnavailable, MailRefused, MailUnavailable, PermanentError, StreamLost

Probe = Callable[..., Awaitable[Any]]

TOLD = "h264 1280x720, 25 fps, a key frame every 2 s, 4 Mbit/s, pre-roll 10 s"


def answers(found: object) -> Probe:
    async def probe(*_: object) -> object:
        return found

    return probe


def fails(error: Exception) -> Probe:
    async def probe(*_: object) -> object:
        raise error

    return probe


@contextmanager
def as_nobody(*folders: Path) -> Iterator[None]:
    """Be a user without rights where the tests run as root; the last of `folders` is closed, those before are open."""
    folders[-1].chmod(0)
    for folder in folders[:-1]:
        folder.chmod(0o777)
    uid = os.geteuid()
    if uid == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(uid)
        folders[-1].chmod(0o700)


GOOD = Probes(
    camera=answers(CameraFacts(STREAM, None)),
    detector=answers("motion"),
    folders=answers("can be written"),
    host=answers("listens"),
    mail=answers("STARTTLS"),
)


@pytest.fixture
def settings(config):
    linkhost = '{"public_url": "https://videos.exemple.fr", "trusted_proxies": ["127.0.0.1"]}'
    return load(config, environ={"VIGINTD_LINKHOST": linkhost})


async def of(what: str, settings: Settings, **probes: Any) -> Finding:
    findings = await examine(settings, replace(GOOD, **probes))
    return next(finding for finding in findings if finding.what.startswith(what))


async def test_everything_that_is_configured_is_tried(settings):
    """In the order of the file, with what was found."""
    assert await examine(settings, GOOD) == [
        Finding("configuration", State.OK, "no fault"),
        Finding("folders", State.OK, "can be written"),
        Finding("camera entree", State.OK, TOLD, facts=figures(settings.cameras["entree"], CameraFacts(STREAM, None))),
        Finding("detector mouvement of entree", State.OK, "motion"),
        Finding("host linkhost", State.OK, "listens"),
        Finding("mail server localhost", State.OK, "STARTTLS"),
    ]


@pytest.mark.parametrize(
    ("what", "probe", "error", "todo"),
    [
        ("camera", "camera", StreamLost("x", reason="frozen"), "restart the camera"),
        ("camera", "camera", StreamLost("x", reason="no_video"), "switch the video of this stream on"),
        ("camera", "camera", StreamLost("x", reason="vanished"), "see to the camera's power supply"),
        ("camera", "camera", StreamLost("x", reason="redirects"), "write the address where the stream really is"),
        (
            "camera",
            "camera",
            StreamLost("x", reason="refused"),
            "see that the camera is on and reachable from here, and that cameras.entree.url",
        ),
        (
            "camera",
            "camera",
            StreamLost("x", reason="unauthorized"),
            "set cameras.entree.username and its password (as a credential, cameras__e",
        ),
        ("camera", "camera", StreamLost("x", reason="not_found"), "correct the path in cameras.entree.url"),
        ("camera", "camera", StreamLost("x", reason="garbage"), "choose H.264"),
        ("detector", "detector", DetectorError("x"), "correct [detectors.mouvement]"),
        ("folders", "folders", PermanentError("x"), "correct state_dir or runtime_dir"),
        ("host", "host", PermanentError("x"), "correct linkhost.listen"),
        ("mail", "mail", MailUnavailable("x"), "correct mail.server, mail.port and mail.security"),
        ("mail", "mail", MailRefused("x"), "ask who runs the mail server what its answer means"),
    ],
)
async def test_what_fails_comes_with_advice(settings, what, probe, error, todo):
    """It names the key to look at."""
    finding = await of(what, settings, **{probe: fails(error)})
    assert (finding.state, finding.result) == (State.FAILED, "x")
    assert finding.todo.startswith(todo)


@pytest.mark.parametrize(
    "sentence",
    [
        'the mail server h:25 offers no STARTTLS, and nothing was sent in the clear: write security = "tls"',
        "the mail server h:25 offers no log-in that vigintd knows: leave mail.username and mail.password out",
        "the mail server h:25 refused the user name or password (535 no): check mail.username and the credential",
        "the mail server h:25 refused the sender a@b (550 no): use the account's own address as mail.sender",
    ],
)
async def test_an_error_that_advises_already_is_not_contradicted(settings, sentence):
    """One thing to do, where it is said best."""
    assert await of("mail", settings, mail=fails(MailRefused(sentence))) == Finding(
        "mail server localhost", State.FAILED, sentence
    )


async def test_an_authority_that_cannot_be_read_is_the_key_to_correct(settings):
    """Not the server's address."""
    error = MailUnavailable("mail.ca_file /x.pem is no readable PEM file: No such file or directory")
    assert (await of("mail", settings, mail=fails(error))).todo == "correct mail.ca_file"


@pytest.mark.parametrize(("error", "todo"), [(HostRefused("x"), "give the key"), (HostUnavailable("x"), "correct publish.url")])
async def test_a_host_elsewhere_has_its_own_advice(config, error, todo):
    """The key, or the address."""
    environ = {"VIGINTD_PUBLISH__HOST": "tus", "VIGINTD_PUBLISH__URL": "https://h", "VIGINTD_PUBLISH__API_KEY": "k3y"}
    finding = await of("host tus", load(config, environ=environ), host=fails(error))
    assert finding.todo.startswith(todo)


async def test_no_secret_is_in_a_result(settings):
    """Whatever the libraries below put into their errors."""
    for error in (StreamLost("'rtsp://admin:hunter2@h/x'", reason="ended"), OSError("'rtsp://admin:hunter2@h/x'")):
        finding = await of("camera", settings, camera=fails(error))
        assert "rtsp://***@h/x" in finding.result


async def test_one_probes_fault_does_not_hide_what_the_others_found(settings):
    """It is told as ours."""
    findings = await examine(settings, replace(GOOD, mail=fails(RuntimeError("boom"))))
    assert findings[-1] == Finding(
        "mail server localhost", State.FAILED, "RuntimeError: boom", "report this; it is a fault in vigintd"
    )
    assert [finding.state for finding in findings[:-1]] == [State.OK] * 5


async def test_a_probe_that_hangs_is_left_behind(settings):
    """The table comes all the same."""

    async def hangs(*_):
        await asyncio.Event().wait()

    findings = await examine(settings, replace(GOOD, camera=hangs), patience_s=0.01)
    assert findings[2] == Finding(
        "camera entree", State.FAILED, "no answer within 0.01 s", "see whether it can be reached from here at all"
    )


async def test_cameras_are_tried_at_once_but_not_all(settings):
    """Sixty-four cameras are eight at a time."""
    cameras = {f"c{number}": settings.cameras["entree"] for number in range(64)}
    under_way, most = 0, 0

    async def camera(_name, _settings):
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0)
        under_way -= 1
        return CameraFacts(STREAM, None)

    findings = await examine(settings.model_copy(update={"cameras": cameras}), replace(GOOD, camera=camera))
    assert sum(finding.result == TOLD for finding in findings) == 64
    assert 1 < most <= AT_ONCE


async def test_what_works_but_is_hardly_meant_is_noted(config):
    """Links that only this machine opens, and a camera that nobody watches."""
    settings = load(config, environ={"VIGINTD_CAMERAS__ENTREE__DETECTORS": "[]"})
    notes = [finding for finding in await examine(settings, GOOD) if finding.state is State.NOTE]
    assert [note.what for note in notes] == ["camera entree", "links"]
    assert "nobody but this machine can open them" in notes[1].result


async def test_advice_on_a_camera_stands_below_it(settings):
    """As a note: it works."""
    facts = CameraFacts(replace(STREAM, codec="hevc"), None)
    found = await examine(settings, replace(GOOD, camera=answers(facts)))
    assert [(finding.what, finding.state) for finding in found[2:5]] == [
        ("camera entree", State.OK),
        ("camera entree", State.NOTE),
        ("detector mouvement of entree", State.OK),
    ]
    assert found[3].todo == "choose H.264 in the camera's own settings"


class TestBuiltInHost:
    @pytest.fixture
    def taken(self):
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            yield listener.getsockname()[1]

    @staticmethod
    def at(settings: Settings, **linkhost: str) -> Settings:
        return settings.model_copy(update={"linkhost": settings.linkhost.model_copy(update=linkhost)})

    async def test_an_address_that_is_free(self, settings, taken, short_path):
        """Nothing is left behind."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        assert await probe_host(self.at(settings, listen=f"127.0.0.1:{port}")) == f"can listen on 127.0.0.1:{port}"

    async def test_an_address_that_is_taken(self, settings, taken):
        """By another program."""
        with pytest.raises(PermanentError, match=f"cannot listen on 127.0.0.1:{taken}: another program listens there"):
            await probe_host(self.at(settings, listen=f"127.0.0.1:{taken}"))

    async def test_an_address_of_another_machine(self, settings):
        """192.0.2.0/24 is nobody's (RFC 5737)."""
        with pytest.raises(PermanentError, match="this machine has no such address"):
            await probe_host(self.at(settings, listen="192.0.2.1:8443"))

    async def test_a_daemon_that_runs_already(self, settings, daemon):
        """It holds the address, and that is right."""
        assert await probe_host(settings) == "a vigintd runs here and serves it"


class TestFolders:
    async def test_folders_that_can_be_made(self, settings, short_path):
        """Nothing is left behind."""
        settings = settings.model_copy(update={"spool": SpoolSettings(keep_free_mb=0)})
        found = await probe_folders(settings)
        assert found.startswith(f"{short_path}/state and {short_path}/state/run can be written; ")
        assert re.search(r"\d GB are free, of which 0\.0 stay free$", found)
        assert not settings.state_dir.exists()

    @pytest.mark.parametrize("key", ["state_dir", "runtime_dir"])
    async def test_a_folder_that_cannot_be(self, settings, config, key):
        """Told with the key that names it, and with what stands in its way."""
        with pytest.raises(PermanentError, match=rf"{config}/x: {config} is no folder; set {key}"):
            await probe_folders(settings.model_copy(update={"runtime_dir": config.parent, key: config / "x"}))

    @pytest.mark.parametrize("key", ["state_dir", "runtime_dir"])
    async def test_a_folder_that_this_user_may_not_look_into(self, settings, short_path, key):
        """A sentence, and what to do; the nearest folder that can be seen is asked."""
        closed = short_path / "closed"
        (closed / "x").mkdir(parents=True)
        settings = settings.model_copy(update={"runtime_dir": short_path, key: closed / "x"})
        with as_nobody(short_path, closed), pytest.raises(PermanentError) as caught:
            await probe_folders(settings)
        told = f"{closed}/x: this user may not write there; run check as root (sudo), or set {key}"
        assert str(caught.value) == told
        finding = await of("folders", settings, folders=fails(caught.value))
        assert (finding.result, finding.todo) == (told, "")

    async def test_a_runtime_folder_whose_name_is_too_long_for_a_socket(self, settings, short_path):
        """Told before the daemon fails on it, once."""
        settings = settings.model_copy(update={"runtime_dir": short_path / ("x" * 100)})
        finding = await of("folders", settings, folders=probe_folders)
        assert finding.state is State.FAILED
        assert finding.result.endswith("set runtime_dir to a shorter folder")
        assert finding.todo == ""

    async def test_a_daemon_that_runs_already(self, settings, daemon):
        """Who asks need not be able to write there."""
        settings = settings.model_copy(update={"spool": SpoolSettings(keep_free_mb=0)})
        assert (await probe_folders(settings)).startswith("a vigintd runs here and uses them; ")

    async def test_a_disk_on_which_nothing_would_be_recorded(self, settings):
        """Told before the first incident is, with what is kept free."""
        settings = settings.model_copy(update={"spool": SpoolSettings(keep_free_mb=1e9)})
        finding = await of("folders", settings, folders=probe_folders)
        assert finding.state is State.FAILED
        assert "the disk is full" in finding.result
        assert finding.result.endswith("; make room there: nothing would be recorded (see spool.keep_free_mb)")
        assert finding.todo == ""


class TestCommand:
    @pytest.fixture
    def tries_with(self, monkeypatch):
        return lambda probes: monkeypatch.setattr(check_module, "real_probes", lambda: probes)

    def test_all_is_well(self, vigintd, config, tries_with):
        """A row for each thing, and 0."""
        tries_with(GOOD)
        done = vigintd("check", "--config", config)
        assert done.exit_code == 0
        assert re.search(r"camera entree +✓ ok +h264 1280x720", done.stdout)
        assert re.search(r"links +! note", done.stdout)

    def test_something_fails(self, vigintd, config, tries_with):
        """What, why and what to do on one row, and 1; no blanks at the ends of rows."""
        tries_with(replace(GOOD, camera=fails(StreamLost("[b]camera entree: nothing listens there", reason="refused"))))
        done = vigintd("check", "--config", config)
        assert done.exit_code == 1
        assert re.search(
            r"camera entree +✗ failed +\[b\]camera entree: nothing listens there +see that the camera is on", done.stdout
        )
        assert not re.search(r" $", done.stdout, re.MULTILINE)

    @pytest.mark.parametrize("columns", [40, 80, 99, 100, 120])
    def test_nothing_is_cut_on_a_narrow_terminal(self, vigintd, config, tries_with, columns):
        """Below 100 columns each finding is a line, and what to do another; the longest word is whole somewhere."""
        path = "/srv/" + "x" * 90
        tries_with(replace(GOOD, folders=fails(PermanentError(f"{path}: no folder"))))
        done = vigintd("check", "--config", config, env={"COLUMNS": str(columns)})
        assert "…" not in done.stdout
        assert all(len(line) <= columns for line in done.stdout.splitlines())
        assert done.stdout.count("x") >= 90
        lines = columns < 100
        assert ("✗ failed folders:" in done.stdout) is lines
        assert ("  → correct state_dir or runtime_dir\n" in done.stdout) is lines
        assert ("what to do" in done.stdout) is not lines

    def test_in_json(self, vigintd, config, tries_with):
        """The same for a program."""
        tries_with(replace(GOOD, mail=fails(MailUnavailable("no answer"))))
        done = vigintd("check", "--json", "--config", config)
        answer = json.loads(done.stdout)
        assert (done.exit_code, answer["ok"]) == (1, False)
        assert answer["findings"][5] == {
            "what": "mail server localhost",
            "state": "failed",
            "result": "no answer",
            "todo": "correct mail.server, mail.port and mail.security, and see that this machine may reach it",
        }

    def test_a_cameras_figures_are_for_programs(self, vigintd, config, tries_with):
        """Beside the sentence, and nothing of the kind where there are none."""
        tries_with(GOOD)
        found = json.loads(vigintd("check", "--json", "--config", config).stdout)["findings"]
        assert found[2]["facts"] == {
            "main": {
                "url_number": 1,
                "codec": "h264",
                "width_px": 1280,
                "height_px": 720,
                "fps": 25.0,
                "gop_s": 2.0,
                "looked_s": 4.0,
                "bits_per_s": 4_000_000,
                "sound": None,
            },
            "detect": None,
            "pre_roll_s": 10,
        }
        assert "facts" not in found[1]

    def test_it_really_tries(self, vigintd, config):
        """With the real probes: nobody is a camera or a mail server here, and the detector is there."""
        done = vigintd("check", "--json", "--config", config, env={"VIGINTD_MAIL__PORT": "9"})
        found = {finding["what"]: finding for finding in json.loads(done.stdout)["findings"]}
        assert done.exit_code == 1
        assert "nothing listens there" in found["camera entree"]["result"]
        assert found["detector mouvement of entree"]["state"] == "ok"
        assert found["mail server localhost"]["state"] == "failed"
        assert "hunter2" not in done.output
