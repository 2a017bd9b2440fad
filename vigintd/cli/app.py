"""The typer application: each command's options, and what it calls.

Owns no logic: a command reads the settings, calls one thing, and hands its answer to `output`.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from vigintd import __version__
from vigintd.cli.ending import INTERRUPTED, Endings, prepare
from vigintd.cli.links import keys_app, links_app
from vigintd.cli.options import ConfigOption, JsonOption, control_socket
from vigintd.cli.verify import verify
from vigintd.control import MAX_LIMIT
from vigintd.errors import ConfigError, PermanentError, VigintdError

if TYPE_CHECKING:
    from vigintd.config import Settings
    from vigintd.control.client import ControlClient

app = typer.Typer(
    name="vigintd",
    cls=Endings,
    help="A camera sees something; within two seconds the right people hold a private link in an e-mail.",
    no_args_is_help=True,
    rich_markup_mode=None,  # plain sentences, the same on a terminal and in a file
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)
incidents_app = typer.Typer(help="Incidents that the running vigintd knows.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(incidents_app, name="incidents")
cameras_app = typer.Typer(help="Cameras in the network.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(cameras_app, name="cameras")
app.add_typer(links_app, name="links")
linkhost_app = typer.Typer(help="The built-in link host.", no_args_is_help=True, rich_markup_mode=None)
linkhost_app.add_typer(keys_app, name="keys")
app.add_typer(linkhost_app, name="linkhost")
app.command(short_help="Say whether a file is a clip of this box, as it was sealed.")(verify)


def main() -> None:
    """The entry point: run the command that was typed, and exit."""
    prepare()
    app(prog_name="vigintd")


def _say_version(asked: bool) -> None:
    if asked:
        typer.echo(f"vigintd {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Say which vigintd this is.")
    ] = False,
) -> None:
    assert not version, "the option ends the process"


@app.command(short_help="Watch the cameras and send alerts, until told to stop.")
def run(
    config: ConfigOption = None,
    log_format: Annotated[
        Literal["auto", "console", "journald", "json"], typer.Option(help="How log lines look; auto asks who reads them.")
    ] = "auto",
    log_level: Annotated[Literal["debug", "info", "warning", "error"], typer.Option(help="The least that is logged.")] = "info",
) -> None:
    """Watch the cameras and send alerts, until told to stop."""
    import structlog  # noqa: PLC0415  (here and below: see the package)

    from vigintd import failpoints, logs  # noqa: PLC0415
    from vigintd.clock import SystemClock  # noqa: PLC0415

    logs.configure(log_format, level=log_level)
    settings = _settings(config)
    try:
        failpoints.arm_from_environment()
    except ValueError as error:
        raise PermanentError(f"VIGINTD_FAILPOINTS: {error}") from None
    from vigintd.daemon import serve  # noqa: PLC0415

    try:
        asyncio.run(serve(settings, clock=SystemClock.from_environment()))
    except asyncio.CancelledError:
        # A second signal: somebody would not wait for the drain.
        raise typer.Exit(INTERRUPTED) from None
    except VigintdError:
        raise
    except Exception:
        structlog.get_logger(__name__).exception("daemon.crashed")
        raise


@app.command(short_help="Try everything that is configured; say what is wrong.")
def check(config: ConfigOption = None, *, as_json: JsonOption = False) -> None:
    """Try everything that is configured, and say what is wrong and what to do."""
    from vigintd import logs  # noqa: PLC0415
    from vigintd.cli import output  # noqa: PLC0415

    logs.configure("console", level="critical")  # what fails is in the table
    try:
        settings = _settings(config)
    except ConfigError as error:
        if as_json:
            output.print_json(
                {"ok": False, "faults": [{"where": f.where, "key": f.key, "problem": f.problem} for f in error.faults]}
            )
        raise
    from vigintd.cli.check import State, examine, real_probes  # noqa: PLC0415

    with output.busy("trying cameras, host and mail server…"):
        findings = asyncio.run(examine(settings, real_probes()))
    if as_json:
        output.print_json(output.findings_as_json(findings))
    else:
        output.print_findings(findings)
    if any(finding.state is State.FAILED for finding in findings):
        raise typer.Exit(1)


@app.command(short_help="Open an incident by hand, or extend the one that is open.")
def trigger(
    camera: Annotated[str, typer.Argument(metavar="CAMERA", help="Name of a configured camera.", show_default=False)],
    config: ConfigOption = None,
    *,
    type_: Annotated[str, typer.Option("--type", help="What happened, as the alert says it.")] = "trigger",
    risk: Annotated[
        Literal["LOW", "MEDIUM", "HIGH", "UNKNOWN"],
        typer.Option(case_sensitive=False, metavar="RISK", help="How grave it is: LOW, MEDIUM, HIGH or UNKNOWN."),
    ] = "UNKNOWN",
    confidence: Annotated[float | None, typer.Option(min=0, max=1, show_default=False, help="From 0 to 1.")] = None,
    text: Annotated[str, typer.Option(help="More words for the alert.", show_default=False)] = "",
    as_json: JsonOption = False,
) -> None:
    """Open an incident on a camera of the running vigintd, or extend it, as if a detector had seen something now."""
    client = _client(config)
    from vigintd.model import Risk  # noqa: PLC0415

    done = asyncio.run(client.trigger(camera, type=type_, risk=Risk(risk), confidence=confidence, text=text))
    if as_json:
        from vigintd.cli import output  # noqa: PLC0415

        output.print_json({"incident_id": done.incident_id, "camera": camera, "opened": done.opened})
    else:
        typer.echo(f"incident {done.incident_id} on camera {camera} {'opened' if done.opened else 'extended'}")


@incidents_app.command("list")
def incidents_list(
    config: ConfigOption = None,
    *,
    limit: Annotated[int, typer.Option(min=1, max=MAX_LIMIT, help="How many, newest first.")] = 20,
    owed: Annotated[bool, typer.Option("--owed", help="Only where something is still to be sent, or was given up.")] = False,
    as_json: JsonOption = False,
) -> None:
    """The newest incidents, newest first."""
    found = asyncio.run(_client(config).incidents(limit, owed=owed))
    from vigintd.cli import output  # noqa: PLC0415

    if as_json:
        output.print_json(found)
    elif owed:
        output.print_owed(found)
    else:
        output.print_incidents(found)


@incidents_app.command("show")
def incidents_show(
    incident_id: Annotated[
        str, typer.Argument(metavar="ID", help="As `vigintd incidents list` shows it, or how it begins.", show_default=False)
    ],
    config: ConfigOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """All that is known of one incident."""
    incident = asyncio.run(_client(config).incident_like(incident_id))
    if incident is None:
        raise PermanentError(f"there is no incident {incident_id}; see: vigintd incidents list")
    from vigintd.cli import output  # noqa: PLC0415

    if as_json:
        output.print_json(incident)
    else:
        output.print_incident(incident)


@cameras_app.command("discover")
def cameras_discover(
    address: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="ADDRESS", show_default=False, help="Ask only these (ADDRESS or ADDRESS:PORT), and do not search."
        ),
    ] = None,
    *,
    timeout: Annotated[float, typer.Option(min=1, max=60, metavar="S", help="Seconds to wait for answers to the search.")] = 4,
    interface: Annotated[
        str | None, typer.Option(metavar="ADDRESS", show_default=False, help="Search only from this address of this machine.")
    ] = None,
    username: Annotated[str | None, typer.Option(metavar="NAME", show_default=False, help="A user of the cameras.")] = None,
    password_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", show_default=False, help="Its password is the first line of FILE."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Find cameras by ONVIF: their streams, and a configuration to paste.

    A password is never sent: each camera that asks for one gets proof of it. Name ADDRESSes to prove it to those alone.
    """
    from vigintd import logs  # noqa: PLC0415
    from vigintd.cli import cameras, output  # noqa: PLC0415

    logs.configure("console", level="critical")  # what fails is in the table
    try:
        wanted = cameras.wanted(address or (), interface, username, password_file, timeout)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    with output.busy("looking for cameras…"):
        found = asyncio.run(wanted.look())
    cameras.tell(found, wanted, as_json=as_json)
    if not any(camera.usable for camera in found):
        raise typer.Exit(1)


@incidents_app.command("retry")
def incidents_retry(
    incident_id: Annotated[
        str | None,
        typer.Argument(metavar="ID", help="As `vigintd incidents list --owed` shows it, or how it begins.", show_default=False),
    ] = None,
    config: ConfigOption = None,
    *,
    every: Annotated[bool, typer.Option("--all", help="Of every incident.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Try again now what failed of an incident: mails and uploads that were given up or wait for their next try."""
    if every is (incident_id is not None):
        raise typer.BadParameter("name one incident, or --all")
    retried = asyncio.run(_retried(_client(config), incident_id))
    from vigintd.cli import output  # noqa: PLC0415

    if as_json:
        output.print_json({"retried": retried})
    else:
        output.print_retried(retried)


async def _retried(client: ControlClient, beginning: str | None) -> list[dict[str, Any]]:
    if beginning is None:
        return await client.retry(None)
    incident = await client.incident_like(beginning)
    if incident is None:
        raise PermanentError(f"there is no incident {beginning}; see: vigintd incidents list --owed")
    return await client.retry(str(incident.get("id")))


def _needs_none(config: str | None) -> None:
    if config is not None:
        raise typer.BadParameter("the demo needs no configuration; it brings everything with it")


@app.command(short_help="Show the whole way on this machine alone.")
def demo(
    *,
    once: Annotated[bool, typer.Option("--once", help="End when the mail has arrived and the clip is whole.")] = False,
    as_json: JsonOption = False,
    config: Annotated[str | None, typer.Option("--config", "-c", hidden=True, callback=_needs_none)] = None,
) -> None:
    """Show the whole way on this machine alone: a built-in camera, a mail, and a link that plays."""
    from vigintd import logs  # noqa: PLC0415
    from vigintd.demo import run as run_demo  # noqa: PLC0415

    assert config is None, "the option ends the process"
    logs.configure("auto", level="warning")
    asyncio.run(run_demo(once=once, as_json=as_json, out=sys.stdout))


def _settings(config: Path | None) -> Settings:
    from vigintd.config import load, secrets_of  # noqa: PLC0415
    from vigintd.redact import hide  # noqa: PLC0415

    settings = load(config)
    for secret in secrets_of(settings):
        hide(secret)
    return settings


def _client(config: Path | None) -> ControlClient:
    from vigintd.control.client import ControlClient  # noqa: PLC0415

    return ControlClient(control_socket(config))
