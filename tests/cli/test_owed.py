"""`vigintd incidents list --owed` and `vigintd incidents retry`: what is still to be sent, and how to have it sent."""

from __future__ import annotations

import json

import pytest

from tests.cli.conftest import INCIDENT

ID = str(INCIDENT["id"])
OTHER = "9" + ID[1:]
DEAD = {"kind": "alert", "what": "gardien@exemple.fr", "state": "dead", "attempts": 12, "last_error": "535 no\x1b[31m"}
WAITING = {
    "kind": "publish",
    "what": "",
    "state": "owed",
    "attempts": 3,
    "next_try_at": "2026-11-22T09:35:00+00:00",
    "last_error": "503",
}
DONE = {"kind": "alert", "what": "patron@exemple.fr", "state": "done", "attempts": 1, "last_error": ""}


@pytest.fixture
def owing(daemon):
    """A daemon with one incident that owes two things, and one that owes one."""
    daemon.known = [
        INCIDENT | {"effects": [DEAD, WAITING, DONE], "type": "motion"},
        INCIDENT | {"id": OTHER, "effects": [WAITING | {"attempts": 0, "last_error": ""}], "type": "motion"},
    ]
    return daemon


def test_what_is_owed_has_a_row_each(vigintd, config, owing):
    """What, to whom, how often it was tried, when it will be again, and why it failed; what is done has none."""
    out = vigintd("incidents", "list", "--owed", "--config", config, env={"TZ": "UTC"}).stdout
    assert [line.split()[0] for line in out.splitlines()] == ["id", ID[:8], ID[:8], OTHER[:8], "What"]
    _, dead, waiting, untried, what_to_do = out.splitlines()
    assert what_to_do.endswith("mend what its error says, then: vigintd incidents retry ID (or --all)")
    assert dead.split("entree")[1].split() == ["alert", "gardien@exemple.fr", "12", "given", "up", "535", "no\ufffd[31m"]
    assert waiting.split("entree")[1].split()[:3] == ["publish", "host", "3"]
    assert waiting.endswith("503")
    assert untried.endswith("–")
    assert "patron" not in out


@pytest.mark.parametrize("columns", [50, 80])
def test_what_is_owed_on_a_narrow_terminal(vigintd, config, owing, columns):
    """Lines instead of a row that is too long, and nothing is cut."""
    out = vigintd("incidents", "list", "--owed", "--config", config, env={"COLUMNS": str(columns)}).stdout
    assert all(len(line) <= columns for line in out.splitlines())
    assert "alert, to gardien@exemple.fr, tries 12, given up" in " ".join(out.split())
    assert "535" in out
    assert "…" not in out


def test_nobody_has_to_do_anything_about_what_will_be_tried_again(vigintd, config, owing):
    del owing.known[0]
    assert "vigintd incidents retry" not in vigintd("incidents", "list", "--owed", "--config", config).stdout


def test_nothing_owed_is_a_sentence(vigintd, config, daemon):
    daemon.known = []
    assert vigintd("incidents", "list", "--owed", "--config", config).stdout == "nothing is owed\n"


def test_what_is_owed_in_json(vigintd, config, owing):
    """As the daemon says it."""
    answer = json.loads(vigintd("incidents", "list", "--owed", "--json", "--config", config).stdout)
    assert answer[0]["effects"][1] == WAITING


def test_an_incident_is_retried_by_the_beginning_of_its_id(vigintd, config, owing):
    """And every effect that is tried again is named."""
    done = vigintd("incidents", "retry", ID[:6].upper(), "--config", config)
    assert (done.exit_code, owing.retried) == (0, [ID])
    assert done.stdout.splitlines() == [
        f"retrying alert to gardien@exemple.fr of {ID[:8]}",
        f"retrying publish to host of {ID[:8]}",
        f"retrying alert to patron@exemple.fr of {ID[:8]}",
    ]


def test_everything_is_retried_at_once(vigintd, config, owing):
    done = vigintd("incidents", "retry", "--all", "--json", "--config", config)
    assert (done.exit_code, owing.retried) == (0, [None])
    assert [effect["incident_id"] for effect in json.loads(done.stdout)["retried"]] == [ID] * 3


def test_nothing_to_retry_is_no_failure(vigintd, config, owing):
    done = vigintd("incidents", "retry", OTHER, "--config", config)
    assert (done.exit_code, done.stdout) == (0, "nothing to retry: nothing failed\n")


def test_a_wrong_incident_is_1_and_retries_nothing(vigintd, config, owing):
    done = vigintd("incidents", "retry", "42", "--config", config)
    sentence = "vigintd: there is no incident 42; see: vigintd incidents list --owed\n"
    assert (done.exit_code, done.stderr, owing.retried) == (1, sentence, [])


@pytest.mark.parametrize("words", [[], [ID, "--all"]], ids=["neither", "both"])
def test_one_incident_or_all_is_named(vigintd, config, owing, words):
    done = vigintd("incidents", "retry", *words, "--config", config)
    assert (done.exit_code, owing.retried) == (2, [])
    assert "name one incident, or --all" in done.stderr
