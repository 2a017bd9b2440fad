"""How every command ends: the one place where errors become sentences and exit codes.

A user never reads a traceback. A daemon that fails as nobody foresaw leaves one in its log, redacted.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn, TextIO, cast

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

_STDERR_FD = 2


class CannotWrite(Exception):
    """What was to be printed could not be; `reason` is the system's."""

    def __init__(self, reason: OSError) -> None:
        super().__init__(reason.strerror or str(reason))
        self.reason = reason


class _Answer:
    """stdout, whose failures are told apart from those of everything else that is written."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        if self._stream is None:
            raise CannotWrite(OSError(errno.EBADF, os.strerror(errno.EBADF)))
        try:
            return self._stream.write(text)
        except OSError as error:
            raise CannotWrite(error) from error

    def flush(self) -> None:
        try:
            if self._stream is not None:
                self._stream.flush()
        except OSError as error:
            raise CannotWrite(error) from error

    def isatty(self) -> bool:
        return self._stream is not None and self._stream.isatty()

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  (whatever a stream has)
        return getattr(self._stream, name)


def prepare() -> None:
    """Make this process's streams fit to fail in a sentence: full, closed, or too narrow for our characters."""
    # A socket or a file that took the place of a closed stream would be written into.
    while (fd := os.open(os.devnull, os.O_RDWR)) <= _STDERR_FD:
        pass
    os.close(fd)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    sys.stdout = cast("TextIO", _Answer(sys.stdout))
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115  (as long as the process)


class Endings(TyperGroup):
    """The root of the commands; ends the process as its module says."""

    def main(self, *args: Any, **how: Any) -> Any:  # noqa: ANN401  (typer's signature)
        """Run what was typed, and exit; also where `--help` cannot be printed."""
        try:
            return super().main(*args, **how)
        except CannotWrite as error:
            _give_up(error.reason)
        except BrokenPipeError as error:
            _give_up(error)

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401  (typer's own class of contexts has no public name)
        """Run the command; what it raises is told on stderr."""
        try:
            try:
                return super().invoke(ctx)
            finally:
                # What is still buffered shall fail here, not at the interpreter's end.
                sys.stdout.flush()
        except ConfigError as error:
            _say_each(str(fault) for fault in error.faults)
            raise typer.Exit(BAD_CONFIGURATION) from None
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None
        except Exception as error:
            if unwritten := _unwritten(error):
                raise unwritten from None
            # typer's own exceptions end the process as they say; what they have in common has no public name.
            if isinstance(error, typer.Abort) or hasattr(error, "exit_code"):
                _in_plain_words(error)
                raise
            _say_each(_sentences(error))
            raise typer.Exit(FAILED) from None


def _unwritten(error: BaseException) -> CannotWrite | None:
    """The failure to print among those that tasks ended with at once."""
    if isinstance(error, BaseExceptionGroup):
        return next(filter(None, map(_unwritten, error.exceptions)), None)
    return error if isinstance(error, CannotWrite) else None


def _in_plain_words(error: Exception) -> None:
    """Take the validator's own words out of a complaint about an option."""
    message = getattr(error, "message", None)
    if isinstance(message, str):
        vars(error)["message"] = message.removeprefix("Value error, ")


def _give_up(reason: OSError) -> NoReturn:
    """End where stdout takes nothing more; whoever closed a pipe has seen enough."""
    _silence(sys.stdout)
    if reason.errno == errno.EPIPE:
        sys.exit(BROKEN_PIPE)
    _say_each(iter([f"cannot write the answer: {reason.strerror or reason}"]))
    sys.exit(FAILED)


def _silence(stream: TextIO) -> None:
    """What is buffered in `stream` would fail again at the interpreter's end; let it go nowhere."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


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
        try:
            typer.echo(f"vigintd: {redacted(sentence)}", err=True)
        except OSError:
            # The exit code still tells that something went wrong.
            _silence(sys.stderr)
