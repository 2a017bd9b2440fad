"""Who is told of incidents, how soon, and what a host is told of one.

Owns what is alike for every incident of this box, whatever its camera: a mail that was owed before a camera was
taken out of the configuration can still be sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vigintd.model import Incident
from vigintd.publish import ClipRequest


@dataclass(frozen=True, slots=True)
class Audience:
    """The people who are told, in which language, how soon, and for how long their links live."""

    site: str
    language: str
    """fr or en."""
    recipients: tuple[str, ...]
    expiry_h: float
    text_after_s: float
    """Without a playable link for so long after the detection, the alert goes without one."""


def clip_request(incident: Incident, audience: Audience, recipients: Sequence[str]) -> ClipRequest:
    """What a host is told of an incident; a host that knows it already answers with the links it gave."""
    detection = incident.detection
    return ClipRequest(
        clip_id=incident.id,
        recipients=recipients,
        expiry_h=audience.expiry_h,
        metadata={
            "site": audience.site,
            "camera": incident.camera,
            "at": detection.at.astimezone().isoformat(),
            "type": detection.type,
            "risk": detection.risk.value,
            "confidence": detection.confidence,
            "text": detection.text,
            "language": audience.language,
        },
    )
