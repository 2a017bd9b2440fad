"""What there is to show of a clip: its state, its parts as a player needs them, its name as a file. Pure."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from vigintd.linkhost.store import Clip, Part

SILENCE = timedelta(seconds=60)
"""A recording of which nothing came for so long is shown as interrupted."""


class ClipState(StrEnum):
    """What a viewer is told."""

    RECORDING = "recording"
    INTERRUPTED = "interrupted"
    """It has not ended, but nothing comes; it goes on by itself when something does."""
    FINISHED = "finished"


@dataclass(frozen=True, slots=True)
class Showing:
    """A clip with its parts at one moment."""

    clip: Clip
    parts: tuple[Part, ...]
    now: datetime

    @property
    def state(self) -> ClipState:
        """Finished once it has ended and all its parts are sealed."""
        if self.clip.ended and self.parts and all(part.sealed for part in self.parts):
            return ClipState.FINISHED
        changed_at = max([self.clip.changed_at, *(part.changed_at for part in self.parts)])
        return ClipState.INTERRUPTED if self.now - changed_at > SILENCE else ClipState.RECORDING

    @property
    def playable(self) -> tuple[Part, ...]:
        """The parts of which there are bytes."""
        return tuple(part for part in self.parts if part.offset_bytes)

    @property
    def mismatched(self) -> bool:
        """The last seal of a part did not fit its bytes, and no right one came since."""
        return any(part.mismatched for part in self.parts)

    @property
    def size_bytes(self) -> int:
        """All parts together."""
        return sum(part.offset_bytes for part in self.parts)

    @property
    def version(self) -> str:
        """Changes when what the page says changes, but not with every byte."""
        facts = (
            self.clip.changed_at,
            self.state,
            *((p.index, p.sealed, p.mismatched, bool(p.offset_bytes)) for p in self.parts),
        )
        return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]

    def status(self, seconds: Sequence[float] = ()) -> dict[str, object]:
        """For the page's script and for programs; holds nothing that the page does not. `seconds` are the playable parts'."""
        return {
            "state": self.state,
            "version": self.version,
            "bytes": self.size_bytes,
            "verified": bool(self.parts) and all(part.sealed for part in self.parts),
            "seconds": list(seconds),
            "expires_at": self.clip.expires_at.isoformat(),
            "parts": [
                {
                    "index": part.index,
                    "bytes": part.offset_bytes,
                    "sealed": part.sealed,
                    "sha256": part.sha256,
                    "mime": mime(part),
                    "mismatched": part.mismatched,
                }
                for part in self.parts
            ],
        }


def mime(part: Part) -> str:
    """The part's type as Media Source wants it (RFC 6381); without codecs where they are not known."""
    return f'video/mp4; codecs="{part.codec}"' if part.codec else "video/mp4"


def file_name(clip: Clip, index: int) -> str:
    """A name for the downloaded file: letters, digits and dashes only, whatever the metadata holds."""
    pieces = ["vigint", clip.metadata.get("camera"), str(clip.metadata.get("at") or "")[:19], f"{index + 1}" if index else ""]
    plain = (unicodedata.normalize("NFKD", str(piece or "")).encode("ascii", "ignore").decode() for piece in pieces)
    return "-".join(filter(None, (re.sub(r"[^A-Za-z0-9]+", "-", piece).strip("-")[:40] for piece in plain))) + ".mp4"
