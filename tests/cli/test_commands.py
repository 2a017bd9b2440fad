"""What a person sees who types a command, rightly or wrongly."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from tests.cli.conftest import INCIDENT
from vigintd import __version__
from vigintd.cli.ending import CannotWrite
from vigintd.config import load
from vigintd.errors import PermanentError
from vigintd.model import Risk

ID = str(INCIDENT["id"])


@pytest.fixture
def serve(monkeypatch):
    """Stands in for the daemon; answers a function that sets what it does."""
    module = ModuleType("vigintd.daemon")
    served: list[tuple[object, object]] = []

    def does(action: Callable[[], None] = lambda: None) -> list[tuple[object, object]]:
        async def serve(settings: object, *, clock: object) -> None:
            served.append((settings, clock))
            action()

        vars(module)["serve"] = serve
        return served

    does()
    monkeypatch.setitem(sys.modules, "vigintd.daemon", module)
    return does


def raises(error: BaseException) -> Callable[[], None]:
    def action() -> None:
        raise error

    return action


class TestMistakes:
    @pytest.mark.parametrize(
        ("words", "sentence"),
        [
            (["chek"], "No such command 'chek'. Did you mean 'check'?"),
            (["incidents", "lst"], "No such command 'lst'."),
            (["trigger"], "Missing argument 'CAMERA'."),
            (["trigger", "entree", "--risk", "severe"], "'--risk': 'severe' is not one of"),
            (["trigger", "entree", "--confidence", "1.5"], "'--confidence': Input should be less than or equal to 1"),
            (["trigger", "entree", "--confidence", "much"], "'--confidence': Input should be a valid number"),
            (["incidents", "list", "--limit", "0"], "'--limit': Input should be greater than or equal to 1"),
            (["incidents", "show"], "Missing argument 'ID'."),
            (["run", "--log-format", "xml"], "'--log-format': 'xml' is not one of"),
            (["run", "--log-level", "loud"], "'--log-level': 'loud' is not one of"),
            (["demo", "--config", "x.toml"], "the demo needs no configuration"),
            (["check", "--jsn"], "No such option: --jsn"),
        ],
    )
    def test_wrong_usage_is_2(self, vigintd, words, sentence):
        """With the slip named on stderr."""
        done = vigintd(*words)
        assert done.exit_code == 2
        assert sentence in done.stderr
        assert done.stdout == ""

    @pytest.mark.parametrize(
        "words", [["run"], ["check"], ["trigger", "entree"], ["incidents", "list"], ["incidents", "show", ID]], ids=" ".join
    )
    def test_a_missing_configuration_is_78(self, vigintd, words, tmp_path):
        """The file is named, and what to do."""
        done = vigintd(*words, "--config", tmp_path / "absent.toml")
        assert done.exit_code == 78
        advice = "there is no such file; name one with --config, or copy vigintd.toml.example there"
        assert done.stderr == f"vigintd: {tmp_path}/absent.toml: {advice}\n"

    @pytest.mark.parametrize("words", [["run"], ["check"], ["trigger", "entree"], ["incidents", "list"]], ids=" ".join)
    def test_a_configuration_that_only_root_can_read_is_78(self, vigintd, words, config, monkeypatch):
        """In the reader's words, not as wrong usage."""

        def access(*_: object, **__: object) -> bool:
            return False

        def refused(_path: Path) -> bytes:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

        monkeypatch.setattr(os, "access", access)
        monkeypatch.setattr(Path, "read_bytes", refused)
        done = vigintd(*words, "--config", config)
        assert done.exit_code == 78
        assert done.stderr == f"vigintd: {config}: cannot be read: Permission denied; run it as root (sudo)?\n"

    @pytest.mark.parametrize("command", ["run", "check"])
    def test_a_broken_configuration_is_78_and_told_whole(self, vigintd, broken, command):
        """A line for each fault, with file and key, and no password."""
        done = vigintd(command, "--config", broken)
        assert done.exit_code == 78
        lines = done.stderr.splitlines()
        assert all(line.startswith(f"vigintd: {broken}: ") for line in lines)
        keys = {line.split(": ")[2] for line in lines}
        assert keys == {"langage", "cameras.entree.url", "mail.server", "mail.sender", "mail.recipients"}
        assert "hunter2" not in done.output

    def test_check_tells_faults_in_json_too(self, vigintd, broken):
        """For a program that set the box up."""
        done = vigintd("check", "--json", "--config", broken)
        assert done.exit_code == 78
        answer = json.loads(done.stdout)
        assert answer["ok"] is False
        assert {"where": str(broken), "key": "mail.sender", "problem": "is required"} in answer["faults"]

    @pytest.mark.parametrize("words", [["trigger", "entree"], ["incidents", "list"], ["incidents", "show", ID]], ids=" ".join)
    def test_without_a_daemon_it_is_1(self, vigintd, config, words):
        """And the user reads how to start one."""
        done = vigintd(*words, "--config", config)
        assert done.exit_code == 1
        assert done.stderr.startswith("vigintd: no vigintd runs here: nobody listens at ")
        assert "start it with: vigintd run" in done.stderr

    def test_a_wrong_camera_is_1(self, vigintd, config, daemon):
        """With the cameras that there are."""
        done = vigintd("trigger", "entré", "--config", config)
        assert (done.exit_code, done.stderr) == (1, "vigintd: no camera is called 'entré'; there are: entree\n")

    def test_a_wrong_incident_is_1(self, vigintd, config, daemon):
        """With the command that shows the right ones."""
        done = vigintd("incidents", "show", "42", "--config", config)
        assert (done.exit_code, done.stderr) == (1, "vigintd: there is no incident 42; see: vigintd incidents list\n")


class TestAsking:
    def test_version(self, vigintd):
        """One line."""
        assert vigintd("--version").stdout == f"vigintd {__version__}\n"

    def test_help_names_every_command(self, vigintd):
        """It is the first thing that is typed."""
        told = vigintd("--help").stdout
        assert {"run", "check", "trigger", "demo", "incidents"} <= set(told.split())
        assert "..." not in told.partition("Commands:")[2]
        assert vigintd("-h").stdout == told

    def test_help_of_a_trigger_names_the_risks(self, vigintd):
        """As the alert will say them."""
        told = vigintd("trigger", "-h").stdout
        assert "LOW, MEDIUM, HIGH or UNKNOWN" in told
        assert told == vigintd("trigger", "--help").stdout

    def test_a_trigger_says_which_incident_it_opened_or_extended(self, vigintd, config, daemon):
        """The options arrive; the risk may be typed in any case."""
        words = ["--type", "vol", "--risk", "high", "--confidence", "0.9", "--text", "à gauche"]
        assert vigintd("trigger", "entree", *words, "--config", config).stdout == f"incident {ID} on camera entree opened\n"
        assert daemon.triggered == [("entree", "vol", Risk.HIGH, 0.9, "à gauche")]
        assert vigintd("trigger", "entree", "--config", config).stdout == f"incident {ID} on camera entree extended\n"

    def test_a_trigger_in_json(self, vigintd, config, daemon):
        """For scripts."""
        done = vigintd("trigger", "entree", "--json", "--config", config)
        assert json.loads(done.stdout) == {"incident_id": ID, "camera": "entree", "opened": True}
        assert daemon.triggered == [("entree", "trigger", Risk.UNKNOWN, None, "")]

    def test_incidents_as_a_table(self, vigintd, config, daemon):
        """Texts from outside are neither markup nor terminal codes; no blanks at the ends of rows."""
        done = vigintd("incidents", "list", "--config", config)
        assert done.exit_code == 0
        assert [line.split()[0] for line in done.stdout.splitlines()] == ["id", ID[:8], ID[:8]]
        assert "vol à l'étalage [bold]x[/wrong] :tada: \ufffd[31m" in done.stdout
        assert not re.search(r" $", done.stdout, re.MULTILINE)
        assert vigintd("incidents", "list", "--limit", "1", "--config", config).stdout.count(ID[:8]) == 1

    def test_ids_are_as_long_as_they_must_be_to_differ(self, vigintd, config, daemon):
        """What is shown can be typed."""
        daemon.known = [INCIDENT, INCIDENT | {"id": ID[:11] + "f" + ID[12:]}]
        out = vigintd("incidents", "list", "--config", config).stdout
        assert [line.split()[0] for line in out.splitlines()[1:]] == [ID[:12], ID[:11] + "f"]

    @pytest.mark.parametrize("columns", [60, 79, 80, 100])
    def test_incidents_on_a_narrow_terminal(self, vigintd, config, daemon, columns):
        """Two lines each where a row is too long; no column of single letters, and nothing cut, at any width."""
        daemon.known = [INCIDENT | {"camera": "parking-du-personnel", "type": "vol à l'étalage"}] * 2
        out = vigintd("incidents", "list", "--config", config, env={"COLUMNS": str(columns)}).stdout
        assert "…" not in out
        assert all(len(line) <= columns for line in out.splitlines())
        assert len(out.splitlines()) == (3 if columns == 100 else 4)
        assert all(word in out for word in (ID[:8], "HIGH", "published", "vol à l'étalage", "parking-du-personnel"))
        assert out.startswith("id") is (columns == 100)

    def test_a_row_is_one_line_for_a_program(self, vigintd, config, daemon):
        """However long what stands in it."""
        daemon.known = [INCIDENT | {"type": "vol " * 50}]
        assert len(vigintd("incidents", "list", "--config", config).stdout.splitlines()) == 2

    def test_no_incident_yet(self, vigintd, config, daemon, monkeypatch):
        """A sentence, not an empty table."""

        async def none(_limit):
            return []

        monkeypatch.setattr(daemon, "incidents", none)
        assert vigintd("incidents", "list", "--config", config).stdout == "no incident yet\n"

    def test_an_incident_line_by_line(self, vigintd, config, daemon):
        """Every key that the daemon answers, also one that this command does not know."""
        out = vigintd("incidents", "show", ID, "--config", config).stdout
        assert [line.split()[0] for line in out.splitlines()] == [key for key in INCIDENT if key != "effects"]
        assert f"index 0, sha256 {'ab' * 32}" in out

    def test_an_incident_by_the_beginning_of_its_id(self, vigintd, config, daemon):
        """As the table shows it, in either case; a sentence where several begin so."""
        other = INCIDENT | {"id": ID[:4] + "0000" + ID[8:]}
        daemon.known = [INCIDENT, other]
        assert json.loads(vigintd("incidents", "show", ID[:8].upper(), "--json", "--config", config).stdout) == INCIDENT
        done = vigintd("incidents", "show", ID[:4], "--config", config)
        sentence = f"2 incidents begin with {ID[:4]}: {other['id']}, {ID}; write more of the id"
        assert (done.exit_code, done.stderr) == (1, f"vigintd: {sentence}\n")
        assert vigintd("incidents", "show", "", "--config", config).exit_code == 1

    def test_incidents_in_json(self, vigintd, config, daemon):
        """As the daemon says them."""
        assert json.loads(vigintd("incidents", "list", "--json", "--config", config).stdout)[0] == INCIDENT
        assert json.loads(vigintd("incidents", "show", ID, "--json", "--config", config).stdout) == INCIDENT


class TestRun:
    def test_it_serves_the_settings_until_the_daemon_returns(self, vigintd, config, serve):
        """And is done."""
        done = vigintd("run", "--config", config)
        assert (done.exit_code, done.output) == (0, "")
        ((settings, _clock),) = serve()
        assert settings == load(config)

    def test_what_keeps_it_from_starting_is_a_sentence(self, vigintd, config, serve):
        """Also where several things are."""
        serve(raises(ExceptionGroup("", [PermanentError("one thing"), ExceptionGroup("", [PermanentError("another")])])))
        done = vigintd("run", "--config", config)
        assert done.exit_code == 1
        assert "vigintd: one thing\nvigintd: another\n" in done.stderr

    def test_a_fault_of_its_own_leaves_its_traceback_in_the_log_alone(self, vigintd, config, serve):
        """Redacted, on one line; the user reads a sentence."""
        serve(raises(RuntimeError("cannot open rtsp://admin:hunter2@127.0.0.1:9/main")))
        done = vigintd("run", "--log-format", "json", "--config", config)
        assert done.exit_code == 1
        logged, said = done.stderr.splitlines()
        assert "Traceback" in json.loads(logged)["exception"]
        assert said.startswith("vigintd: RuntimeError: cannot open rtsp://***@127.0.0.1:9/main (action, line ")
        assert "hunter2" not in done.stderr

    def test_a_second_signal_is_130(self, vigintd, config, serve):
        """The daemon was cancelled in its drain."""
        serve(raises(asyncio.CancelledError()))
        done = vigintd("run", "--config", config)
        assert (done.exit_code, done.output) == (130, "")

    def test_a_slip_in_the_failpoints_is_told(self, vigintd, config, serve):
        """It would prove nothing otherwise."""
        done = vigintd("run", "--config", config, env={"VIGINTD_FAILPOINTS": "mail.sent=kill"})
        assert (done.exit_code, done.stderr) == (1, "vigintd: VIGINTD_FAILPOINTS: unknown failpoint 'mail.sent'\n")
        assert serve() == []


def test_an_answer_that_cannot_be_written_ends_the_demo_with_a_sentence(vigintd, monkeypatch):
    """Also where several of its tasks end at once."""
    module = ModuleType("vigintd.demo")

    async def run(*, once, as_json, out):
        raise ExceptionGroup("", [ExceptionGroup("", [CannotWrite(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))])])

    vars(module)["run"] = run
    monkeypatch.setitem(sys.modules, "vigintd.demo", module)
    done = vigintd("demo")
    assert (done.exit_code, done.stderr) == (1, "vigintd: cannot write the answer: No space left on device\n")


def test_the_demo_is_run_as_asked(vigintd, monkeypatch):
    """Its output goes where the command's goes."""
    module = ModuleType("vigintd.demo")

    async def run(*, once, as_json, out):
        out.write(f"{once} {as_json}\n")

    vars(module)["run"] = run
    monkeypatch.setitem(sys.modules, "vigintd.demo", module)
    assert vigintd("demo", "--once", "--json").stdout == "True True\n"
    assert vigintd("demo").stdout == "False False\n"


class TestProcess:
    """Real processes, for what only they show."""

    def test_a_broken_configuration(self, broken):
        """78, faults on stderr, nothing on stdout, no traceback."""
        done = subprocess.run(
            [sys.executable, "-m", "vigintd", "check", "-c", broken], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout) == (78, "")
        assert len(done.stderr.splitlines()) == 5
        assert "Traceback" not in done.stderr

    def test_help_loads_nothing_that_is_slow(self):
        """Neither settings nor numbers nor network."""
        code = (
            "import sys, vigintd.cli; print(*sorted({'pydantic', 'numpy', 'aiohttp', 'structlog', 'av'} & sys.modules.keys()))"
        )
        assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"

    def test_a_reader_that_has_seen_enough(self, config, daemon):
        """`vigintd incidents list | head` says nothing of broken pipes."""
        reading, writing = os.pipe()
        os.close(reading)
        done = subprocess.run(
            [sys.executable, "-m", "vigintd", "incidents", "list", "-c", config],
            stdout=writing,
            stderr=subprocess.PIPE,
            check=False,
        )
        os.close(writing)
        assert (done.returncode, done.stderr) == (141, b"")

    @pytest.mark.parametrize(
        ("words", "unbuffered"),
        [("--help", ""), ("--version", "1"), ("incidents list", ""), ("check --json", "1"), ("check", "")],
    )
    @pytest.mark.parametrize("where", [">/dev/full", ">&-"])
    def test_an_answer_that_cannot_be_written(self, config, daemon, words, unbuffered, where):
        """A full disk or a closed stdout is one sentence, and 1; no traceback, also not at the interpreter's end."""
        reason = {">/dev/full": "No space left on device", ">&-": "Bad file descriptor"}[where]
        words += "" if words.startswith("-") else f" -c {config}"
        done = self.shell(f"{words} {where}", PYTHONUNBUFFERED=unbuffered)
        assert (done.returncode, done.stderr) == (1, f"vigintd: cannot write the answer: {reason}\n")

    @pytest.mark.parametrize("where", ["2>/dev/full", "2>&-"])
    def test_a_sentence_that_cannot_be_written(self, broken, where):
        """The exit code still tells."""
        done = self.shell(f"check -c {broken} {where}")
        assert (done.returncode, done.stdout, done.stderr) == (78, "", "")

    @pytest.mark.parametrize("words", ["check", "incidents list"])
    def test_a_terminal_that_knows_few_characters(self, config, daemon, words):
        """What it cannot show becomes a question mark."""
        done = self.shell(f"{words} -c {config}", PYTHONIOENCODING="ascii")
        assert (done.returncode, done.stderr) == (0 if "list" in words else 1, "")
        assert done.stdout.isascii()
        assert "?" in done.stdout

    def test_help_for_a_reader_that_has_seen_enough(self):
        """Silence, as for every other answer."""
        reading, writing = os.pipe()
        os.close(reading)
        done = subprocess.run([sys.executable, "-m", "vigintd", "--help"], stdout=writing, stderr=subprocess.PIPE, check=False)
        os.close(writing)
        assert (done.returncode, done.stderr) == (141, b"")

    @staticmethod
    def shell(words: str, **environ: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            f"{shlex.quote(sys.executable)} -m vigintd {words}",
            shell=True,
            env=os.environ | environ,
            capture_output=True,
            text=True,
            check=False,
        )

    def test_control_c(self, config):
        """130, and silence."""
        path = config.parent / "state" / "run" / "control.sock"
        path.parent.mkdir(parents=True)
        with socket.socket(socket.AF_UNIX) as mute:
            mute.bind(str(path))
            mute.listen()
            mute.settimeout(30)
            asking = subprocess.Popen(
                [sys.executable, "-m", "vigintd", "trigger", "entree", "-c", config],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            connection, _ = mute.accept()
            with connection:
                connection.recv(1024)
                asking.send_signal(signal.SIGINT)
                assert asking.communicate(timeout=30) == (b"", b"")
            assert asking.returncode == 130
