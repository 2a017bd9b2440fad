"""What a host may answer beside the common errors.

Owns the refusals that the uploader can mend by itself. Knows no wire.
"""

from __future__ import annotations

from vigintd.errors import HostRefused


class SealMismatch(HostRefused):
    """The host holds other bytes than those that were sealed here; it forgot the part and wants it again.

    A `HostRefused`, since asking for the seal again helps nobody: the bytes have to be sent again first.
    """


class BodyTooLarge(HostRefused):
    """The host, or a proxy before it, takes no body of this length; a shorter one it may take (RFC 9110, section 15.5.14)."""
