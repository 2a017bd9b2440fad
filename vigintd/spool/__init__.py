"""The spool: the folder where clips are written before anything else may be told of them.

Owns the files of that folder, their names, their durability and the hash that is their evidence. Knows bytes
and fragments, not video: who writes here has cut them (see `fmp4`). Every call that may wait for the disk runs on
threads of its own, so that a slow disk holds up neither the loop nor name look-ups. What may be deleted, and
when, is not decided here, but for sources: they go with `SourceFile.drop`.
"""

from vigintd.spool.disk import Measure, NotDurable, measure
from vigintd.spool.growing import PartFile, SourceFile
from vigintd.spool.spool import Spool
from vigintd.spool.stored import StoredPart, Weight

__all__ = ["Measure", "NotDurable", "PartFile", "SourceFile", "Spool", "StoredPart", "Weight", "measure"]
