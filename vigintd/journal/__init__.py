"""The journal: the SQLite table of incidents, and of every effect owed to the outside.

Owns `journal.sqlite3`, its schema and every statement on it; one that fails is a `JournalUnavailable`. A file that is
damaged when it is opened is set aside and a new one made, which `adopt` fills. Each call
that changes something has committed, synchronously to disk (WAL, synchronous=FULL), when it returns: write before
you promise. An *effect* is a row before it is tried, keyed so that owing it twice is owing it once, and is settled
once it is done. What is due, and how old it is, goes by lived time (`Journal.now`). Decides nothing: when to try again is
the courier's, what to do about it the story's.

One connection, used from the event loop; aiosqlite runs its statements in one thread of its own, in order.
"""

from vigintd.journal.journal import Journal
from vigintd.journal.rows import Effect, EffectKind, EffectState, IncidentRow, Owed, as_plain, of_plain

__all__ = ["Effect", "EffectKind", "EffectState", "IncidentRow", "Journal", "Owed", "as_plain", "of_plain"]
