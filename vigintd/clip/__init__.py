"""The clip: from packets to H.264 fragmented MP4 that grows in the spool, with its sound, and the still picture of a detection.

Owns the clip's timestamps, its cutting into parts and fragments, the sources of what must be encoded and their encode
job, and snapshots. FFmpeg runs on threads of this room, never on the loop. Does not own: the bytes' durability (`spool`),
what a fragment is (`fmp4`), when a clip begins and ends (`incident`), or where it goes (`publish`).
"""
