"""The parts that only compute: tokens, ranges, visitors, file names, languages, bounds of what is sent."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vigintd.linkhost import ranges, tokens, wire
from vigintd.linkhost.rendering import Pages
from vigintd.linkhost.showing import file_name
from vigintd.linkhost.store import Clip
from vigintd.linkhost.tokens import Grant
from vigintd.linkhost.visitors import client_family, truncated_address

KEY, CLIP = bytes(range(32)), "0b9d3a52-6f0e-4c55-9a0e-2f6c1d7e8a90"
NOW = datetime(2026, 3, 14, tzinfo=UTC)


def test_a_token_is_43_characters_of_one_key_clip_recipient_and_generation():
    """Changing any of them changes the token; it is the same each time it is derived."""
    found = {
        tokens.token(key, clip, grant)
        for key in (KEY, bytes(32))
        for clip in (CLIP, CLIP[::-1])
        for grant in (Grant("a@x"), Grant("b@x"), Grant("a@x", 1), Grant("", 0), Grant("1\0a@x"))
    }
    assert len(found) == 2 * 2 * 5
    assert all(tokens.TOKEN.fullmatch(token) for token in found)
    assert tokens.token(KEY, CLIP, Grant("a@x")) == tokens.token(KEY, CLIP, Grant("a@x"))


def test_a_token_is_known_by_whom_it_was_made_for():
    """Among many grants the right one is found; an older generation's token is nobody's."""
    grants = [Grant(f"{n}@x", n % 3) for n in range(50)]
    for grant in grants:
        assert tokens.holder(KEY, CLIP, grants, tokens.token(KEY, CLIP, grant)) == grant
    assert tokens.holder(KEY, CLIP, grants, tokens.token(KEY, CLIP, Grant("1@x", 0))) is None


@given(st.text(max_size=60))
def test_no_text_opens_a_clip_by_chance(text):
    """Whatever is presented, only the token itself is taken."""
    assert tokens.holder(KEY, CLIP, [Grant("a@x")], text) is None


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**6))
def test_a_range_never_leaves_the_file(first, last, size):
    """What is answered lies within the file and begins where it was asked to."""
    try:
        found = ranges.parse(f"bytes={first}-{last}", size)
    except ranges.Unsatisfiable:
        assert first >= size
        return
    if found is None:
        assert last < first
        return
    assert found.first == first
    assert found.first <= found.last < size
    assert found.length == min(last, size - 1) - first + 1


@given(st.text(max_size=40), st.integers(0, 10**6))
def test_any_range_header_is_answered(header, size):
    """No header raises anything but `Unsatisfiable`, and none reaches beyond the end."""
    for text in (header, f"bytes={header}"):
        try:
            found = ranges.parse(text, size)
        except ranges.Unsatisfiable:
            continue
        assert found is None or 0 <= found.first <= found.last < size


@pytest.mark.parametrize(
    ("address", "truncated"),
    [
        ("203.0.113.77", "203.0.113.0/24"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1::/48"),
        ("::ffff:203.0.113.77", "203.0.113.0/24"),
        ("fe80::1%eth0", "fe80::/48"),
        ("", "local"),
        (None, "local"),
    ],
)
def test_an_address_is_kept_without_its_end(address, truncated):
    """IPv4 by /24, IPv6 by /48, the unix socket as local."""
    assert truncated_address(address) == truncated


@pytest.mark.parametrize(
    ("agent", "family"),
    [
        ("Mozilla/5.0 (Linux; Android 14) AppleWebKit/537.36 Chrome/126.0.0.0 Mobile Safari/537.36", "Chrome, Android"),
        ("Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15) AppleWebKit/605.1.15 Version/17.0 Safari/605.1.15", "Safari, macOS"),
        ("Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537.36 Chrome/126.0 Safari/537.36 Edg/126.0", "Edge, Windows"),
        ("Mozilla/5.0 (X11; Linux x86_64; rv:127.0) Gecko/20100101 Firefox/127.0", "Firefox, Linux"),
        ("Mozilla/5.0 (compatible; Googlebot/2.1)", "robot"),
        ("VLC/3.0.20 LibVLC/3.0.20", "VLC"),
        ("", "unknown"),
        (None, "unknown"),
    ],
)
def test_a_client_is_kept_by_its_family(agent, family):
    """Browser and system, without versions."""
    assert client_family(agent) == family


@given(st.dictionaries(st.sampled_from(["camera", "at"]), st.text(max_size=80)))
def test_a_file_name_is_plain_whatever_the_metadata_holds(metadata):
    """Letters, digits and dashes, of bounded length."""
    clip = Clip(CLIP, "nvr", "k", metadata, NOW, NOW, NOW, 0, NOW)
    name = file_name(clip, 3)
    assert name.startswith("vigint-")
    assert name.endswith("4.mp4")
    assert all(c.isascii() and (c.isalnum() or c in "-.") for c in name)
    assert len(name) < 100


@given(st.text(max_size=200))
def test_any_accept_language_gives_a_language_we_speak(header):
    """Odd headers fall back to the host's own language."""
    assert Pages("fr").language(None, header) in ("fr", "en")


@given(st.text(max_size=200))
def test_any_upload_metadata_is_read_or_refused(header):
    """No header raises anything but a refusal."""
    with contextlib.suppress(wire.Refusal):
        wire.creation(header)


@given(st.binary(max_size=100))
def test_any_json_body_is_read_or_refused(body):
    """No body raises anything but a refusal."""
    with contextlib.suppress(wire.Refusal):
        wire.metadata(wire.json_object(body))
