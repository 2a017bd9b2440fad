"""vigintd: a detection becomes a private link in an inbox, on one box, with nothing lost on the way."""

__version__ = "0.1.0"
