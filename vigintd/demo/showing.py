"""What the demonstration says on a console. Owns the words and the look, nothing that happens."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.panel import Panel
from rich.text import Text

from vigintd.demo.mailbox import Letter


class Showing:
    """Tells the story on one console; a brief one leaves out the mail, the link and what it led to."""

    def __init__(self, console: Console, *, brief: bool = False) -> None:
        self._console = console
        self._brief = brief

    def step(self, sentence: str) -> None:
        """What is being done now."""
        self._line(sentence, style="dim")

    def letter(self, letter: Letter) -> None:
        """The mail, the link by itself so that it can be clicked or copied, and the mail's file."""
        if self._brief:
            self._line(f"A mail came: {letter.path}")
            return
        mail = Text(letter.text.strip())
        title = Text(str(letter.message["Subject"]))
        subtitle = Text(f"from {letter.sender} to {', '.join(letter.recipients)}")
        self._console.print()
        self._console.print(Panel(mail, title=title, subtitle=subtitle, border_style="red", padding=(1, 2)))
        self._line("The link, which plays already:")
        self._line(f"  {letter.link}", style="bold")
        self._line(f"The mail, with its picture: {letter.path}")

    def outcome(self, clip_path: str, sha256: str, mail_s: float, playable_s: float) -> None:
        """The finished clip, and how quick it all was."""
        if self._brief:
            return
        self._line(f"The clip is whole, and the same behind the link: {clip_path}")
        self._line(f"  SHA-256 {sha256}")
        self._line(f"From the detection: {playable_s:.2f} s until the link played, {mail_s:.2f} s until the mail was accepted.")

    def kept(self, folder: Path) -> None:
        """Where everything is, when all is over."""
        self._line(f"Everything is kept in {folder}")

    def serving(self, letter: Letter) -> None:
        """That it is the user's turn."""
        if self._brief:
            self._line("The link is served until Ctrl-C.")
            return
        self._console.print()
        self._line(f"Open the link; it is served until Ctrl-C. Then all of this goes away.\n  {letter.link}", style="bold")

    def _line(self, text: str, style: str = "") -> None:
        # Never wrapped: a link broken in two is none.
        self._console.print(Text(text, style=style), soft_wrap=True)
