"""What several commands are asked in the same words, and where they find the running daemon."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        metavar="FILE",
        # A file that is missing or unreadable is told by the reader of settings, and answered 78.
        exists=False,
        readable=False,
        help="Settings; $VIGINTD_CONFIG or /etc/vigintd/vigintd.toml when not given.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]


def control_socket(config: Path | None) -> Path:
    """The control socket of the daemon of these settings. Raises `ConfigError`."""
    from vigintd.config import load_places  # noqa: PLC0415  (see the package)
    from vigintd.control import SOCKET_NAME  # noqa: PLC0415

    return load_places(config).runtime_path / SOCKET_NAME
