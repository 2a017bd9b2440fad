"""Detectors by name: found, built, and what is wrong said in a sentence."""

from importlib.metadata import EntryPoint, EntryPoints

import pytest

from vigintd.config import DetectorSettings
from vigintd.detect import ENTRY_POINT_GROUP, registry
from vigintd.errors import DetectorError


def settings(**keys: object) -> DetectorSettings:
    return DetectorSettings.model_validate({"kind": "motion", **keys})


@pytest.fixture
def installed(monkeypatch):
    """Pretends that this entry point, and no other, is installed."""

    def install(target: str) -> None:
        entries = EntryPoints([EntryPoint("theirs", target, ENTRY_POINT_GROUP)])
        monkeypatch.setattr(registry, "entry_points", entries.select)

    return install


def not_a_detector(camera: str, options: object, *, language: str) -> object:
    return "not a detector"


def broken(camera: str, options: object, *, language: str) -> object:
    raise RuntimeError("no model")


def test_the_built_in_one_is_installed():
    """By the same way as anybody else's."""
    assert "motion" in registry.kinds()
    assert registry.build("mouvement", settings(sensitivity="high"), "entree", language="fr").pixels == "luma"


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"kind": "telepathy"}, r"\[detectors.mouvement\] kind 'telepathy' is not installed; there are: .*motion"),
        ({"sensitivity": "extreme"}, r"\[detectors.mouvement\] sensitivity is low, medium, high"),
    ],
)
def test_a_wrong_kind_or_option_is_told_with_its_section(keys, words):
    """Whoever wrote the file finds the place."""
    with pytest.raises(DetectorError, match=words):
        registry.build("mouvement", settings(**keys), "entree", language="fr")


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("no_such_module:build", "cannot be loaded: ModuleNotFoundError"),
        (f"{__name__}:no_such_name", "cannot be loaded"),
        (f"{__name__}:broken", "failed to start: RuntimeError: no model"),
        (f"{__name__}:not_a_detector", "made no detector"),
    ],
)
def test_a_broken_plug_in_is_its_own_fault(installed, target, words):
    """A sentence, never a traceback of somebody else's import."""
    installed(target)
    with pytest.raises(DetectorError, match=words):
        registry.build("mouvement", settings(kind="theirs"), "entree", language="fr")
