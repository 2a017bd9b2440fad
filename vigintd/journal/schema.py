"""The journal's tables, and the statements that change them.

Owns the schema, its way from version to version, and what a statement guarantees by itself: a state that only moves on, a first
problem that stays, an incident that closes when nothing of it is owed any more. Runs nothing.
"""

from __future__ import annotations

from vigintd.model import IncidentState

_SCHEMA = """
CREATE TABLE incident (
    id          TEXT PRIMARY KEY,
    camera      TEXT NOT NULL,
    state       TEXT NOT NULL,
    at          TEXT NOT NULL,           -- wall clock of the detection, ISO 8601 in UTC
    detection   TEXT NOT NULL,           -- JSON
    detections  INTEGER NOT NULL,
    ended_at    TEXT,
    pre_roll_s  REAL,
    parts       TEXT NOT NULL,           -- JSON
    playable_at TEXT,                    -- when the first fragment was accepted by the host
    no_video    TEXT,                    -- why no link will ever play
    problem     TEXT NOT NULL
) STRICT;
CREATE INDEX incident_by_time ON incident (at DESC);
CREATE TABLE effect (
    key         TEXT PRIMARY KEY,        -- incident_id/kind/what: the idempotency key
    incident_id TEXT NOT NULL REFERENCES incident (id),
    kind        TEXT NOT NULL,           -- alert, follow_up or upload
    what        TEXT NOT NULL,           -- recipient or part: with the incident, enough to do it in another process
    state       TEXT NOT NULL,           -- owed, done, dead
    attempts    INTEGER NOT NULL,
    owed_at     TEXT NOT NULL,
    next_try_at TEXT NOT NULL,
    settled_at  TEXT,
    last_error  TEXT NOT NULL
) STRICT;
CREATE INDEX effect_owed ON effect (kind, next_try_at) WHERE state = 'owed';
CREATE INDEX effect_by_incident ON effect (incident_id);
"""

STEPS = (
    _SCHEMA,
    "ALTER TABLE incident ADD COLUMN originals TEXT NOT NULL DEFAULT '[]';",  # JSON
    # Publishing became one effect of the whole clip; before, each part was one.
    """
    ALTER TABLE incident ADD COLUMN takeovers INTEGER NOT NULL DEFAULT 0;  -- how often a starting daemon took it up
    INSERT INTO effect SELECT
        incident.id || '/publish/', incident.id, 'publish', '',
        iif(incident.state = 'closed', iif(sum(effect.state != 'done') > 0, 'dead', 'done'), 'owed'),
        0, incident.at, incident.at, NULL, ''
    FROM incident LEFT JOIN effect ON effect.incident_id = incident.id AND effect.kind = 'upload' GROUP BY incident.id;
    DELETE FROM effect WHERE kind = 'upload';
    """,
    "CREATE INDEX effect_open ON effect (incident_id) WHERE state IN ('owed', 'dead');",
    # What is due, and how old something is, went by the wall clock before.
    """
    ALTER TABLE incident ADD COLUMN ended_lived TEXT;     -- `ended_at` in lived time
    ALTER TABLE effect ADD COLUMN reminded_at TEXT;       -- of lived time, as `owed_at` and `next_try_at` are
    CREATE TABLE mark (
        only_one    INTEGER PRIMARY KEY CHECK (only_one = 1),
        lived       TEXT NOT NULL,
        wall        TEXT NOT NULL,
        boot_id     TEXT NOT NULL,
        monotonic_s REAL NOT NULL
    ) STRICT;
    """,
)
"""From each version of the schema to the next one; a new journal takes them all."""

SCHEMA_VERSION = len(STEPS)
"""`PRAGMA user_version` of what this code reads and writes."""

AGED = "UPDATE incident SET ended_lived = '{now}' WHERE ended_lived IS NULL AND state NOT IN ('triggered', 'recording');"
"""With the time put in. Clips of a journal that knew no lived time are as old as that."""

MARK = (
    "INSERT INTO mark (only_one, lived, wall, boot_id, monotonic_s) VALUES (1, :lived, :wall, :boot_id, :monotonic_s)"
    " ON CONFLICT (only_one) DO UPDATE SET lived = :lived, wall = :wall, boot_id = :boot_id, monotonic_s = :monotonic_s"
)

OWE = (
    "INSERT INTO effect (key, incident_id, kind, what, state, attempts, owed_at, next_try_at, last_error)"
    " VALUES (:key, :incident_id, :kind, :what, 'owed', 0, :now, :due_at, '') ON CONFLICT (key) DO NOTHING"
)

OPEN = (
    "INSERT INTO incident (id, camera, state, at, detection, detections, ended_at, pre_roll_s, parts, originals, no_video,"
    " problem, playable_at, takeovers, ended_lived) VALUES (:id, :camera, :state, :at, :detection, :detections, :ended_at,"
    " :pre_roll_s, :parts, :originals, :no_video, :problem, :playable_at, :takeovers, :ended_lived)"
)

ADOPT = f"{OPEN} ON CONFLICT (id) DO NOTHING"
ADOPT_EFFECT = (
    "INSERT INTO effect (key, incident_id, kind, what, state, attempts, owed_at, next_try_at, settled_at, last_error,"
    " reminded_at) VALUES (:key, :incident_id, :kind, :what, :state, :attempts, :owed_at, :next_try_at, :settled_at,"
    " :last_error, :reminded_at) ON CONFLICT (key) DO NOTHING"
)

DONE_ALREADY = (
    "UPDATE effect SET state = 'done', attempts = :attempts, settled_at = :settled_at, last_error = ''"
    " WHERE key = :key AND state = 'owed'"
)

_LADDER = " ".join(IncidentState)
ADVANCED = f"state = iif(instr('{_LADDER}', :state) > instr('{_LADDER}', state), :state, state)"
"""A state only ever moves on, whoever writes last."""
NOTED = "no_video = coalesce(no_video, :no_video), problem = iif(problem = '', :problem, problem)"
"""What went wrong first is what is told."""

RECORD = (
    f"UPDATE incident SET {ADVANCED}, detection = :detection, detections = :detections, ended_at = :ended_at,"  # noqa: S608 - constants
    f" pre_roll_s = :pre_roll_s, parts = :parts, originals = :originals, {NOTED},"
    " ended_lived = coalesce(ended_lived, :ended_lived) WHERE id = :id"
)

CLOSE = (
    "UPDATE incident SET state = 'closed' WHERE id = :id AND state IN ('sealed', 'published')"
    " AND NOT EXISTS (SELECT 1 FROM effect WHERE incident_id = :id AND state = 'owed')"
)

FOLLOW_UPS_DUE = (
    "UPDATE effect SET next_try_at = min(next_try_at, :now) WHERE state = 'owed' AND kind = 'follow_up' AND attempts = 0"
    " AND incident_id = (SELECT id FROM incident WHERE id = :incident_id AND playable_at IS NOT NULL)"
)

PROMISED = (
    "JOIN incident ON incident.id = effect.incident_id WHERE effect.kind = 'follow_up' AND effect.state = 'owed'"
    " AND effect.next_try_at > :now AND incident.playable_at IS NULL"
    " AND (coalesce(incident.no_video, 'refused') = 'refused' OR effect.reminded_at IS NULL)"
)
"""Links that somebody waits for. That nothing was recorded is a reason to remind once."""

# What was given up

_HOPELESS = (
    "kind IN ('publish', 'follow_up') AND (SELECT parts = '[]' AND state NOT IN ('triggered', 'recording')"
    " FROM incident WHERE incident.id = effect.incident_id)"
)
"""Nothing was recorded, so that there is nothing to publish and no link to send, however often it is tried."""

OWING = f"id IN (SELECT incident_id FROM effect WHERE state IN ('owed', 'dead') AND NOT ({_HOPELESS}))"  # noqa: S608 - constants
"""Incidents of which something is owed, or was given up and might still be done."""

AGAIN = (
    "incident_id = coalesce(:incident_id, incident_id) AND state IN ('owed', 'dead') AND (state = 'dead' OR attempts > 0)"
    f" AND NOT ({_HOPELESS})"
)
"""Effects that were tried and failed: given up, or waiting for their next try."""

_GIVEN_UP = f"SELECT 1 FROM effect WHERE incident_id = incident.id AND state = 'dead' AND {AGAIN}"  # noqa: S608 - constants

# Who was told that no video will come is owed the link, should it come now.
_PROMISE_LINKS = (
    "INSERT INTO effect (key, incident_id, kind, what, state, attempts, owed_at, next_try_at, last_error)"  # noqa: S608 - constants
    " SELECT told.incident_id || '/follow_up/' || told.what, told.incident_id, 'follow_up', told.what, 'owed', 0, :now,"
    " :links_until, '' FROM effect AS told JOIN incident ON incident.id = told.incident_id WHERE told.kind = 'alert'"
    " AND told.state = 'done' AND incident.no_video = 'refused' AND incident.playable_at IS NULL"
    f" AND EXISTS ({_GIVEN_UP} AND kind = 'publish') ON CONFLICT (key) DO NOTHING"
)
_HOPE_AGAIN = (
    "UPDATE incident SET no_video = nullif(no_video, 'refused'), problem = iif(problem ="  # noqa: S608 - constants
    " (SELECT last_error FROM effect WHERE incident_id = incident.id AND kind = 'publish'), '', problem)"
    f" WHERE EXISTS ({_GIVEN_UP} AND kind = 'publish')"
)
_REOPEN = (
    "UPDATE incident SET state = iif(EXISTS (SELECT 1 FROM effect WHERE incident_id = incident.id AND kind = 'publish'"  # noqa: S608 - constants
    f" AND state = 'done'), 'published', 'sealed') WHERE state = 'closed' AND EXISTS ({_GIVEN_UP})"
)
# Given up, it begins a new life: age and delays count from now on. What only waits keeps its age.
_OWE_AGAIN = (
    "UPDATE effect SET state = 'owed', settled_at = NULL, owed_at = iif(state = 'dead', :now, owed_at),"  # noqa: S608 - constants
    " attempts = iif(state = 'dead', 0, attempts), next_try_at = iif(kind = 'follow_up' AND (SELECT playable_at FROM incident"
    f" WHERE incident.id = effect.incident_id) IS NULL, :links_until, :now) WHERE {AGAIN}"
)
REVIVE = (_PROMISE_LINKS, _HOPE_AGAIN, _REOPEN, _OWE_AGAIN)
"""In this order, in one commit."""
