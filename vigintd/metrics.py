"""Counts of what was dropped, refused or replaced at a bound, so that no loss is silent.

Owns one process-wide table of counters. Written from any thread, read by status. Names are the glossary's
(`ring.gop_too_large`, `detector.frames_skipped`); labels are camera or detector names, never an address or a
token.
"""

from __future__ import annotations

import threading
from collections import Counter

_lock = threading.Lock()
_counts: Counter[tuple[str, str]] = Counter()


def count(name: str, label: str = "", by: int = 1) -> None:
    """Add `by` to counter `name` of `label` (a camera's or detector's name, or nothing)."""
    with _lock:
        _counts[name, label] += by


def snapshot() -> dict[str, dict[str, int]]:
    """All counters: name → label → count."""
    with _lock:
        items = list(_counts.items())
    table: dict[str, dict[str, int]] = {}
    for (name, label), value in sorted(items):
        table.setdefault(name, {})[label] = value
    return table


def reset() -> None:
    """Set every counter to nothing; for tests."""
    with _lock:
        _counts.clear()
