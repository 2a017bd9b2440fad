"""The composition root: builds everything from the settings, joins it by callables, and ends it in order.

Owns the order of starting and stopping, the signals, and what the control socket answers. Nobody else sees the
whole settings.
"""

from vigintd.daemon.serve import serve

__all__ = ["serve"]
