"""The link server: takes growing clips from uploaders, shows them to whoever holds a link, keeps the record.

Owns its folder (database, link key, clips), its listeners and its pages. Knows nothing of cameras, mail, journal
or spool, so that it can also run alone.
"""

from vigintd.linkhost.certificate import Certificate
from vigintd.linkhost.host import LinkHost
from vigintd.linkhost.proxies import Proxies
from vigintd.linkhost.store import AuditKind, AuditRow
from vigintd.linkhost.wire import Refusal

__all__ = ["AuditKind", "AuditRow", "Certificate", "LinkHost", "Proxies", "Refusal"]
