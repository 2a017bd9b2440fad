"""`vigintd links` and `vigintd linkhost keys`: their options, and what of the running daemon each asks.

Owns no logic: what may be done is the link host's to say, how it looks is `link_output`'s.
"""

from __future__ import annotations

import asyncio
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vigintd.cli.options import ConfigOption, JsonOption, control_socket
from vigintd.control import MAX_LIMIT
from vigintd.errors import PermanentError

if TYPE_CHECKING:
    from vigintd.control.link_client import LinkClient

ClipArgument = Annotated[
    str, typer.Argument(metavar="ID", help="As `vigintd links list` shows it, or how it begins.", show_default=False)
]

links_app = typer.Typer(help="Links to clips: who has them, who used them.", no_args_is_help=True, rich_markup_mode=None)
keys_app = typer.Typer(help="API keys of those who upload here.", no_args_is_help=True, rich_markup_mode=None)


@links_app.command("list")
def links_list(
    config: ConfigOption = None,
    *,
    limit: Annotated[int, typer.Option(min=1, max=MAX_LIMIT, help="How many, newest first.")] = 20,
    gone: Annotated[bool, typer.Option("--gone", help="Also clips that are deleted.")] = False,
    as_json: JsonOption = False,
) -> None:
    """The newest clips that are published here, newest first."""
    found = asyncio.run(_client(config).links(limit, gone=gone))
    from vigintd.cli import link_output, output  # noqa: PLC0415  (here and below: see the package)

    if as_json:
        output.print_json(found)
    else:
        link_output.print_links(found)


@links_app.command("show")
def links_show(
    clip: ClipArgument,
    config: ConfigOption = None,
    *,
    link: Annotated[
        str | None,
        typer.Option("--link", metavar="RECIPIENT", show_default=False, help="Print this recipient's link, and nothing else."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """One clip: its recipients, how long their links live, and who came."""
    from vigintd.cli import link_output, output  # noqa: PLC0415

    client = _client(config)
    if link is not None:
        told = asyncio.run(client.link(clip, link))
        if as_json:
            output.print_json({"recipient": link, "link": told})
        else:
            typer.echo(told)
        return
    found = asyncio.run(client.links_of(clip))
    if as_json:
        output.print_json(found)
    else:
        link_output.print_clip(found)


@links_app.command("grant")
def links_grant(
    clip: ClipArgument,
    recipient: Annotated[str, typer.Argument(metavar="RECIPIENT", help="Whose link.", show_default=False)],
    config: ConfigOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Give a link to one more recipient, or a new one to somebody whose link was revoked, and print it."""
    done = asyncio.run(_client(config).grant(clip, recipient))
    _say_secret(done, done["link"], as_json=as_json)


@links_app.command("extend")
def links_extend(
    clip: ClipArgument,
    hours: Annotated[float, typer.Argument(metavar="HOURS", help="By how many hours.", show_default=False)],
    config: ConfigOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Let the links of a clip live longer, up to 30 days after it was made."""
    if not 0 < hours < math.inf:
        raise typer.BadParameter("HOURS is a number above 0")
    done = asyncio.run(_client(config).extend(clip, hours))
    _say(done, f"the links of {done['clip']} live until {_moment(done['expires_at'])}", as_json=as_json)


@links_app.command("revoke")
def links_revoke(
    clip: ClipArgument,
    recipient: Annotated[
        str | None, typer.Argument(metavar="RECIPIENT", help="Whose link; or --all.", show_default=False)
    ] = None,
    config: ConfigOption = None,
    *,
    every: Annotated[bool, typer.Option("--all", help="Every link of the clip.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Make links worthless, at once and for good: who holds one reads what a stranger reads."""
    if every is (recipient is not None):
        raise typer.BadParameter("name one recipient, or --all")
    done = asyncio.run(_client(config).revoke(clip, recipient))
    revoked = ", ".join(done["revoked"])
    _say(done, f"revoked: {revoked}" if revoked else "nothing to revoke: it was revoked before", as_json=as_json)


@links_app.command("hold")
def links_hold(
    clip: ClipArgument,
    config: ConfigOption = None,
    *,
    reason: Annotated[str, typer.Option("--reason", show_default=False, help="Why; it stays in the record.")],
    as_json: JsonOption = False,
) -> None:
    """Keep a clip beyond its time, until it is released. Its links expire as before, unless they are extended."""
    done = asyncio.run(_client(config).hold(clip, reason))
    _say(done, f"{done['clip']} is held, until: vigintd links release", as_json=as_json)


@links_app.command("release")
def links_release(clip: ClipArgument, config: ConfigOption = None, *, as_json: JsonOption = False) -> None:
    """Hold a clip no longer: it is deleted when its links expire, and at once when that has passed."""
    done = asyncio.run(_client(config).release(clip))
    _say(done, f"{done['clip']} is held no longer; it is deleted at {_moment(done['expires_at'])}", as_json=as_json)


@links_app.command("audit")
def links_audit(
    clip: Annotated[
        str | None, typer.Argument(metavar="ID", help="Of one clip; of all when not given.", show_default=False)
    ] = None,
    config: ConfigOption = None,
    *,
    as_json: JsonOption = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Answer in CSV.")] = False,
    verify: Annotated[bool, typer.Option("--verify", help="Check that no line was changed, removed or added.")] = False,
    head: Annotated[
        str | None, typer.Option("--head", show_default=False, help="With --verify: a head that was noted earlier.")
    ] = None,
) -> None:
    """The record of every touch: who, when, from where, and what was fetched."""
    if as_json and as_csv:
        raise typer.BadParameter("--json or --csv")
    if verify and (clip is not None or as_csv):
        raise typer.BadParameter("--verify goes through the whole record and answers in a sentence or with --json")
    if head is not None and not verify:
        raise typer.BadParameter("--head goes with --verify")
    client = _client(config)
    if verify:
        _verify(client, head, as_json=as_json)
        return
    from vigintd.cli import link_output  # noqa: PLC0415

    asyncio.run(link_output.print_record(client.audit(clip), "json" if as_json else "csv" if as_csv else "table"))


@keys_app.command("list")
def keys_list(config: ConfigOption = None, *, as_json: JsonOption = False) -> None:
    """Who may upload here, and how much is held for each."""
    found = asyncio.run(_client(config).keys())
    from vigintd.cli import link_output, output  # noqa: PLC0415

    if as_json:
        output.print_json(found)
    else:
        link_output.print_keys(found)


@keys_app.command("add")
def keys_add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of who uploads, such as the NVR's.", show_default=False)],
    config: ConfigOption = None,
    *,
    quota_mb: Annotated[
        float | None,
        typer.Option(
            min=1, show_default=False, metavar="MB", help="The most that is held of its clips; as before when not given."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make an API key and print it, this once. A name may have two, so that a key can be changed without a gap."""
    done = asyncio.run(_client(config).add_key(name, quota_mb))
    _say_secret(done, done["api_key"], as_json=as_json)


@keys_app.command("remove")
def keys_remove(
    name: Annotated[str, typer.Argument(metavar="NAME", show_default=False, help="As `vigintd linkhost keys list` shows it.")],
    key: Annotated[str | None, typer.Argument(metavar="KEY", show_default=False, help="Which, where it has two.")] = None,
    config: ConfigOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Take an API key no more, at once. The clips of its name stay until they expire."""
    done = asyncio.run(_client(config).remove_key(name, key))
    _say(done, f"key {done['key']} of {done['name']} opens nothing any more", as_json=as_json)


def _verify(client: LinkClient, head: str | None, *, as_json: bool) -> None:
    from vigintd.cli import output  # noqa: PLC0415
    from vigintd.cli.record import checked  # noqa: PLC0415

    try:
        result = asyncio.run(checked(client, head))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    if as_json:
        output.print_json(result.as_json())
        raise typer.Exit(1 if result.problem else 0)
    if result.problem:
        raise PermanentError(f"the record is not whole: {result.problem}")
    typer.echo(result.sentence())


def _client(config: Path | None) -> LinkClient:
    from vigintd.control.link_client import LinkClient  # noqa: PLC0415

    return LinkClient(control_socket(config))


def _say(done: dict[str, Any], sentence: str, *, as_json: bool) -> None:
    from vigintd.cli import output  # noqa: PLC0415

    if as_json:
        output.print_json(done)
    else:
        output.print_lines(output.plain_text(sentence))


def _say_secret(done: dict[str, Any], secret: str, *, as_json: bool) -> None:
    """Something to be pasted: on one line, however narrow the terminal is."""
    if as_json:
        _say(done, "", as_json=True)
    else:
        typer.echo(secret)


def _moment(text: object) -> str:
    from vigintd.cli import output  # noqa: PLC0415

    return output.local_time(text)
