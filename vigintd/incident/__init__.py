"""One incident as one story, from its first detection to its closed row.

Owns when an incident opens, extends and ends; the order of its steps; what people are told and when; and the
delivery of owed mails. Joins the rooms below (journal, spool, ring, clip, publish, alert) and knows nothing of
cameras or of the link host's inside.
"""

from vigintd.incident.audience import Audience
from vigintd.incident.courier import Courier
from vigintd.incident.desk import Desk
from vigintd.incident.memory import Memory
from vigintd.incident.publisher import Publisher
from vigintd.incident.recovery import Recovery
from vigintd.incident.reminders import Reminders
from vigintd.incident.retention import Retention
from vigintd.incident.space import Bounds, Space
from vigintd.incident.story import Plan, Rooms, Story

__all__ = [
    "Audience",
    "Bounds",
    "Courier",
    "Desk",
    "Memory",
    "Plan",
    "Publisher",
    "Recovery",
    "Reminders",
    "Retention",
    "Rooms",
    "Space",
    "Story",
]
