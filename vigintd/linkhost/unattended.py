"""Video that a page began to play by itself, and whether anybody was there: until a person acts, it is no play.

Owns the memory of it, which lives as long as the process; what is written down of it is the viewer's. Loop only.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

_MAX_VISITORS = 1000
"""Beyond, the one whose page began longest ago is forgotten: what it watched stays a probe."""
_MAX_STREAMS = 16
"""Of one visitor."""


class Sending(Protocol):
    """An answer under way; `sent` counts its bytes."""

    sent: int


@dataclass(slots=True)
class Stream:
    """One part that is being sent, or was."""

    part: int
    sender: Sending | None
    sent_bytes: int = 0
    """Once it is over."""
    attended: bool = False
    """A person asked for it, or acted since."""
    told_bytes: int = 0
    """So many are written down as played."""

    def untold(self) -> tuple[int, int]:
        """First and number of the bytes that were sent and not told yet; they count as told from now on."""
        first, sent = self.told_bytes, self.sender.sent if self.sender is not None else self.sent_bytes
        self.told_bytes = sent
        return first, sent - first


class Unattended:
    """The streams that pages began by themselves, by visitor."""

    def __init__(self) -> None:
        self._streams: OrderedDict[tuple[str, ...], deque[Stream]] = OrderedDict()

    @contextmanager
    def stream(self, visitor: tuple[str, ...], part: int, sender: Sending, *, by_itself: bool) -> Iterator[Stream]:
        """This answer as a stream, while it is sent; remembered after it where the page began it by itself."""
        stream = Stream(part, sender, attended=not by_itself)
        if by_itself:
            streams = self._streams.setdefault(visitor, deque(maxlen=_MAX_STREAMS))
            self._streams.move_to_end(visitor)
            if len(self._streams) > _MAX_VISITORS:
                self._streams.popitem(last=False)
            streams.append(stream)
        try:
            yield stream
        finally:
            stream.sent_bytes, stream.sender = sender.sent, None

    def attend(self, visitor: tuple[str, ...]) -> list[Stream]:
        """A person acted: the visitor's streams of which something was sent, which from now on are watched."""
        streams = [stream for stream in self._streams.get(visitor, ()) if stream.sender is not None or stream.sent_bytes]
        for stream in streams:
            stream.attended = True
        return streams
