"""How errors speak."""

from __future__ import annotations

from vigintd.errors import ConfigError, Fault


def test_a_fault_reads_place_key_problem():
    """What is unknown is left out."""
    assert str(Fault("a.toml", "mail.port", "is required")) == "a.toml: mail.port: is required"
    assert str(Fault("a.toml", "", "is not TOML")) == "a.toml: is not TOML"


def test_a_config_error_says_all_its_faults():
    """One a line."""
    assert str(ConfigError((Fault("a", "b", "c"), Fault("d", "e", "f")))) == "a: b: c\nd: e: f"
