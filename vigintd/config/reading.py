"""Reading the settings from everywhere they may stand, and telling every fault with its place.

Owns the order of the sources and the wording of faults; what a key may hold is said in `settings`.
"""

from __future__ import annotations

import difflib
import json
import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import Any, get_args

from dotenv import dotenv_values
from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import EnvSettingsSource

from vigintd.config.settings import ENV_PREFIX, Key, Places, Settings, dotted, missing_detectors
from vigintd.errors import ConfigError, Fault

DEFAULT_CONFIG = Path("/etc/vigintd/vigintd.toml")

_CREDENTIAL_PREFIX = "vigintd_"
"""What systemd puts before each file's name when the unit loads a whole folder, `LoadCredential=vigintd:FOLDER`."""


def load(path: Path | None = None, *, environ: Mapping[str, str] = os.environ) -> Settings:
    """The settings from `path` (or `$VIGINTD_CONFIG`, or `/etc/vigintd/vigintd.toml`) and what overrides it.

    Raises `ConfigError` with every fault found: a file that is missing or not TOML, an unknown key, a wrong
    value, wherever it was written.
    """
    layers, faults = _read_layers(path, environ)
    values = _merged(layers)
    try:
        settings = Settings(**values)
    except ValidationError as error:
        faults += _faults(error, layers)
        faults += [Fault(_origin(key, layers), dotted(key), problem) for key, problem in missing_detectors(values)]
        raise ConfigError(tuple(faults)) from None
    if faults:
        raise ConfigError(tuple(faults))
    return settings


def load_places(path: Path | None = None, *, environ: Mapping[str, str] = os.environ) -> Places:
    """Only where the daemon's socket is, so that a command reaches it without the service's credentials.

    Raises `ConfigError` as `load` does, but says nothing of the other keys.
    """
    layers, faults = _read_layers(path, environ)
    try:
        return Places(**_merged(layers))
    except ValidationError as error:
        raise ConfigError((*faults, *_faults(error, layers))) from None


@dataclass(frozen=True, slots=True)
class _Layer:
    """The values of one source, and where each of them is written."""

    values: dict[str, Any]
    where: str
    """The file, or what stands for a value without a place of its own."""
    places: Mapping[Key, str] = field(default_factory=dict)
    """Key → environment variable or credential file."""

    def holds(self, key: Key) -> bool:
        value: Any = self.values
        for piece in key:
            try:
                value = value[piece]
            except (KeyError, IndexError, TypeError):
                return False
        return True

    def place(self, key: Key) -> str:
        nearest = (self.places[key[:end]] for end in range(len(key), 0, -1) if key[:end] in self.places)
        return next(nearest, self.where)


class _Variables(EnvSettingsSource):
    """pydantic-settings' reading of `SECTION__KEY` names, from a mapping instead of the process's environment."""

    def __init__(self, variables: Mapping[str, str], prefix: str) -> None:
        self._variables = {name.lower(): value for name, value in variables.items()}
        super().__init__(Settings, env_prefix=prefix)

    def _load_env_vars(self) -> Mapping[str, str | None]:
        return self._variables

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:  # noqa: ANN401, ARG002  (the overridden signature)
        # What is not JSON stays text, and is told as a wrong type under its own key, with every other fault.
        try:
            return json.loads(value)
        except ValueError:
            return value


def _read_layers(path: Path | None, environ: Mapping[str, str]) -> tuple[list[_Layer], list[Fault]]:
    """The sources, weakest first, and what could not be read or means nothing in them."""
    path = path or Path(environ.get("VIGINTD_CONFIG") or DEFAULT_CONFIG)
    runtime = environ.get("RUNTIME_DIRECTORY", "").split(":")[0]
    layers = [_Layer({"runtime_dir": runtime} if runtime else {}, "RUNTIME_DIRECTORY"), _Layer(_read_toml(path), str(path))]
    faults: list[Fault] = []
    for variables, prefix, where in (
        (_read_credentials(environ, faults), "", lambda name: str(_credential(environ, name))),
        (_read_dotenv(Path(".env"), faults), ENV_PREFIX, ".env: {}".format),
        (environ, ENV_PREFIX, str),
    ):
        names = {_key(name, prefix): name for name in variables if name.upper().startswith(prefix)}
        faults += [
            Fault(where(name), dotted(key), "is not a known key")
            for key, name in names.items()
            if len(key) > 1 and key[0] not in Settings.model_fields
        ]
        layers.append(_Layer(_Variables(variables, prefix)(), str(path), {key: where(name) for key, name in names.items()}))
    return layers, faults


def _key(name: str, prefix: str) -> Key:
    return tuple(name[len(prefix) :].lower().split("__"))


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except FileNotFoundError:
        problem = "there is no such file; name one with --config, or copy vigintd.toml.example there"
    except OSError as error:
        problem = f"cannot be read: {error.strerror}"
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        problem = f"is not TOML: {error}"
    raise ConfigError((Fault(str(path), "", problem),))


def _credential(environ: Mapping[str, str], name: str) -> Path:
    folder = Path(environ["CREDENTIALS_DIRECTORY"])
    prefixed = folder / (_CREDENTIAL_PREFIX + name)
    return prefixed if prefixed.exists() else folder / name


def _read_credentials(environ: Mapping[str, str], faults: list[Fault]) -> dict[str, str]:
    folder = environ.get("CREDENTIALS_DIRECTORY")
    found: dict[str, str] = {}
    for path in sorted(Path(folder).iterdir()) if folder and Path(folder).is_dir() else ():
        # Others' credentials are none of our business.
        if "__" not in path.name or not path.is_file():
            continue
        try:
            name = path.name.removeprefix(_CREDENTIAL_PREFIX)
            found[name] = path.read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            faults.append(Fault(str(path), "", f"cannot be read: {_reason(error)}"))
    return found


def _read_dotenv(path: Path, faults: list[Fault]) -> dict[str, str]:
    try:
        return {name: value for name, value in dotenv_values(path, interpolate=False).items() if value is not None}
    except (OSError, UnicodeDecodeError) as error:
        faults.append(Fault(str(path), "", f"cannot be read: {_reason(error)}"))
        return {}


def _reason(error: OSError | UnicodeDecodeError) -> str:
    return error.strerror or type(error).__name__ if isinstance(error, OSError) else "is not UTF-8"


def _merged(layers: Sequence[_Layer]) -> dict[str, Any]:
    return reduce(_over, (layer.values for layer in layers), {})


def _over(below: dict[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        merged[key] = _over(under, value) if isinstance(under, dict) and isinstance(value, dict) else value
    return merged


def _origin(key: Key, layers: Sequence[_Layer]) -> str:
    holder = next((layer for layer in reversed(layers) if layer.holds(key)), layers[1])
    return holder.place(key)


def _faults(error: ValidationError, layers: Sequence[_Layer]) -> Iterator[Fault]:
    for detail in error.errors(include_url=False, include_input=False):
        key = tuple(piece for piece in detail["loc"] if piece != "[key]")
        if not key:
            continue  # the detectors that do not exist, told by `load` each by itself
        match detail["type"]:
            case "missing":
                problem = "is required"
            case "extra_forbidden":
                problem = "is not a known key" + _did_you_mean(key)
            case "value_error":
                problem = str(detail["ctx"]["error"])
            case "tuple_type":
                problem = 'should be a list, such as ["one", "two"]'
            case _:
                problem = detail["msg"].removeprefix("Input ")
        yield Fault(_origin(key, layers), dotted(key), problem)


def _did_you_mean(key: Key) -> str:
    model: Any = Settings
    if len(key) > 1:
        section: Any = Settings.model_fields[str(key[0])].annotation
        model = (get_args(section) or (section,))[-1]
    near = difflib.get_close_matches(str(key[-1]), model.model_fields, n=1)
    return f"; did you mean {near[0]}?" if near else ""
