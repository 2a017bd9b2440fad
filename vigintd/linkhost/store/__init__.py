"""The link host's own database: clips, their parts, who may see them, and the record of every touch.

Owns `linkhost.sqlite3`, its schema and every statement on it. Nothing in it opens a clip: of API keys it holds hashes,
of links only whom they are for. Rows of clips that are gone stay, with their record.
"""

from vigintd.linkhost.store.audit import MAX_AUDIT_ROWS, Record
from vigintd.linkhost.store.chain import Check, Head
from vigintd.linkhost.store.database import StoreError
from vigintd.linkhost.store.keys import ApiKey, Keys, Uploader
from vigintd.linkhost.store.rows import AuditKind, AuditRow, Clip, Part
from vigintd.linkhost.store.schema import SCHEMA_VERSION
from vigintd.linkhost.store.store import Recipient, Store

__all__ = [
    "MAX_AUDIT_ROWS",
    "SCHEMA_VERSION",
    "ApiKey",
    "AuditKind",
    "AuditRow",
    "Check",
    "Clip",
    "Head",
    "Keys",
    "Part",
    "Recipient",
    "Record",
    "Store",
    "StoreError",
    "Uploader",
]
