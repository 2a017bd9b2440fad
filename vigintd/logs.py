"""Structured logs: for a person on a console, for journald, or as JSON; never with a secret in a line.

Owns the set-up of structlog for the process and the last processor before rendering, which redacts every
string of every event (`redact`). Events are named `noun.verb` (`camera.lost`, `incident.opened`).
"""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Mapping
from typing import Literal, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from vigintd.redact import MASK, is_secret_name, redacted

LogFormat = Literal["auto", "console", "journald", "json"]

_PRIORITY = {"critical": 2, "error": 3, "warning": 4, "info": 6, "debug": 7}
"""syslog severities (RFC 5424, table 2), as sd-daemon(3) reads them at the beginning of a line."""


def redact_event(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """A structlog processor that passes every value through `redacted`, down to strings in containers."""
    return {key: MASK if is_secret_name(key) else _redacted(value) for key, value in event.items()}


def _redacted(value: object) -> object:
    match value:
        case None | bool() | int() | float():
            return value
        case Mapping():
            return {redacted(str(key)): MASK if is_secret_name(str(key)) else _redacted(item) for key, item in value.items()}
        case list() | tuple() | set() | frozenset():
            return [_redacted(item) for item in value]
        case _:
            return redacted(str(value))


_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class _JournaldRenderer:
    """One line an event, `<priority>event key=value …`: what journald takes from a service's stderr."""

    def __init__(self) -> None:
        self._render = structlog.processors.LogfmtRenderer()

    def __call__(self, logger: WrappedLogger, method: str, event: EventDict) -> str:
        priority = _PRIORITY.get(str(event.pop("level", "info")), 6)
        flat = {re.sub(r"[\s=\"]", "_", key): _one_line(value) for key, value in event.items() if value is not None}
        name = flat.pop("event", "")
        rest = str(self._render(logger, method, flat))
        return f"<{priority}>{name} {rest}".rstrip()


def _one_line(value: object) -> str:
    # A line break in a text from outside would begin a line of its own, with a priority of its choice.
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", " | ".join(str(value).splitlines()))


def configure(
    log_format: LogFormat = "auto",
    *,
    level: str = "info",
    stream: TextIO | None = None,
    environ: Mapping[str, str] | None = None,
) -> None:
    """Set logging up for the process, on `stream` (stderr by default).

    `auto` is journald's lines when systemd says that the stream goes to its journal (`JOURNAL_STREAM`), a
    console when a person looks, and JSON otherwise.
    """
    stream = stream or sys.stderr
    environ = os.environ if environ is None else environ
    if log_format == "auto":
        log_format = "journald" if "JOURNAL_STREAM" in environ else "console" if stream.isatty() else "json"
    processors: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
    ]
    if log_format != "journald":
        processors.append(structlog.processors.TimeStamper(fmt="iso", utc=log_format == "json"))
    processors += [structlog.processors.format_exc_info, redact_event]
    renderer: Processor
    match log_format:
        case "console":
            renderer = structlog.dev.ConsoleRenderer(colors=stream.isatty())
        case "journald":
            renderer = _JournaldRenderer()
        case _:
            renderer = structlog.processors.JSONRenderer(ensure_ascii=False)
    structlog.configure(
        processors=[*processors, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.WriteLoggerFactory(file=stream),
        cache_logger_on_first_use=False,
    )
    _route_standard_logging(level)


def _route_standard_logging(level: str) -> None:
    """Libraries that log by the standard library go the same way, and only from WARNING up."""

    class _Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            log = structlog.get_logger(record.name)
            log.log(record.levelno, "library.log", text=record.getMessage(), exc_info=record.exc_info or None)

    logging.basicConfig(
        handlers=[_Handler()], level=max(logging.WARNING, logging.getLevelNamesMapping()[level.upper()]), force=True
    )
