"""The settings, and the only reader of TOML, environment and credentials.

Owns every key of `vigintd.toml`, its default, its bounds and the sentence that says what is wrong with it.
Later sources win: `$RUNTIME_DIRECTORY` (it is `runtime_dir`), the TOML file, `$CREDENTIALS_DIRECTORY` (systemd's
LoadCredential: a file `mail__password` is `mail.password`; where it is not set, the folder `credentials` beside the TOML
file), `.env` in the working folder, the environment (`VIGINTD_MAIL__PASSWORD`). Secrets are registered with nobody here: the
composition root hides them.
"""

from vigintd.config.linkhost import LinkhostSettings
from vigintd.config.reading import DEFAULT_CONFIG, load, load_places
from vigintd.config.section import is_loopback
from vigintd.config.settings import (
    CAMERA_SCHEMES,
    ENV_PREFIX,
    AlertSettings,
    CameraSettings,
    DetectorSettings,
    MailSettings,
    Places,
    PublishSettings,
    Settings,
    SpoolSettings,
    secrets_of,
)

__all__ = [
    "CAMERA_SCHEMES",
    "DEFAULT_CONFIG",
    "ENV_PREFIX",
    "AlertSettings",
    "CameraSettings",
    "DetectorSettings",
    "LinkhostSettings",
    "MailSettings",
    "Places",
    "PublishSettings",
    "Settings",
    "SpoolSettings",
    "is_loopback",
    "load",
    "load_places",
    "secrets_of",
]
