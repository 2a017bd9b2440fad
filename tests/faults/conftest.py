"""The marker that says of which cases of docs/design/faults.md a test is the test."""

from __future__ import annotations

import pytest


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "fault(*ids): cases of docs/design/faults.md that this is the test of")
