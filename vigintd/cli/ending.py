"""How every command ends: the one place where errors become sentences and exit codes.

A user never reads a traceback. A daemon that fails as nobody foresaw leaves one in its log, redacted.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator
from typing import Any

import typer
from typer.core import TyperGroup

from vigintd.errors import ConfigError, VigintdError
from vigintd.redact import redacted

FAILED = 1
BAD_CONFIGURATION = os.EX_CONFIG
"""78, as sysexits.h has it."""
INTERRUPTED = 130
BROKEN_PIPE = 141
"""128 + the signal, as a shell reports it."""


class Endings(TyperGroup):
    """The root of the commands; ends the process as its module says."""

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401  (typer's own class of contexts has no public name)
        """Run the command; what it raises is told on stderr."""
        try:
            answer = super().invoke(ctx)
            # What is still buffered shall fail here, not at the interpreter's end.
            sys.stdout.flush()
        except ConfigError as error:
            _say_each(str(fault) for fault in error.faults)
            raise typer.Exit(BAD_CONFIGURATION) from None
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            # Whoever read us has seen enough.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(BROKEN_PIPE) from None
        except Exception as error:
            # typer's own exceptions end the process as they say; what they have in common has no public name.
            if isinstance(error, typer.Abort) or hasattr(error, "exit_code"):
                raise
            _say_each(_sentences(error))
            raise typer.Exit(FAILED) from None
        return answer


def _sentences(error: Exception) -> Iterator[str]:
    match error:
        case VigintdError():
            yield str(error)
        case ExceptionGroup():
            for leaf in error.exceptions:
                yield from _sentences(leaf)
        case _:
            where = traceback.extract_tb(error.__traceback__)[-1]
            yield (
                f"{type(error).__name__}: {error} ({where.name}, line {where.lineno})"
                " – this is a fault in vigintd itself; please report it"
            )


def _say_each(sentences: Iterator[str]) -> None:
    for sentence in sentences:
        typer.echo(f"vigintd: {redacted(sentence)}", err=True)
