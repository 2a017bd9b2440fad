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
from pydantic_core import ErrorDetails
from pydantic_settings import EnvSettingsSource

from vigintd.config.settings import ENV_PREFIX, Key, Places, Settings, dotted, missing_detectors
from vigintd.errors import ConfigError, Fault

DEFAULT_CONFIG = Path("/etc/vigintd/vigintd.toml")

CREDENTIALS_FOLDER = "credentials"
"""Beside the configuration file: what the unit loads, read where no service manager has handed it over."""

_OTHER_VARIABLES = frozenset({"config", "every_point", "failpoints", "footage", "test_clock_file", "test_shots"})
"""What begins like a setting's variable and is none."""

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
    layers, faults = _read_layers(path, environ, with_credentials=False)
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


def _read_layers(
    path: Path | None, environ: Mapping[str, str], *, with_credentials: bool = True
) -> tuple[list[_Layer], list[Fault]]:
    """The sources, weakest first, and what could not be read or means nothing in them."""
    path = path or Path(environ.get("VIGINTD_CONFIG") or DEFAULT_CONFIG)
    runtime = environ.get("RUNTIME_DIRECTORY", "").split(":")[0]
    layers = [_Layer({"runtime_dir": runtime} if runtime else {}, "RUNTIME_DIRECTORY"), _Layer(_read_toml(path), str(path))]
    faults: list[Fault] = []
    folder = Path(environ.get("CREDENTIALS_DIRECTORY") or path.parent / CREDENTIALS_FOLDER)
    for variables, prefix, where in (
        (_read_credentials(folder, faults) if with_credentials else {}, "", lambda name: str(_credential(folder, name))),
        (_read_dotenv(Path(".env"), faults), ENV_PREFIX, ".env: {}".format),
        (environ, ENV_PREFIX, str),
    ):
        names = {_key(name, prefix): name for name in variables if name.upper().startswith(prefix)}
        faults += [
            Fault(where(name), dotted(key), "is not a known key" + _did_you_mean(key[:1]))
            for key, name in names.items()
            if key[0] not in Settings.model_fields and not (len(key) == 1 and key[0] in _OTHER_VARIABLES)
        ]
        layers.append(_Layer(_Variables(variables, prefix)(), str(path), {key: where(name) for key, name in names.items()}))
    return layers, faults


def _key(name: str, prefix: str) -> Key:
    return tuple(name[len(prefix) :].lower().split("__"))


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        # Some editors put a byte order mark before UTF-8.
        return tomllib.loads(path.read_bytes().decode("utf-8-sig"))
    except FileNotFoundError:
        problem = "there is no such file; name one with --config, or copy vigintd.toml.example there"
    except OSError as error:
        problem = f"cannot be read: {_reason(error)}"
    except UnicodeDecodeError as error:
        problem = f"is not TOML: byte {error.start + 1} is not UTF-8"
    except tomllib.TOMLDecodeError as error:
        problem = f"is not TOML: {error}"
    raise ConfigError((Fault(str(path), "", problem),))


def _credential(folder: Path, name: str) -> Path:
    prefixed = folder / (_CREDENTIAL_PREFIX + name)
    return prefixed if prefixed.exists() else folder / name


def _read_credentials(folder: Path, faults: list[Fault]) -> dict[str, str]:
    found: dict[str, str] = {}
    try:
        paths = sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return found
    except OSError as error:
        faults.append(Fault(str(folder), "", f"cannot be read: {_reason(error)}"))
        return found
    for path in paths:
        # Others' credentials, and what editors leave, are none of our business.
        if "__" not in path.name or path.name.startswith(".") or path.name.endswith("~"):
            continue
        name = path.name.removeprefix(_CREDENTIAL_PREFIX)
        try:
            if path.is_file():
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
    if isinstance(error, UnicodeDecodeError):
        return "is not UTF-8"
    words = error.strerror or type(error).__name__
    return f"{words}; run it as root (sudo)?" if isinstance(error, PermissionError) else words


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
    details = error.errors(include_url=False, include_input=False)
    values = _merged(layers)
    keys = [_as_written(tuple(piece for piece in detail["loc"] if piece != "[key]"), values) for detail in details]
    for key, detail in zip(keys, details, strict=True):
        if not key:
            continue  # the detectors that do not exist, told by `load` each by itself
        if detail["type"] == "too_short" and any(other[:-1] == key for other in keys):
            continue  # its items are wrong, not few
        yield Fault(_origin(key, layers), dotted(key), _problem(key, detail))


def _as_written(key: Key, values: Mapping[str, Any]) -> Key:
    """The key without the index of a list where somebody wrote the one value alone."""
    value: Any = values
    for piece in key[:-1]:
        value = value.get(piece) if isinstance(value, Mapping) else None
    return key[:-1] if isinstance(value, str) else key


_PLAIN = {
    "missing": "is required",
    "tuple_type": 'should be a list, such as ["one", "two"]',
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float", "int_parsing_size"), "should be a whole number"),
    **dict.fromkeys(("float_type", "float_parsing", "finite_number"), "should be a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "should be true or false"),
    **dict.fromkeys(("string_type", "path_type"), "should be text in quotes"),
}
"""The validator's types of errors, in words for somebody who writes TOML."""


def _problem(key: Key, detail: ErrorDetails) -> str:
    """What is wrong with the key's value; never the value, which may be a secret."""
    context = detail.get("ctx", {})
    match detail["type"]:
        case "extra_forbidden":
            problem = "is not a known key" + _did_you_mean(key)
        case "value_error":
            problem = str(context["error"])
        case "too_short" if key == ("mail", "recipients"):
            problem = "needs at least one address"
        case "too_short":
            problem = f"needs at least {context['min_length']}"
        case "too_long":
            problem = f"has more than {context['max_length']}"
        case "string_too_long":
            problem = f"should have at most {context['max_length']} characters"
        case "model_type" | "model_attributes_type":
            name = f"{key[0]}.NAME" if key[0] in ("cameras", "detectors") else dotted(key)
            problem = f"should be a section: [{name}]"
        case "dict_type":
            problem = f"should be one section for each: write [{dotted(key)}.NAME]"
        case kind:
            problem = _PLAIN.get(kind, detail["msg"].removeprefix("Input "))
    return problem


def _did_you_mean(key: Key) -> str:
    model: Any = Settings
    if len(key) > 1:
        section: Any = Settings.model_fields[str(key[0])].annotation
        model = (get_args(section) or (section,))[-1]
    near = difflib.get_close_matches(str(key[-1]), model.model_fields, n=1)
    return f"; did you mean {near[0]}?" if near else ""
