"""What a host may answer beside the common errors.

Owns the one refusal that the uploader can mend by itself. Knows no wire.
"""

from __future__ import annotations

from vigintd.errors import HostRefused


class SealMismatch(HostRefused):
    """The host holds other bytes than those that were sealed here; it forgot the part and wants it again.

    A `HostRefused`, since asking for the seal again helps nobody: the bytes have to be sent again first.
    """
