"""Retry as a verdict: from a failure and its history to "again in so many seconds" or "give up".

`verdict` is pure: it takes the error, the count of attempts and a random source, and neither waits nor logs.
`patiently` is the loop around it, for calls that are simply made again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import Random
from typing import TypeVar

from vigintd.clock import Clock
from vigintd.errors import TransientError

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential delays with full jitter over their upper half, in seconds."""

    first_s: float = 1.0
    cap_s: float = 60.0

    def delay_s(self, attempt: int, random: Random) -> float:
        """The wait before attempt number `attempt` + 1; `attempt` counts failures so far, from 1.

        The bound doubles with each failure up to `cap_s`; the delay lies between half of it and all of it, so
        that many cameras behind one rebooted switch do not come back in step.
        """
        bound_s = min(self.cap_s, self.first_s * 2.0 ** min(attempt - 1, 32))
        return bound_s * (0.5 + 0.5 * random.random())


@dataclass(frozen=True, slots=True)
class RetryIn:
    """Try the same thing again after `delay_s` seconds."""

    delay_s: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Do not try again; `reason` says why, in words for a user."""

    reason: str


Verdict = RetryIn | GiveUp


def verdict(error: Exception, *, attempt: int, age_s: float, life_s: float, backoff: Backoff, random: Random) -> Verdict:
    """What to do after `error` on attempt number `attempt` (from 1) of something `age_s` seconds old.

    Only a `TransientError` is tried again, and only while it is younger than `life_s`; a wait that the other
    side asked for (`retry_after_s`) is honoured when it is longer than ours.
    """
    if not isinstance(error, TransientError):
        return GiveUp(str(error))
    delay_s = max(backoff.delay_s(attempt, random), error.retry_after_s or 0.0)
    if age_s + delay_s > life_s:
        return GiveUp(f"gave up after {attempt} attempts: {error}")
    return RetryIn(delay_s)


async def patiently(
    call: Callable[[], Awaitable[_T]],
    *,
    clock: Clock,
    random: Random,
    backoff: Backoff,
    life_s: float,
    on_delay: Callable[[TransientError, float], None],
) -> _T:
    """Make a call until it succeeds, after each transient failure again, for at most `life_s` seconds.

    `on_delay` hears of each failure and of the wait that follows. The last failure is raised, and any that is not
    transient at once.
    """
    began_s, attempt = clock.monotonic_s(), 0
    while True:
        try:
            return await call()
        except TransientError as error:
            attempt += 1
            age_s = clock.monotonic_s() - began_s
            what_next = verdict(error, attempt=attempt, age_s=age_s, life_s=life_s, backoff=backoff, random=random)
            if isinstance(what_next, GiveUp):
                raise
            on_delay(error, what_next.delay_s)
        await clock.sleep(what_next.delay_s)
