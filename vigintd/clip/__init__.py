"""The clip: from packets to an H.264 fragmented MP4 that grows in the spool, and the still picture of a detection.

Owns the clip's timestamps, its cutting into parts and fragments, the encoding of what is not H.264, and snapshots.
FFmpeg runs on threads of this room, never on the loop. Does not own: the bytes' durability (`spool`), what a fragment
is (`fmp4`), when a clip begins and ends (`incident`), or where it goes (`publish`).
"""
