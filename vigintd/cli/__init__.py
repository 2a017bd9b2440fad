"""The commands a person types: `vigintd run`, `check`, `cameras`, `trigger`, `incidents`, `links`, ….

Owns words, tables, `--json` and exit codes (0 done, 1 failed, 2 wrong usage, 78 bad configuration). What a command
needs is imported when it runs, so that `vigintd --help` is quick.
"""

from vigintd.cli.app import main

__all__ = ["main"]
