"""docs/design/faults.md and the tests name the same cases."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from tests.faults import test_host, test_mail

TABLE = Path(__file__).parents[2] / "docs" / "design" / "faults.md"


def in_the_table() -> Iterator[str]:
    for line in TABLE.read_text(encoding="utf-8").splitlines():
        if line.startswith("| `"):
            yield from re.findall("`([^`]+)`", line.split("|")[1])


def of_the_tests(*modules: ModuleType) -> Iterator[str]:
    for module in modules:
        for test in vars(module).values():
            for mark in getattr(test, "pytestmark", ()):
                if mark.name == "fault":
                    yield from mark.args


def test_every_case_of_the_table_has_its_test_and_every_test_its_case():
    table = Counter(in_the_table())
    assert table == Counter(of_the_tests(test_host, test_mail))
    assert set(table.values()) == {1}
