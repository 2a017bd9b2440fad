"""`vigintd cameras discover`: what it says of the cameras that were found, and the configuration made of it.

Owns the words, the table and the TOML to paste. What is found is `camera.discovery`'s.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from ipaddress import IPv4Address
from itertools import count
from pathlib import Path

from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from vigintd.camera.discovery import MAX_CAMERAS, Answer, Credentials, FoundCamera, Profile, discover, named, streams_of
from vigintd.cli.output import plain_text, print_json, print_lines, width_columns
from vigintd.clock import SystemClock
from vigintd.errors import PermanentError
from vigintd.redact import MASK, hide

NOTHING_FOUND = """\
no camera answered within {timeout_s:g} s; check that
  - the cameras are in the same network as this machine (one of its several networks: --interface ADDRESS, see `ip address`)
  - ONVIF is switched on in each camera's own settings, and there is an ONVIF user
  - no firewall on this machine drops what comes from UDP port 3702
or name a camera whose address is known: vigintd cameras discover 10.0.0.11"""

_TABLE_WIDTH = 150
"""With fewer columns, addresses of streams would be cut to pieces; there are lines instead."""
_MAX_PASSWORD_BYTES = 1024
_MAX_NAME = 40


@dataclass(frozen=True, slots=True)
class Wanted:
    """What was asked for."""

    at: tuple[Answer, ...]
    interface: str | None
    timeout_s: float
    credentials: Credentials | None

    async def look(self) -> list[FoundCamera]:
        """The cameras that were found, or what became of those that were named."""
        clock = SystemClock.from_environment()
        return await discover(
            self.at, clock=clock, timeout_s=self.timeout_s, interface=self.interface, credentials=self.credentials
        )


def wanted(
    places: Sequence[str], interface: str | None, username: str | None, password_file: Path | None, timeout_s: float
) -> Wanted:
    """What the options say. Raises `ValueError` for wrong usage, and `PermanentError` where the file holds no password."""
    if len(places) > MAX_CAMERAS:
        raise ValueError(f"at most {MAX_CAMERAS} addresses")
    if interface is not None and places:
        raise ValueError("--interface is for the search; named cameras are asked from wherever they are reached")
    if (username is None) != (password_file is None):
        raise ValueError("--username and --password-file go together; give both or neither")
    if interface is not None:
        _ipv4(interface)
    credentials = Credentials(username, _password(password_file)) if username is not None and password_file else None
    return Wanted(tuple(dict.fromkeys(map(_place, places))), interface, timeout_s, credentials)


def _ipv4(interface: str) -> None:
    try:
        IPv4Address(interface)
    except ValueError:
        raise ValueError("--interface is one of this machine's IPv4 addresses, such as 192.168.1.5; see: ip address") from None


def _place(place: str) -> Answer:
    try:
        return named(place)
    except ValueError:
        raise ValueError(f"{place!r} is no IP address such as 10.0.0.11 or 10.0.0.11:8080") from None


def _password(file: Path) -> str:
    """The first line of the file."""
    try:
        with file.open("rb") as opened:
            line = opened.read(_MAX_PASSWORD_BYTES).split(b"\n", 1)[0].removesuffix(b"\r")
        password = line.decode()
    except OSError as error:
        raise PermanentError(f"{file}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise PermanentError(f"{file}: is not text (UTF-8)") from None
    if not password:
        raise PermanentError(f"{file}: holds no password; write it on the first line")
    hide(password)
    return password


def tell(cameras: Sequence[FoundCamera], asked: Wanted, *, as_json: bool) -> None:
    """Print what was found; where nothing was, raise `PermanentError` with what to check."""
    username = asked.credentials.username if asked.credentials else None
    toml = as_toml(cameras, username=username)
    if as_json:
        print_json({"cameras": [asdict(camera) for camera in cameras], "toml": toml})
    elif cameras:
        print_cameras(cameras, toml, username=username)
    if not cameras:
        raise PermanentError(NOTHING_FOUND.format(timeout_s=asked.timeout_s))


def print_cameras(cameras: Sequence[FoundCamera], toml: str, *, username: str | None) -> None:
    """A row for each stream, on a narrow terminal a line; then what to do, and what to paste."""
    if width_columns() < _TABLE_WIDTH:
        print_lines(*(line for camera in cameras for line in _lines(camera, username)))
    else:
        print_lines(_table(cameras, username))
    for advice in _advice(cameras, username):
        print_lines(Text(f"\n{advice}", overflow="fold"))
    if toml:
        print_lines(Text("\nFor vigintd.toml:\n"))
        # Not by `print_lines`: what is to be pasted must not be folded.
        print(toml, end="")


def _table(cameras: Sequence[FoundCamera], username: str | None) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("address", "camera", "name", "profile", "picture", "codec", "fps", "stream"):
        table.add_column(heading, no_wrap=heading in ("address", "picture", "codec", "fps"), overflow="fold")
    for camera in cameras:
        who = (plain_text(camera.address), plain_text(_made(camera)), plain_text(camera.name))
        for profile in camera.profiles:
            picture = (
                plain_text(profile.name),
                plain_text(_size(profile)),
                plain_text(profile.codec),
                plain_text(_fps(profile)),
            )
            table.add_row(*who, *picture, plain_text(_stream(profile)))
            who = (Text(), Text(), Text())
        if trouble := _trouble(camera, username):
            table.add_row(*who, *(Text() for _ in range(4)), Text.assemble(("! ", "yellow"), plain_text(trouble)))
    return table


def _lines(camera: FoundCamera, username: str | None) -> Iterator[RenderableType]:
    who = ", ".join(filter(None, (_made(camera), camera.name)))
    yield Text.assemble((camera.address, "bold"), "  ", plain_text(who), overflow="fold")
    for profile in camera.profiles:
        told = filter(None, (profile.name, _size(profile), profile.codec, f"{_fps(profile)} fps"))
        yield Padding(
            Text.assemble(plain_text(", ".join(told)), ": ", plain_text(_stream(profile)), overflow="fold"), (0, 0, 0, 2)
        )
    if trouble := _trouble(camera, username):
        yield Padding(Text.assemble(("! ", "yellow"), plain_text(trouble), overflow="fold"), (0, 0, 0, 2))


def _made(camera: FoundCamera) -> str:
    return " ".join(filter(None, (camera.maker, camera.model)))


def _size(profile: Profile) -> str:
    return f"{profile.width_px}x{profile.height_px}" if profile.size_px else "–"


def _fps(profile: Profile) -> str:
    return f"{profile.fps:g}" if profile.fps else "–"


def _stream(profile: Profile) -> str:
    if not profile.url:
        return "no address that can be used"
    return profile.url + (f" (another machine: {profile.elsewhere})" if profile.elsewhere else "")


def _trouble(camera: FoundCamera, username: str | None) -> str:
    if not camera.locked:
        return camera.problem
    return f"refuses the user {username} or the password" if username else "wants a user name and a password"


def _advice(cameras: Sequence[FoundCamera], username: str | None) -> Iterator[str]:
    if any(camera.locked for camera in cameras):
        if username is None:
            yield "For a camera that wants a password: vigintd cameras discover --username NAME --password-file FILE [ADDRESS]"
        else:
            yield "Many cameras keep users for ONVIF apart from those of their web page; see the camera's own settings."
    if any(profile.elsewhere for camera in cameras for profile in camera.profiles):
        yield "A stream on another machine is not configured below by itself: see first that you know that machine."
    if len(cameras) >= MAX_CAMERAS:
        yield f"There may be more: only the first {MAX_CAMERAS} that answered are told."


def as_toml(cameras: Sequence[FoundCamera], *, username: str | None) -> str:
    """A `[cameras.NAME]` for each lens or channel that can be recorded, ready to paste; empty where there is none.

    No password is in it. Every stream that could not be chosen stands beside it as a comment.
    """
    names: set[str] = set()
    return "\n".join(section for camera in cameras for section in _sections(camera, names, username))


def _sections(camera: FoundCamera, names: set[str], username: str | None) -> Iterator[str]:
    doubtful = [profile for profile in camera.profiles if profile.elsewhere]
    for streams in streams_of(camera.profiles):
        name = _name_of(camera, names)
        lines = [f"[cameras.{name}]", _key("url", streams.main)]
        if streams.detect:
            lines.append(_key("detect_url", streams.detect))
        if username is not None:
            lines.append(f"username = {_quoted(username)}")
            lines.append(f"# its password: in the file credentials/cameras__{name}__password beside vigintd.toml, mode 0600")
        if streams.main.codec != "h264":
            lines.append("# clips must be encoded to H.264; choosing H.264 in the camera's own settings spares this")
        lines.append('# detectors = ["mouvement"]  # names of [detectors.NAME]')
        yield "".join(f"{line}\n" for line in (f"# {camera.address}  {_made(camera)}  {camera.name}".rstrip(), *lines))
    if doubtful:
        yield "".join(
            f"# {camera.address} names a stream on another machine, {profile.elsewhere}: {_key('url', profile)}\n"
            for profile in doubtful
        )


def _key(key: str, profile: Profile) -> str:
    masked = f"; put back what {MASK} hides" if MASK in profile.url else ""
    return f"{key} = {_quoted(profile.url)}  # {_size(profile)} {profile.codec}{masked}"


def _quoted(text: str) -> str:
    """A TOML basic string; JSON's escapes are among TOML's."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _name_of(camera: FoundCamera, taken: set[str]) -> str:
    """A name for the configuration from what the camera calls itself; no two alike."""
    words = unicodedata.normalize("NFKD", camera.name or camera.model).encode("ascii", "ignore").decode().lower()
    plain = re.sub("[^a-z0-9]+", "-", words).strip("-")[:_MAX_NAME].rstrip("-") or "camera"
    numbered = (plain if number == 1 else f"{plain}-{number}" for number in count(1))
    name = next(name for name in numbered if name not in taken)
    taken.add(name)
    return name
