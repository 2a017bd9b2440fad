"""The search for secrets in the logs of a run."""

from __future__ import annotations

import re
from pathlib import Path

SECRETS = ("camera-p@ssw0rd/with#all", "camera-p%40ssw0rd%2Fwith%23all", "a-key-that-no-log-may-hold", "mail-pa55word")
"""Every secret that the tests configure."""

_TOKEN = re.compile(r"(?<![A-Za-z0-9_-])[A-Za-z0-9_-]{43}(?![A-Za-z0-9_-])")
"""The shape of a link's token. Nothing else that is logged has it: UUIDs and hashes have other lengths."""


def leaks(folder: Path) -> list[tuple[str, str]]:
    """File name and line of every token and secret in the logs of `folder`."""
    logs = sorted(folder.glob("*.log"))
    lines = [(path.name, line) for path in logs for line in path.read_text(encoding="utf-8").splitlines()]
    return [(name, line) for name, line in lines if _TOKEN.search(line) or any(secret in line for secret in SECRETS)]
