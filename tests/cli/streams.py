"""A camera's stream as a look at it finds it."""

from vigintd.camera.probe import StreamFacts

STREAM = StreamFacts(
    url_number=1,
    url_count=1,
    failed=(),
    codec="h264",
    width_px=1280,
    height_px=720,
    fps=25.0,
    gop_s=2.0,
    looked_s=4.0,
    bits_per_s=4_000_000.0,
    sound=None,
)
