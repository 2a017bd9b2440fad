"""Cameras: one camera for ever, whatever its streams do.

Owns capture threads, decoding for detectors, reconnecting, and a camera's ring. Hands out packets by the ring
and detections by a callable; knows nothing of incidents, clips or mail.
"""

from vigintd.camera.camera import Camera, CameraStatus
from vigintd.camera.probe import probe_camera

__all__ = ["Camera", "CameraStatus", "probe_camera"]
