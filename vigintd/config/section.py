"""What every section of `vigintd.toml` is made of, and the readings that several share."""

from __future__ import annotations

import ipaddress
from typing import Any
from urllib.parse import SplitResult, urlsplit

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator
from pydantic_core import PydanticKnownError


class Section(BaseModel):
    """A section that knows all its keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*", mode="before")
    @classmethod
    def _truth_is_no_number(cls, value: object, info: ValidationInfo) -> object:
        # Python, and so the validator, would take true for 1.
        if isinstance(value, bool) and info.field_name:
            kind: Any = cls.model_fields[info.field_name].annotation
            if kind is int:
                raise PydanticKnownError("int_type")
            if kind is float:
                raise PydanticKnownError("float_type")
        return value


def split_address(url: str, example: str) -> SplitResult:
    """The parts of a URL. Raises `ValueError` with a sentence that does not quote it."""
    # urlsplit's own complaints quote the address, and with it the password.
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise ValueError(f"is not an address such as {example}; in a password write / ? # @ : as %2F %3F %23 %40 %3A") from None
    return parts


def is_loopback(host: str) -> bool:
    """Whether `host` names this machine and no other."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
