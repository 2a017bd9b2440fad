"""Fragmented MP4 as bytes: where whole fragments begin and end, and what a player must be told of them.

Owns the reading of ISO base media boxes (ISO/IEC 14496-12; `avcC` by ISO/IEC 14496-15; `esds` by ISO/IEC 14496-1), from
bytes to values, and the head with which a finished file is a plain MP4 too. Opens nothing, and needs no FFmpeg, so that
the recorder, the uploader, the link host and recovery mean the same thing by "fragment". The link host shows it
strangers' bytes: whatever they hold, it answers, waits for more or raises `ValueError`; it never allocates or loops by
what a field claims.
"""

from vigintd.fmp4.faststart import faststart_head
from vigintd.fmp4.fragments import MAX_HEADER_BYTES, FragmentParser, scan
from vigintd.fmp4.samples import SampleTables
from vigintd.fmp4.tracks import Track, codec_string, read_init, video_size

__all__ = [
    "MAX_HEADER_BYTES",
    "FragmentParser",
    "SampleTables",
    "Track",
    "codec_string",
    "faststart_head",
    "read_init",
    "scan",
    "video_size",
]
