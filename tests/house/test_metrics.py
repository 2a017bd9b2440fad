"""Counters: no loss is silent."""

from __future__ import annotations

import threading

from vigintd import metrics


def test_counts_add_up_by_name_and_label():
    """One table, read as a whole."""
    metrics.count("ring.packets_missed", "entree", 3)
    metrics.count("ring.packets_missed", "entree")
    metrics.count("ring.packets_missed", "quai")
    metrics.count("mail.refused")
    assert metrics.snapshot() == {"ring.packets_missed": {"entree": 4, "quai": 1}, "mail.refused": {"": 1}}


def test_threads_lose_no_count():
    """Capture threads count while the loop reads."""

    def count_often():
        for _ in range(2_000):
            metrics.count("x")

    threads = [threading.Thread(target=count_often) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert metrics.snapshot() == {"x": {"": 8_000}}
