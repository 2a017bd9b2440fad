"""Every key of `vigintd.toml`: its default, its bounds and the sentence that says what is wrong with it.

Owns nothing that reads: values come by argument, from `reading` or from a test. No sentence holds the value of an
address or a secret.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import unquote, urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticKnownError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from vigintd.config.linkhost import LinkhostSettings
from vigintd.config.section import Section, is_loopback, split_address

ENV_PREFIX = "VIGINTD_"
CAMERA_SCHEMES = ("rtsp", "rtsps", "http", "https", "rtmp", "rtmps", "file", "v4l2")

_NOTICE_S = 5.0
_LOOK_BACK_S = 12.0
"""A ring holds so much more than the pre-roll, because a detection comes some time after what it saw: where only key frames
are looked at, up to the longest GOP of which that is so."""

_LOCAL_EXAMPLES = {"file": "file:///ABSOLUTE/PATH", "v4l2": "v4l2:///dev/video0"}

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_ADDRESS = re.compile(r"[^@\s<>,;:\"\\]+@[^@\s<>,;:\"\\]+")

Key = tuple[str | int, ...]
"""A dotted key in pieces: names, and the indexes of lists."""
MailAddress = Annotated[str, StringConstraints(strip_whitespace=True, max_length=254)]


def _plain_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError("cannot name a camera: lower-case letters, digits, - and _ only, at most 63")
    return name


def _camera_address(value: str) -> str:
    parts = split_address(value, "rtsp://10.0.0.11/main")
    if parts.scheme not in CAMERA_SCHEMES:
        raise ValueError(f"is not a camera address; it begins with one of {', '.join(f'{s}://' for s in CAMERA_SCHEMES)}")
    if parts.scheme not in _LOCAL_EXAMPLES and not parts.hostname:
        raise ValueError(f"names no host; write {parts.scheme}://ADDRESS/PATH")
    if parts.scheme in _LOCAL_EXAMPLES and (parts.netloc not in ("", "localhost") or not parts.path.startswith("/")):
        raise ValueError(f"write {_LOCAL_EXAMPLES[parts.scheme]}")
    return value


def _one_or_more(value: object) -> object:
    if not isinstance(value, str | list | tuple):
        raise PydanticKnownError("string_type")
    return (value,) if isinstance(value, str) else value


CameraName = Annotated[str, AfterValidator(_plain_name)]
CameraUrls = Annotated[
    tuple[Annotated[str, AfterValidator(_camera_address)], ...],
    BeforeValidator(_one_or_more),
    Field(min_length=1, max_length=8),
]
"""One address, or several of the same camera that are tried in order."""


class CameraSettings(Section):
    """`[cameras.NAME]`: one configured source."""

    url: CameraUrls
    """Recording stream."""
    detect_url: CameraUrls | None = None
    """A cheaper stream that detectors watch instead."""
    username: str | None = None
    password: SecretStr | None = None
    """Used for both streams; an alternative to writing them into the URLs."""
    transport: Literal["tcp", "udp"] = "tcp"
    """Of RTSP."""
    audio: bool = False
    """Record sound too."""
    keep_original: bool = False
    """Where a clip had to be encoded, keep what the camera sent beside it."""
    pre_roll_s: Annotated[float, Field(ge=0, le=120)] = 10
    post_roll_s: Annotated[float, Field(ge=0, le=600)] = 10
    max_clip_s: Annotated[float, Field(gt=0, le=3600, validate_default=True)] = 120
    ring_mb: Annotated[float, Field(gt=0, le=4096)] = 32
    detect_fps: Annotated[float | None, Field(gt=0, le=60)] = None
    """Pictures a second that detectors are shown at most. When not given: 5 of a detection stream; without one, key
    frames only while nothing moves."""
    open_timeout_s: Annotated[float, Field(gt=0, le=120)] = 10
    stall_timeout_s: Annotated[float, Field(gt=0, le=600)] = 15
    """Without a decoded key frame or any data for so long, the stream is given up and opened anew."""
    frozen_after_s: Annotated[float, Field(ge=0, le=86_400)] = 300
    """With one same picture for so long, the camera counts as lost; 0 never."""
    detectors: tuple[str, ...] = ()

    # What concerns two keys is checked at the later one, so that it is told together with every other fault.
    @field_validator("max_clip_s")
    @classmethod
    def _clip_longer_than_its_ends(cls, value: float, info: ValidationInfo) -> float:
        least = info.data.get("pre_roll_s", 0) + info.data.get("post_roll_s", 0)
        if value < least:
            raise ValueError(f"is {value:g}, shorter than pre_roll_s and post_roll_s together, {least:g}")
        return value

    @property
    def ring_s(self) -> float:
        """How many seconds the ring shall hold, memory permitting."""
        looks_back = self.detectors and self.detect_url is None and self.detect_fps is None
        return self.pre_roll_s + (_LOOK_BACK_S if looks_back else _NOTICE_S)


class DetectorSettings(BaseModel):
    """`[detectors.NAME]`: which detector, and its own options."""

    # The options are the detector's own; whoever builds it checks them.
    model_config = ConfigDict(extra="allow", frozen=True)

    kind: str
    """Name of an installed entry point of the group `vigintd.detectors`."""

    @property
    def options(self) -> dict[str, Any]:
        """Every key but `kind`."""
        return dict(self.model_extra or {})


class SpoolSettings(Section):
    """`[spool]`: how much of its disk the spool may take."""

    keep_free_mb: Annotated[float | None, Field(ge=0)] = None
    """So much of the disk stays free; when not given, as `incident.space.Bounds` has it."""
    max_mb: Annotated[float | None, Field(gt=0)] = None
    """The spool grows no larger; when not given, only `keep_free_mb` bounds it."""


class PublishSettings(Section):
    """`[publish]`: where clips go."""

    host: Literal["linkhost", "tus"] = "linkhost"
    """`linkhost` is the built-in one; `tus` is a vigintd link host elsewhere, at `url`."""
    url: Annotated[str | None, Field(validate_default=True)] = None
    api_key: Annotated[SecretStr | None, Field(validate_default=True)] = None
    expiry_h: Annotated[float, Field(gt=0, le=720)] = 48

    @field_validator("url")
    @classmethod
    def _elsewhere_over_https(cls, value: str | None, info: ValidationInfo) -> str | None:
        if info.data.get("host", "linkhost") == "linkhost":
            return value
        if not value:
            raise ValueError(f'is required with host = "{info.data["host"]}", such as "https://videos.exemple.fr"')
        parts = split_address(value, "https://videos.exemple.fr")
        if not parts.hostname or (parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts.hostname))):
            raise ValueError("begins with https:// (http:// only to this machine)")
        return value

    @field_validator("api_key")
    @classmethod
    def _elsewhere_with_key(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if info.data.get("host", "linkhost") != "linkhost" and not value:
            raise ValueError(
                f'is required with host = "{info.data["host"]}", as a credential (publish__api_key), not in this file'
            )
        return value


class MailSettings(Section):
    """`[mail]`: the mail server, and who is told."""

    server: str
    port: Annotated[int, Field(gt=0, lt=65_536)] = 587
    security: Literal["starttls", "tls", "none"] = "starttls"
    username: str | None = None
    password: Annotated[SecretStr | None, Field(validate_default=True)] = None
    sender: MailAddress
    recipients: Annotated[tuple[MailAddress, ...], Field(min_length=1, max_length=50)]
    timeout_s: Annotated[float, Field(gt=0, le=300)] = 15
    """Deadline of each stage of a delivery."""
    ca_file: Path | None = None
    """PEM file of the authority that signed the server's certificate, where the system does not know it."""

    @field_validator("sender", "recipients")
    @classmethod
    def _mail_address(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        for address in (value,) if isinstance(value, str) else value:
            if not _ADDRESS.fullmatch(address):
                raise ValueError(f"{address!r} is not a mail address")
        return value

    @field_validator("security")
    @classmethod
    def _nothing_in_the_clear(cls, value: str, info: ValidationInfo) -> str:
        if value == "none" and not is_loopback(info.data.get("server", "localhost")):
            raise ValueError('is "none", which is for a server on this machine; write "starttls" or "tls"')
        return value

    @field_validator("password")
    @classmethod
    def _with_username(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if "username" in info.data and (info.data["username"] is None) != (value is None):
            raise ValueError("goes together with username; give both (the password as a credential, mail__password) or neither")
        return value


class AlertSettings(Section):
    """`[alert]`: when people are told what."""

    text_after_s: Annotated[float, Field(gt=0, le=600)] = 20
    """Without a playable link for so long, the alert goes without one."""


class Places(BaseSettings):
    """Where things stand on this machine: all that a command needs to reach the running daemon."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, env_nested_delimiter="__", extra="ignore", frozen=True)

    state_dir: Path = Path("/var/lib/vigintd")
    runtime_dir: Path | None = None
    """Where the control socket lives; `$RUNTIME_DIRECTORY`, or `state_dir`/run."""

    @field_validator("state_dir", "runtime_dir")
    @classmethod
    def _the_same_from_everywhere(cls, value: Path | None) -> Path | None:
        if value is not None and not value.is_absolute():
            raise ValueError("write an absolute path, such as /var/lib/vigintd")
        return value

    @property
    def runtime_path(self) -> Path:
        """Folder of the control socket and of the built-in host's socket."""
        return self.runtime_dir or self.state_dir / "run"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003  (pydantic-settings' signature)
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only arguments: `reading` merges the layers itself, to know where each value came from."""
        return (init_settings,)


class Settings(Places):
    """Everything that can be configured."""

    model_config = SettingsConfigDict(extra="forbid")

    language: Literal["fr", "en"] = "fr"
    site: Annotated[str, StringConstraints(max_length=200)] = ""
    cameras: Annotated[dict[CameraName, CameraSettings], Field(validate_default=True)] = {}
    detectors: dict[str, DetectorSettings] = {}
    spool: SpoolSettings = SpoolSettings()
    publish: PublishSettings = PublishSettings()
    linkhost: LinkhostSettings = LinkhostSettings()
    mail: MailSettings
    alert: AlertSettings = AlertSettings()

    @field_validator("cameras")
    @classmethod
    def _some_cameras(cls, value: dict[str, CameraSettings]) -> dict[str, CameraSettings]:
        if not value:
            raise ValueError('no camera is configured; add [cameras.NAME] with url = "rtsp://…"')
        return value

    @model_validator(mode="after")
    def _detectors_exist(self) -> Self:
        missing = list(missing_detectors(self.model_dump(include={"cameras", "detectors"})))
        if missing:
            raise ValueError("; ".join(f"{dotted(key)} {problem}" for key, problem in missing))
        return self


def secrets_of(settings: Settings) -> Iterator[str]:
    """Every secret that the settings hold, for the redactor."""
    if settings.mail.password:
        yield settings.mail.password.get_secret_value()
    if settings.publish.api_key:
        yield settings.publish.api_key.get_secret_value()
    for camera in settings.cameras.values():
        if camera.password:
            yield camera.password.get_secret_value()
        for url in (*camera.url, *(camera.detect_url or ())):
            password = urlsplit(url).password
            if password:
                yield password
                yield unquote(password)


def missing_detectors(values: Mapping[str, Any]) -> Iterator[tuple[Key, str]]:
    """Detectors that cameras name and nobody defines, in values that may be wrong otherwise."""
    detectors = values.get("detectors", {})
    cameras = values.get("cameras")
    if not isinstance(cameras, Mapping) or not isinstance(detectors, Mapping):
        return
    for camera, settings in cameras.items():
        names = settings.get("detectors", ()) if isinstance(settings, Mapping) else ()
        for name in names if isinstance(names, list | tuple) else ():
            if isinstance(name, str) and name not in detectors:
                yield ("cameras", camera, "detectors"), f"names {name!r}, but there is no [detectors.{name}]"


def dotted(key: Key) -> str:
    """The key as a person writes it, such as `cameras.entree.url`."""
    return ".".join(str(piece) for piece in key)
