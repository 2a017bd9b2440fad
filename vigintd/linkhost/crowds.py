"""How much of the host one household may have: requests under way, and wrong guesses. Pure; time comes by argument.

Owns both counts and their bounds. Whom a request counts for is `proxies`' to say.
"""

from __future__ import annotations

import math
from collections import Counter, OrderedDict
from collections.abc import Generator
from contextlib import contextmanager

MAX_UNDER_WAY = 40
"""Requests of one household at a time; a page needs two or three, and a phone network puts many people behind one address."""
MAX_WRONG = 200
"""Wrong tokens or API keys of one household in a row, before it is told 429 instead of 404 or 401."""
FORGIVEN_EVERY_S = 6.0
"""One wrong guess is forgotten in so long."""
MAX_HOUSEHOLDS = 10_000
"""Whose guesses are remembered; beyond, whoever was wrong longest ago is forgotten."""


class Crowd:
    """Requests under way, by household."""

    def __init__(self, limit: int = MAX_UNDER_WAY) -> None:
        self._limit = limit
        self._under_way: Counter[str] = Counter()

    @contextmanager
    def one_more(self, household: str | None) -> Generator[bool]:
        """Count one for as long as the block lasts; False, and nothing counted, where there are too many. None has no bound."""
        if household is None:
            yield True
            return
        if self._under_way[household] >= self._limit:
            yield False
            return
        self._under_way[household] += 1
        try:
            yield True
        finally:
            self._under_way[household] -= 1
            if not self._under_way[household]:
                del self._under_way[household]


class Guesses:
    """Wrong guesses, by household: a bucket each that leaks one in `FORGIVEN_EVERY_S`."""

    def __init__(self, limit: int = MAX_WRONG) -> None:
        self._limit = limit
        self._wrong: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wrong(self, household: str | None, now_s: float) -> int:
        """One more; how many seconds they should wait before the next, or 0 where that is not too many."""
        # Those of this machine count together: nothing is kept from whoever is right.
        who = household or ""
        level, since_s = self._wrong.pop(who, (0.0, now_s))
        level = max(0.0, level - (now_s - since_s) / FORGIVEN_EVERY_S) + 1
        self._wrong[who] = (min(level, self._limit + 1), now_s)
        if len(self._wrong) > MAX_HOUSEHOLDS:
            self._wrong.popitem(last=False)
        return math.ceil((level - self._limit) * FORGIVEN_EVERY_S) if level > self._limit else 0
