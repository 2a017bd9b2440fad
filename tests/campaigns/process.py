"""What this process uses of the machine, out of `/proc`."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from pathlib import Path

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Usage:
    """At one moment."""

    cpu_s: float
    """User and system time of all threads."""
    rss_bytes: int
    threads: int
    """Of the kernel's, FFmpeg's own among them."""
    python_threads: int
    fds: int


def usage() -> Usage:
    """Now, of this process."""
    used = os.times()
    resident = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return Usage(
        cpu_s=used.user + used.system,
        rss_bytes=resident * _PAGE_BYTES,
        threads=sum(1 for _ in Path("/proc/self/task").iterdir()),
        python_threads=threading.active_count(),
        # One of them is the listing's own.
        fds=sum(1 for _ in Path("/proc/self/fd").iterdir()) - 1,
    )


def machine_cpu_s() -> float:
    """CPU seconds that the whole machine has used, on all its cores together."""
    fields = [int(field) for field in Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:9]]
    user, nice, system, _idle, _waiting, irq, softirq, _stolen = fields
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def quantile(values: list[float], share: float) -> float:
    """The value below which `share` (0–1) of them lie; 0 for none."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))] if values else 0.0
