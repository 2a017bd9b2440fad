"""`vigintd links`, `vigintd linkhost keys` and `vigintd verify`, against a real link host behind a real control socket."""

from __future__ import annotations

import asyncio
import csv
import hashlib
import io
import json
import sqlite3
import threading
from collections.abc import Coroutine, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.cli.conftest import Answers
from tests.linkhost.client import BASE_URL, CLIP, GUARD, KEY, OTHER_CLIP, Client, inside, path_of
from tests.linkhost.videos import video
from tests.manual_clock import ManualClock
from vigintd.control.server import ControlServer
from vigintd.daemon.link_answers import LinkAnswers
from vigintd.journal import Journal
from vigintd.linkhost import LinkHost

OWNER = "=patron@exemple.fr"
"""Begins as a formula does, and is an address nevertheless."""


@dataclass
class Box:
    """A running link host, its uploader, and its clips."""

    loop: asyncio.AbstractEventLoop
    host: LinkHost
    client: Client
    clock: ManualClock
    state_dir: Path

    def do(self, what: Coroutine[Any, Any, Any]) -> Any:
        """Have something done where the host runs."""
        return asyncio.run_coroutine_threadsafe(what, self.loop).result(20)

    def get(self, path: str, **headers: str) -> Any:
        return self.do(self.client.ask("GET", path, **headers))

    def links(self, clip: str = CLIP) -> list[str]:
        """The paths of the links of both recipients."""
        return [path_of(link) for link in self.do(self.client.create(clip, recipients=[GUARD, OWNER])).json["links"].values()]


@pytest.fixture
def box(config) -> Iterator[Box]:
    """A host with one finished clip for two, on a thread of its own, as a daemon of `config` would have it."""
    state_dir = config.parent / "state"
    loop, stop, clock = asyncio.new_event_loop(), asyncio.Event(), ManualClock()
    started: list[Box] = []
    ready = threading.Event()

    async def serve() -> None:
        host = LinkHost(state_dir / "linkhost", base_url=BASE_URL, api_keys={"vigintd": KEY}, clock=clock)
        async with Journal.open(state_dir / "journal.sqlite3", clock) as journal, aiohttp.ClientSession() as session:
            await host.start(listen=("127.0.0.1", 0), unix_path=None)
            server = ControlServer(state_dir / "run" / "control.sock", Answers(), LinkAnswers(host, journal))
            await server.start()
            client = Client(session, f"http://127.0.0.1:{host.port}")
            await client.publish(video(2), recipients=[GUARD, OWNER])
            started.append(Box(loop, host, client, clock, state_dir))
            ready.set()
            await stop.wait()
            await server.aclose()
            await host.aclose()

    state_dir.mkdir()
    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    assert ready.wait(20)
    yield started[0]
    loop.call_soon_threadsafe(stop.set)
    thread.join()
    loop.close()


@pytest.fixture
def links(vigintd, config, box):
    """Run `vigintd links …` as somebody in UTC."""
    return lambda *words, **how: vigintd("links", *words, "--config", config, **({"env": {"TZ": "UTC"}} | how))


def test_clips_are_listed_with_who_watched(links, box):
    """A row each; in JSON everything; and no token in either."""
    box.get(inside(box.links()[0], "part/0.mp4"))
    box.do(box.client.create(OTHER_CLIP, metadata={"camera": "r\x1b[31m [bold]"}))
    heading, *found = links("list").stdout.splitlines()
    assert heading.split("  ")[0] == "id"
    assert {line.split()[0] for line in found} == {OTHER_CLIP[:8], CLIP[:8]}
    assert "\x1b" not in "".join(found)
    (line,) = [line for line in found if line.startswith(CLIP[:8])]
    assert "entree" in line
    assert "finished" in line
    assert line.endswith("1 of 2")
    told = json.loads(links("list", "--json", "--limit", "5").stdout)
    assert {clip["id"] for clip in told} == {CLIP, OTHER_CLIP}
    assert not any(box.links()[0].partition("token=")[2] in text for text in ("".join(found), json.dumps(told)))


def test_clips_on_a_narrow_terminal(links):
    """Two lines instead of a row that is too long."""
    out = links("list", env={"TZ": "UTC", "COLUMNS": "40"}).stdout
    assert all(len(line) <= 40 for line in out.splitlines())
    assert "watched by 0 of 2" in " ".join(out.split())


def test_a_clip_is_shown_with_who_came(links, box):
    """Each visit with what was fetched and what speaks for and against a person; the token nowhere."""
    link = box.links()[0]
    box.do(box.clock.advance(600))
    box.get(link, User_Agent="Mozilla/5.0 (Windows NT 10.0) Firefox/127.0", Sec_Fetch_User="?1")
    box.get(inside(link, "part/0.mp4"), User_Agent="Mozilla/5.0 (Windows NT 10.0) Firefox/127.0", Range="bytes=0-")
    box.get(link, User_Agent="curl/8")
    out = links("show", CLIP[:6]).stdout
    lines = out.splitlines()
    play = next(line for line in lines if line.startswith("play"))
    probe = next(line for line in lines if line.startswith("probe"))
    assert f"{GUARD}, 100% of the clip, Firefox, Windows at 127.0.0.0/24: perhaps a person (clicked, most)" in play
    assert "curl at 127.0.0.0/24: perhaps a machine (agent)" in probe
    assert f"{OWNER}, not watched" in out
    assert link.partition("token=")[2] not in out
    shown = json.loads(links("show", CLIP, "--json").stdout)
    assert [visit["seems"] for visit in shown["visits"]] == ["person", "machine"]


def test_a_link_is_told_for_one_recipient_when_asked_for(links, box):
    """Alone on a line, to be pasted; for somebody else it is a mistake that names who there is."""
    done = links("show", CLIP, "--link", GUARD)
    assert done.stdout == f"{BASE_URL}{box.links()[0]}\n"
    assert json.loads(links("show", CLIP, "--link", GUARD, "--json").stdout)["link"] == done.stdout.strip()
    wrong = links("show", CLIP, "--link", "nobody@exemple.fr")
    sentence = f"vigintd: no link of this clip was made for nobody@exemple.fr; there are: {GUARD}, {OWNER}\n"
    assert (wrong.exit_code, wrong.stderr) == (1, sentence)


def test_links_are_revoked(links, box):
    """One, then the rest; what was revoked before is no failure."""
    guard, owner = box.links()
    done = links("revoke", CLIP[:8], GUARD)
    assert (done.exit_code, done.stdout) == (0, f"revoked: {GUARD}\n")
    assert [box.get(link).status for link in (guard, owner)] == [404, 200]
    assert json.loads(links("revoke", CLIP, "--all", "--json").stdout) == {"clip": CLIP, "revoked": [OWNER]}
    assert box.get(owner).status == 404
    assert links("revoke", CLIP, "--all").stdout == "nothing to revoke: it was revoked before\n"
    assert "revoked 2026-" in links("show", CLIP).stdout


def test_whom_to_revoke_must_be_said(links, box):
    """Nobody, one and all, or nothing at all: no link is touched."""
    for words in ([CLIP], [CLIP, GUARD, "--all"], []):
        assert links("revoke", *words).exit_code == 2
    assert all(box.get(link).status == 200 for link in box.links())


def test_links_are_extended(links, box):
    done = links("extend", CLIP, "24")
    assert done.stdout == f"the links of {CLIP} live until 2026-03-17 09:26:53\n"
    assert json.loads(links("extend", CLIP, "0.5", "--json").stdout)["expires_at"] == "2026-03-17T09:56:53+00:00"


def test_by_how_much_has_bounds(links):
    for hours, code, problem in (
        ("0", 2, "HOURS is a number above 0"),
        ("nan", 2, "HOURS is a number above 0"),
        ("inf", 2, "HOURS is a number above 0"),
        ("soon", 2, "a valid number"),
        ("700", 1, "a clip is kept for at most 30 days: 672 hours are left to extend by; a clip that is needed longer is held"),
    ):
        done = links("extend", CLIP, hours)
        assert done.exit_code == code
        assert problem in " ".join(done.stderr.split())


def test_a_clip_is_held_and_released(links, box):
    """With a reason, which stays in the record."""
    assert links("hold", CLIP).exit_code == 2
    assert links("hold", CLIP, "--reason", "police").stdout == f"{CLIP} is held, until: vigintd links release\n"
    assert "finished, held" in links("list").stdout
    assert "held         police" in links("show", CLIP).stdout
    assert links("release", CLIP).stdout.startswith(f"{CLIP} is held no longer; it is deleted at 2026-03-16")
    again = links("release", CLIP)
    assert (again.exit_code, again.stderr) == (1, "vigintd: the clip is not held\n")
    assert "reason police" in links("audit", CLIP).stdout


def test_a_clip_that_there_is_not_is_said(links):
    for words in (["show", "ffff"], ["revoke", "ffff", "--all"], ["extend", "ffff", "1"], ["audit", "ffff"]):
        done = links(*words)
        assert (done.exit_code, done.stderr) == (1, "vigintd: there is no clip ffff; see: vigintd links list --gone\n")


def test_the_record_is_told_as_lines_json_and_csv(links, box):
    """The same lines; a cell of CSV that a spreadsheet would run is made plain text."""
    lines = links("audit", CLIP).stdout.splitlines()
    rows = json.loads(links("audit", CLIP, "--json").stdout)
    table = list(csv.DictReader(io.StringIO(links("audit", "--csv").stdout)))
    assert [row["kind"] for row in rows] == ["upload", "link", "link", "upload"]
    assert len(lines) == len(rows) == len(table) == 4
    assert [row["recipient"] for row in table] == ["", GUARD, f"'{OWNER}", ""]
    assert [row["sha256"] for row in table] == [row["sha256"] for row in rows]
    assert json.loads(table[3]["detail"]) == rows[3]["detail"]
    assert lines[1].split() == ["2", "2026-03-14", "09:26:53", CLIP[:8], "link", GUARD, "127.0.0.0/24", "Python"]


def test_a_long_record_is_told_whole(links, box):
    """It comes in pages, and nobody notices."""
    store = box.host.links._store
    rows = [row for row in box.do(store.audit(CLIP)) for _ in range(550)]
    box.do(store.record.write_down(*rows))
    assert [row["seq"] for row in json.loads(links("audit", "--json").stdout)] == list(range(1, 2205))
    assert links("audit", "--verify").stdout.startswith("the record is whole: 2204 lines")


def test_the_record_is_checked(links, box):
    """Line by line, in this process; the head that is told can be given later."""
    done = links("audit", "--verify")
    head = str(box.do(box.host.record.head()))
    assert done.stdout == f"the record is whole: 4 lines\nhead {head}\n"
    box.do(box.client.ask("GET", box.links()[0]))
    told = json.loads(links("audit", "--verify", "--json", "--head", head).stdout)
    assert (told["whole"], told["lines"], told["problem"]) == (True, 5, None)
    wrong = f"4:{'ab' * 32}"
    done = links("audit", "--verify", "--head", wrong)
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == (
        "vigintd: the record is not whole: line 4 is not the one that was noted before: the record was written anew\n"
    )
    assert links("audit", "--verify", "--head", "yesterday").exit_code == 2


def test_a_record_that_was_changed_is_said(links, box):
    """Also by somebody who takes the database's own guards away."""
    with closing(sqlite3.connect(box.state_dir / "linkhost" / "linkhost.sqlite3")) as database:
        database.executescript("DROP TRIGGER audit_never_changes; UPDATE audit SET recipient = 'nobody' WHERE seq = 2;")
    done = links("audit", "--verify", "--json")
    assert (done.exit_code, json.loads(done.stdout)["problem"]) == (1, "line 2 or one before it is not as it was written")


@pytest.mark.parametrize("words", [["--json", "--csv"], ["--verify", "--csv"], [CLIP, "--verify"], ["--head", "x"]])
def test_what_does_not_go_together_is_said(vigintd, config, words):
    assert vigintd("links", "audit", *words, "--config", config).exit_code == 2


# Keys


def test_a_link_is_granted(links, box):
    """To one more, or once more to somebody whose link was revoked; alone on a line, also where that is narrow."""
    link = links("grant", CLIP, "police@exemple.fr", env={"COLUMNS": "40"}).stdout
    assert link.startswith(f"{BASE_URL}/video/{CLIP}?token=")
    assert box.get(path_of(link.strip())).status == 200
    links("revoke", CLIP, GUARD)
    again = json.loads(links("grant", CLIP, GUARD, "--json").stdout)
    assert box.get(path_of(again["link"])).status == 200
    assert links("grant", "ffff", GUARD).exit_code == 1


@pytest.fixture
def keys(vigintd, config, box):
    return lambda *words: vigintd("linkhost", "keys", *words, "--config", config, env={"TZ": "UTC"})


def test_keys_are_made_listed_and_removed(keys, box):
    """The key is told when it is made, alone on its line, and never again."""
    key = keys("add", "nvr-2", "--quota-mb", "100").stdout.strip()
    uploader = Client(box.client.session, box.client.base, key)
    assert box.do(uploader.create(OTHER_CLIP)).status == 201
    listed = keys("list").stdout
    assert [line.split()[0] for line in listed.splitlines()] == ["name", "vigintd", "nvr-2"]
    assert "100 MB" in listed
    assert key not in listed
    id_ = json.loads(keys("list", "--json").stdout)[1]["key"]
    done = keys("remove", "nvr-2", id_)
    assert done.stdout == f"key {id_} of nvr-2 opens nothing any more\n"
    assert box.do(uploader.create(OTHER_CLIP)).status == 401
    again = keys("remove", "nvr-2")
    sentence = "vigintd: no key of nvr-2 was added here; see: vigintd linkhost keys list\n"
    assert (again.exit_code, again.stderr) == (1, sentence)


def test_mistakes_with_keys_are_said(keys):
    for words, code, problem in (
        (["add", "a b"], 1, "a name is of 1 to 63 letters, digits, dots, dashes and underscores"),
        (["add", "vigintd"], 1, "vigintd is the name of a key that is configured; take another name"),
        (["add", "nvr-2", "--quota-mb", "0"], 2, "greater than or equal to 1"),
        (["remove", "nvr-2", "abc"], 1, "no key abc of nvr-2 was added here"),
    ):
        done = keys(*words)
        assert done.exit_code == code
        assert problem in " ".join(done.stderr.split())


def test_nobody_there_is_a_sentence(vigintd, config):
    for words in (["links", "list"], ["links", "audit", "--verify"], ["linkhost", "keys", "list"]):
        done = vigintd(*words, "--config", config)
        assert done.exit_code == 1
        assert "no vigintd runs here" in done.stderr


# Evidence


@pytest.fixture
def check_file(vigintd, config, tmp_path):
    """Run `vigintd verify` on these bytes."""

    def run(data, *words):
        (tmp_path / "clip.mp4").write_bytes(data)
        return vigintd("verify", tmp_path / "clip.mp4", *words, "--config", config, env={"TZ": "UTC"})

    return run


def test_a_downloaded_clip_is_known(check_file, box, tmp_path):
    """Of which camera, incident and time, and since when unchanged; also once the host's own copy is gone."""
    data = box.get(inside(box.links()[0], "download/0")).body
    done = check_file(data)
    assert done.exit_code == 0
    assert done.stdout.splitlines() == [
        f"{tmp_path / 'clip.mp4'}: a clip of this box, unchanged since it was sealed at 2026-03-14 09:26:53",
        "  camera entree (Boutique Rivoli), vol à l'étalage at 2026-03-14 09:26:53",
        f"  incident {CLIP}",
        f"  SHA-256 {hashlib.sha256(data).hexdigest()}",
    ]
    box.do(box.clock.advance(49 * 3600))
    box.do(box.host.run_once())
    told = json.loads(check_file(data, "--json").stdout)
    assert (told["unchanged"], told["found"][0]["incident_id"]) == (True, CLIP)
    assert told["found"][0]["deleted_at"] == "2026-03-16T10:26:53+00:00"


def test_the_plain_copy_of_a_clip_is_known_too(check_file, box):
    """What a player was given holds the evidence's bytes behind another head; a head that shows less is another film."""
    plain = box.get(inside(box.links()[0], "play/0.mp4")).body
    evidence = hashlib.sha256(video(2)).hexdigest()
    assert hashlib.sha256(plain).hexdigest() != evidence
    done = check_file(plain)
    assert done.exit_code == 0
    assert "the plain copy of a clip of this box, unchanged" in done.stdout
    assert evidence in done.stdout
    sizes = plain.index(b"stsz")
    for at in (sizes + 12, len(plain) - 1, 4):
        forged = bytearray(plain)
        forged[at] ^= 1
        assert check_file(bytes(forged)).exit_code == 1


def test_a_changed_clip_is_not_known(check_file, box):
    """Cut, longer by a byte, with another bit; nor a foreign or an odd file: exit code 1, and the hash to compare."""
    clip = video(2)
    one_bit = clip[:1000] + bytes([clip[1000] ^ 1]) + clip[1001:]
    for data in (clip[:-1], clip + b"x", one_bit, b"", b"\0\0\0\x08mdat", b"\xff" * 100):
        done = check_file(data)
        assert (done.exit_code, done.stderr) == (1, "")
        assert "not a clip of this box, or changed since it was sealed (SHA-256 " in done.stdout
        assert hashlib.sha256(data).hexdigest() in done.stdout
    assert json.loads(check_file(b"", "--json").stdout)["unchanged"] is False


def test_a_clip_is_known_without_a_daemon(vigintd, config, tmp_path, check_file):
    """The folder alone is asked."""

    async def fill() -> None:
        host = LinkHost(config.parent / "state" / "linkhost", base_url=BASE_URL, api_keys={"a": KEY}, clock=ManualClock())
        await host.start(listen=("127.0.0.1", 0), unix_path=None)
        async with aiohttp.ClientSession() as session:
            await Client(session, f"http://127.0.0.1:{host.port}").publish(video(2))
        await host.aclose()

    before = check_file(video(2))
    assert (before.exit_code, "no state folder" in before.stderr) == (1, True)
    asyncio.run(fill())
    assert check_file(video(2)).exit_code == 0
    assert check_file(video(3)).exit_code == 1


def test_a_file_that_cannot_be_read_is_said(vigintd, config, tmp_path):
    for path, problem in ((tmp_path / "none.mp4", "No such file"), (tmp_path, "Is a directory")):
        done = vigintd("verify", path, "--config", config)
        assert done.exit_code == 1
        assert f"{path}: {problem}" in done.stderr
