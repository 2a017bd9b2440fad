"""The playlist of a clip for players without Media Source (RFC 8216): a URL for each segment, growing with the clip. Pure.

A segment is the fragments from one key frame to the next, because players begin wherever a segment does: Chromium's gives
up on one without a key frame in front. So the newest is listed when the next begins, or the part is sealed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vigintd.model import MEDIA_CLOCK_HZ, Fragment

CONTENT_TYPE = "application/vnd.apple.mpegurl"

TARGET_S = 2
"""How often a player asks again, and the least that is said of how long segments are (section 4.3.3.1)."""


@dataclass(frozen=True, slots=True)
class Segment:
    """Some fragments that follow each other in their part's file."""

    number: int
    """That of its first fragment; 0 is the initialisation segment."""
    offset_bytes: int
    length_bytes: int
    duration_90k: int


def segments(fragments: Sequence[Fragment], *, sealed: bool) -> list[Segment]:
    """The segments of a part, of whose `fragments` the first is its initialisation segment."""
    if not fragments:
        return []
    begins = [number for number, fragment in enumerate(fragments) if number < 2 or fragment.is_key]
    ends = [*begins[1:], len(fragments)]
    found = [_segment(fragments, begin, end) for begin, end in zip(begins, ends, strict=True)]
    return found if sealed else found[: max(1, len(found) - 1)]


def playlist(parts: Sequence[tuple[int, Sequence[Segment]]], query: str, *, ended: bool) -> str:
    """The parts' segments in order, as an EVENT playlist that only ever grows; with `ended`, it will not.

    Each part is its index and its segments. `query` is put to every URL. URLs are relative to a playlist beside the
    folder `hls`.
    """
    longest_90k = max((segment.duration_90k for _, each in parts for segment in each), default=0)
    lines = [
        "#EXTM3U",
        "#EXT-X-VERSION:7",
        "#EXT-X-INDEPENDENT-SEGMENTS",
        # It must not change later (section 6.2.1): it does when key frames become rarer than they were in the pre-roll.
        f"#EXT-X-TARGETDURATION:{max(TARGET_S, int(longest_90k / MEDIA_CLOCK_HZ + 0.5))}",
        # Chromium takes a playlist without it for a film that is over.
        "#EXT-X-MEDIA-SEQUENCE:0",
        "#EXT-X-PLAYLIST-TYPE:EVENT",
        "#EXT-X-START:TIME-OFFSET=0,PRECISE=YES",
    ]
    for place, (index, each) in enumerate(parts):
        if place:
            lines.append("#EXT-X-DISCONTINUITY")
        lines.append(f'#EXT-X-MAP:URI="hls/{index}/0.m4s?{query}"')
        for segment in each[1:]:
            lines.append(f"#EXTINF:{segment.duration_90k / MEDIA_CLOCK_HZ:.5f},")
            lines.append(f"hls/{index}/{segment.number}.m4s?{query}")
    if ended:
        lines.append("#EXT-X-ENDLIST")
    return "\n".join(lines) + "\n"


def _segment(fragments: Sequence[Fragment], begin: int, end: int) -> Segment:
    held = fragments[begin:end]
    duration_90k = sum(fragment.duration_90k for fragment in held)
    if begin and end < len(fragments):
        # Where the camera was away for a moment, the last picture stays until the next.
        duration_90k = max(duration_90k, fragments[end].start_90k - held[0].start_90k)
    return Segment(begin, held[0].offset_bytes, sum(fragment.length_bytes for fragment in held), duration_90k)
