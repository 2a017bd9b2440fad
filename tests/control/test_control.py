"""The control socket, from both ends and from strangers."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
from collections.abc import AsyncIterator

import aiohttp
import pytest

from vigintd.control import requests
from vigintd.control import server as server_module
from vigintd.control.client import ControlClient, Triggered
from vigintd.control.server import ControlServer
from vigintd.errors import ControlError, PermanentError, TransientError
from vigintd.model import Risk

INCIDENT = {"id": "0d9f5e4e-1111-4222-8333-444455556666", "camera": "entree", "type": "vol à l'étalage"}


class Daemon:
    """Handlers that remember what they were asked and fail as told."""

    def __init__(self) -> None:
        self.triggered: list[tuple[object, ...]] = []
        self.retried: list[str | None] = []
        self.error = None
        self.stuck = False

    async def trigger(self, camera, *, type, risk, confidence, text):  # noqa: A002
        if self.stuck:
            await asyncio.Event().wait()
        if self.error:
            raise self.error
        if camera != "entree":
            raise ControlError(f"no camera is called {camera!r}; there are: entree")
        self.triggered.append((camera, type, risk, confidence, text))
        return {"incident_id": INCIDENT["id"], "opened": len(self.triggered) == 1}

    async def incidents(self, limit):
        return [INCIDENT] * min(limit, 3)

    async def owing(self, limit):
        return [INCIDENT | {"state": "closed"}] * min(limit, 1)

    async def retry(self, incident_id):
        if incident_id not in (None, INCIDENT["id"]):
            return None
        self.retried.append(incident_id)
        return [{"incident_id": INCIDENT["id"], "kind": "alert"}]

    async def incident(self, incident_id):
        return INCIDENT if incident_id == INCIDENT["id"] else None

    async def status(self):
        return {"cameras": {}}


@pytest.fixture
def path(short_path):
    return short_path / "run" / "control.sock"


@pytest.fixture
def daemon():
    return Daemon()


@pytest.fixture
async def server(path, daemon):
    server = ControlServer(path, daemon)
    await server.start()
    yield server
    await server.aclose()


@pytest.fixture
def client(server, path):
    return ControlClient(path)


@pytest.fixture
async def raw(server, path):
    """Questions as a stranger asks them: answers status and JSON."""
    async with aiohttp.ClientSession("http://vigintd", connector=aiohttp.UnixConnector(str(path))) as session:

        async def ask(method, path, **how):
            async with session.request(method, path, **how) as response:
                return response.status, json.loads(await response.read())

        yield ask


class TestAsking:
    async def test_a_trigger_arrives_as_it_was_given(self, client, daemon):
        """And its answer is the incident's id, and whether that was opened or extended."""
        told = await client.trigger("entree", type="vol", risk=Risk.HIGH, confidence=0.9, text="à gauche")
        assert told == Triggered(INCIDENT["id"], opened=True)
        assert daemon.triggered == [("entree", "vol", Risk.HIGH, 0.9, "à gauche")]
        assert await client.trigger("entree") == Triggered(INCIDENT["id"], opened=False)

    async def test_a_trigger_needs_the_camera_only(self, client, daemon):
        """The rest has defaults."""
        await client.trigger("entree")
        assert daemon.triggered == [("entree", "trigger", Risk.UNKNOWN, None, "")]

    async def test_an_unknown_camera_is_the_daemons_to_refuse(self, client):
        """Its sentence reaches the user."""
        with pytest.raises(ControlError, match="no camera is called 'entré'; there are: entree"):
            await client.trigger("entré")

    async def test_incidents_are_listed_and_shown(self, client):
        """An incident that there is not is None; so is an id that is no id."""
        assert await client.incidents(2) == [INCIDENT, INCIDENT]
        assert await client.incident(INCIDENT["id"]) == INCIDENT
        assert await client.incident("../status?x#y") is None
        assert await client.status() == {"cameras": {}}

    async def test_an_incident_is_found_by_the_beginning_of_its_id(self, client, daemon, monkeypatch):
        """Where only one begins so; the same one listed twice is one."""
        assert await client.incident_like("0d9F5e4e") == INCIDENT
        assert await client.incident_like("1") is None
        assert await client.incident_like("") is None

        async def several(_limit):
            return [{"id": f"0d{number}"} for number in range(5)]

        monkeypatch.setattr(daemon, "incidents", several)
        monkeypatch.setattr(daemon, "owing", several)
        with pytest.raises(ControlError, match="5 incidents begin with 0d: 0d0, 0d1, 0d2, …; write more of the id"):
            await client.incident_like("0d")

    async def test_what_is_owed_is_listed_apart(self, client):
        assert await client.incidents(5, owed=True) == [INCIDENT | {"state": "closed"}]

    async def test_one_incident_is_retried_or_all_are(self, client, daemon):
        """What is tried again is answered; one that there is not is refused."""
        assert await client.retry(INCIDENT["id"]) == [{"incident_id": INCIDENT["id"], "kind": "alert"}]
        assert len(await client.retry(None)) == 1
        assert daemon.retried == [INCIDENT["id"], None]
        with pytest.raises(ControlError, match="there is no such incident"):
            await client.retry("42")

    async def test_many_ask_at_once(self, client):
        """Each question has a connection of its own."""
        assert len(await asyncio.gather(*(client.trigger("entree") for _ in range(50)))) == 50


class TestRefusals:
    @pytest.mark.parametrize(
        ("body", "sentence"),
        [
            (b"", "not JSON"),
            (b"{", "not JSON"),
            (b"[" * 60_000, "not JSON"),
            (b"[]", "an object of"),
            (b'{"camera": "entree", "colour": 1}', "an object of"),
            (b"{}", "camera is"),
            (b'{"camera": 1}', "camera is"),
            (b'{"camera": "entree", "type": ""}', "type is"),
            (b'{"camera": "entree", "type": "%s"}' % (b"x" * 201), "type is"),
            (b'{"camera": "entree", "risk": "high"}', "risk is one of LOW, MEDIUM, HIGH, UNKNOWN"),
            (b'{"camera": "entree", "risk": ["HIGH"]}', "risk is one of"),
            (b'{"camera": "entree", "confidence": 1.01}', "from 0 to 1"),
            (b'{"camera": "entree", "confidence": NaN}', "from 0 to 1"),
            (b'{"camera": "entree", "confidence": true}', "from 0 to 1"),
            (b'{"camera": "entree", "confidence": "0.5"}', "from 0 to 1"),
            (b'{"camera": "entree", "text": "%s"}' % (b"x" * 10_001), "text has"),
            (b'{"camera": "entree", "text": "\\ud83d"}', "half a character"),
        ],
    )
    async def test_a_trigger_that_means_nothing_is_400(self, raw, daemon, body, sentence):
        """With a sentence that says what is expected, and nothing is triggered."""
        status, answer = await raw("POST", "/trigger", data=body)
        assert status == 400
        assert sentence in answer["error"]
        assert daemon.triggered == []

    @pytest.mark.parametrize(
        ("method", "target", "expected"),
        [
            ("GET", "/nothing", 404),
            ("GET", "/incidents/unknown", 404),
            ("GET", "/trigger", 405),
            ("DELETE", "/incidents", 405),
            ("GET", "/incidents?limit=0", 400),
            ("GET", "/incidents?limit=1001", 400),
            ("GET", "/incidents?limit=99999999999", 400),
            ("GET", "/incidents?limit=-1", 400),
            ("GET", "/incidents?limit=²", 400),
            ("GET", "/incidents?owed=yes", 400),
            ("GET", "/incidents/retry", 404),
            ("POST", "/incidents/unknown/retry", 404),
        ],
    )
    async def test_wrong_questions_are_answered_in_json(self, raw, method, target, expected):
        """Whatever is asked, there is an `error`."""
        status, answer = await raw(method, target)
        assert status == expected
        assert isinstance(answer["error"], str)

    async def test_a_body_beyond_the_bound_is_413(self, raw):
        """Whether its length is announced or not."""

        async def chunks() -> AsyncIterator[bytes]:
            for _ in range(80):
                yield b" " * 1024

        assert (await raw("POST", "/trigger", data=b" " * 70_000))[0] == 413
        assert (await raw("POST", "/trigger", data=chunks()))[0] == 413

    async def test_a_body_that_does_not_arrive_is_408(self, server, path, monkeypatch):
        """Nobody holds a connection by sending nothing."""
        monkeypatch.setattr(requests, "BODY_S", 0.05)
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"POST /trigger HTTP/1.1\r\nHost: vigintd\r\nContent-Length: 20\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 408 ")
        writer.close()

    @pytest.mark.parametrize(
        ("error", "status"),
        [(ControlError("no"), 422), (TransientError("later"), 503), (PermanentError("never"), 500), (RuntimeError("k3y"), 500)],
    )
    async def test_a_failing_handler_is_answered_by_its_kind(self, raw, daemon, error, status):
        """A user's sentence when there is one; nothing of an unforeseen error leaves the daemon."""
        daemon.error = error
        answered = await raw("POST", "/trigger", json={"camera": "entree"})
        assert answered[0] == status
        assert "k3y" not in answered[1]["error"]

    async def test_a_handler_that_hangs_is_504(self, raw, daemon, monkeypatch):
        """The asker is not kept for ever."""
        monkeypatch.setattr(server_module, "HANDLER_S", 0.05)
        daemon.stuck = True
        status, answer = await raw("POST", "/trigger", json={"camera": "entree"})
        assert (status, answer) == (504, {"error": "vigintd took too long to answer; see its log"})


class TestSocket:
    async def test_only_its_owner_can_open_it(self, server, path):
        """0600, in a folder of 0700."""
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700

    async def test_a_folder_that_is_there_keeps_its_mode(self, short_path, daemon):
        """It may be the service manager's, or everybody's."""
        short_path.chmod(0o755)
        server = ControlServer(short_path / "c", daemon)
        await server.start()
        await server.aclose()
        assert stat.S_IMODE(short_path.stat().st_mode) == 0o755

    async def test_it_is_gone_after_closing(self, path, daemon):
        """Closing twice does no harm."""
        server = ControlServer(path, daemon)
        await server.start()
        await server.aclose()
        await server.aclose()
        assert not path.exists()

    async def test_what_a_dead_daemon_left_is_replaced(self, path, daemon):
        """Nobody has to clean up after a crash."""
        path.parent.mkdir()
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(path))
        server = ControlServer(path, daemon)
        await server.start()
        assert await ControlClient(path).status() == {"cameras": {}}
        await server.aclose()

    async def test_a_live_daemon_is_not_pushed_aside(self, server, path, daemon):
        """The second one says so, and the first goes on answering."""
        with pytest.raises(ControlError, match="another vigintd listens here"):
            await ControlServer(path, daemon).start()
        assert await ControlClient(path).status() == {"cameras": {}}

    async def test_a_live_daemon_that_is_too_busy_to_accept_is_live(self, path, daemon):
        """A full queue of callers is still somebody's."""
        path.parent.mkdir()
        with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as first:
            busy.bind(str(path))
            busy.listen(0)
            first.connect(str(path))
            with pytest.raises(ControlError, match="another vigintd"):
                await ControlServer(path, daemon).start()

    async def test_a_file_that_is_no_socket_is_left_alone(self, path, daemon):
        """It may be somebody's."""
        path.parent.mkdir()
        path.write_text("precious")
        with pytest.raises(ControlError, match="there is a file"):
            await ControlServer(path, daemon).start()
        assert path.read_text() == "precious"

    async def test_anothers_socket_is_not_removed_at_the_end(self, path, daemon):
        """Whoever took the place keeps it."""
        first = ControlServer(path, daemon)
        await first.start()
        path.unlink()
        second = ControlServer(path, daemon)
        await second.start()
        await first.aclose()
        assert await ControlClient(path).status() == {"cameras": {}}
        await second.aclose()

    async def test_a_path_too_long_for_a_socket_is_refused_with_advice(self, short_path, daemon):
        """At 108 bytes, counted as the system counts them; 107 do."""
        longest = short_path / ("é" * 40) / "x"
        longest = longest.with_name("x" * (107 - len(os.fsencode(longest.parent)) - 1))
        assert len(os.fsencode(longest)) == 107
        server = ControlServer(longest, daemon)
        await server.start()
        assert await ControlClient(longest).status() == {"cameras": {}}
        await server.aclose()
        too_long = longest.with_name(longest.name + "x")
        with pytest.raises(ControlError, match=r"has 108 bytes.*set runtime_dir to a shorter folder"):
            await ControlServer(too_long, daemon).start()
        with pytest.raises(ControlError, match="set runtime_dir"):
            await ControlClient(too_long).status()

    async def test_a_folder_that_cannot_be_made_is_told(self, short_path, daemon):
        """With the path and the system's reason."""
        (short_path / "file").touch()
        with pytest.raises(ControlError, match=r"file/run/c: the control socket cannot be made: Not a directory"):
            await ControlServer(short_path / "file" / "run" / "c", daemon).start()


class TestNobodyAnswers:
    async def test_no_socket(self, path):
        """The user reads that no vigintd runs, and how to start one."""
        with pytest.raises(
            ControlError, match=r"no vigintd runs here: nobody listens at .*control\.sock; start it with: vigintd run"
        ):
            await ControlClient(path).status()

    async def test_a_dead_socket(self, path):
        """A daemon that crashed is no daemon."""
        path.parent.mkdir()
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(path))
        with pytest.raises(ControlError, match="no vigintd runs here"):
            await ControlClient(path).trigger("entree")

    async def test_a_daemon_that_hangs(self, path):
        """The question has a deadline."""
        path.parent.mkdir()
        with socket.socket(socket.AF_UNIX) as mute:
            mute.bind(str(path))
            mute.listen()
            with pytest.raises(ControlError, match=r"did not answer within 0\.1 s"):
                await ControlClient(path, timeout_s=0.1).status()

    @pytest.mark.parametrize(
        ("answer", "sentence"),
        [
            (b"220 smtp.exemple.fr ESMTP\r\n", "broke off"),
            (b"", "broke off"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "no vigintd"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]", "no vigintd"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", "another version"),
            (b"HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\n{}", "another version"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}", "broke off"),
        ],
    )
    async def test_something_else_that_listens(self, path, answer, sentence):
        """What is not vigintd is called so."""
        path.parent.mkdir()

        async def other(reader, writer):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            writer.close()

        async with await asyncio.start_unix_server(other, path):
            with pytest.raises(ControlError, match=sentence):
                await ControlClient(path).incidents()

    async def test_an_endless_answer_is_not_read_to_its_end(self, path, monkeypatch):
        """Reading stops at the bound."""
        monkeypatch.setattr("vigintd.control.client.MAX_ANSWER_BYTES", 100_000)
        path.parent.mkdir()

        async def endless(reader, writer):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            try:
                while True:
                    writer.write(b" " * 65_536)
                    await writer.drain()
            except ConnectionError:
                writer.close()

        async with await asyncio.start_unix_server(endless, path):
            with pytest.raises(ControlError, match="broke off"):
                await ControlClient(path).incidents()
