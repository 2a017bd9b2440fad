"""The demonstration daemon's settings: everything on this machine, nothing from the environment."""

from __future__ import annotations

from pathlib import Path

from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from vigintd.config import (
    CameraSettings,
    DetectorSettings,
    LinkhostSettings,
    MailSettings,
    Settings,
    SpoolSettings,
)


class _DemoSettings(Settings):
    """Settings that nothing but their arguments can change: a real configuration's variables are not the demo's."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - pydantic passes all five by name
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The arguments only."""
        return (init_settings,)


def demo_settings(*, folder: Path, runtime_dir: Path, camera_url: str, mail_port: int, link_port: int) -> Settings:
    """One camera watched for motion, the built-in link host, and mail to the catcher; ports are those of 127.0.0.1."""
    return _DemoSettings(
        language="fr",
        site="Boutique de démonstration",
        state_dir=folder / "state",
        runtime_dir=runtime_dir,
        cameras={
            "entree": CameraSettings(
                url=camera_url, pre_roll_s=4, post_roll_s=3, max_clip_s=30, ring_mb=16, detectors=("mouvement",)
            )
        },
        detectors={"mouvement": DetectorSettings(kind="motion")},
        # It takes a few megabytes for a minute, and shall run on a disk that a box would leave alone.
        spool=SpoolSettings(keep_free_mb=0),
        linkhost=LinkhostSettings(listen=f"127.0.0.1:{link_port}"),
        mail=MailSettings(
            server="127.0.0.1",
            port=mail_port,
            security="none",
            sender="alerte@demo.invalid",
            recipients=("gardien@demo.invalid",),
        ),
    )
