"""Who came: a touch is a probe until media bytes prove a play, and either is told with what speaks for and against a person."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from vigintd.linkhost.store import AuditKind, AuditRow
from vigintd.linkhost.visits import visits

MADE = datetime(2026, 3, 14, 9, 0, tzinfo=UTC)
LATER = MADE + timedelta(minutes=5)
GUARD, OWNER = "gardien@exemple.fr", "patron@exemple.fr"
SIZES = {0: 600, 1: 400}
PHONE, OFFICE = "203.0.113.0/24", "198.51.100.0/24"
LINKS = [AuditRow(MADE, AuditKind.LINK, "c", GUARD), AuditRow(MADE, AuditKind.LINK, "c", OWNER)]


def touch(at=LATER, what="page", recipient=GUARD, address=PHONE, client="Safari, iPhone", **more):
    return AuditRow(at, AuditKind.PROBE, "c", recipient, address, client, {"what": what, **more})


def play(first, length, *, at=LATER, part=0, kind=AuditKind.PLAY, **more):
    detail = {"part": part, "first": first, "bytes": length, "of": SIZES[part], "by": "part", "range": True, **more}
    return AuditRow(at, kind, "c", GUARD, PHONE, "Safari, iPhone", detail)


def only(*rows, mailed=None):
    (visit,) = visits([*LINKS, *rows], SIZES, mailed)
    return visit


def test_a_touch_without_media_is_a_probe():
    """Whoever it was: a page proves nobody's eyes."""
    visit = only(touch(clicked=True), touch(what="status"))
    assert (visit.kind, visit.share, visit.seems) == (AuditKind.PROBE, 0, "person")


def test_media_bytes_make_it_a_play():
    """Told with how much of the clip was fetched, each byte once."""
    visit = only(touch(), play(0, 300), play(200, 200), play(0, 100, part=1, at=LATER + timedelta(seconds=20)))
    assert (visit.kind, visit.share) == (AuditKind.PLAY, 0.5)
    assert set(visit.signals) == {"most", "stayed"}
    assert visit.seems == "person"


def test_a_file_that_is_taken_is_a_download():
    """The more it proves is told."""
    visit = only(play(0, 600), play(0, 600, kind=AuditKind.DOWNLOAD, range=False))
    assert visit.kind is AuditKind.DOWNLOAD
    assert "no_range" not in visit.signals


@pytest.mark.parametrize(
    ("rows", "signal"),
    [
        ([touch(what="HEAD page")], "head"),
        ([touch(client="robot")], "agent"),
        ([touch(client="curl")], "agent"),
        ([touch(client="unknown")], "agent"),
        ([touch(prefetch=True)], "prefetch"),
        ([touch(at=MADE + timedelta(seconds=9))], "early"),
        ([play(0, 600, range=False)], "no_range"),
        ([play(0, 10)], "little"),
    ],
)
def test_what_speaks_for_a_machine(rows, signal):
    visit = only(*rows)
    assert signal in visit.signals
    assert visit.seems in ("machine", "unclear")


def test_a_page_that_plays_by_itself_is_a_probe_until_somebody_acts():
    """What left before is a play from then on."""
    alone = touch(what="autoplay", part=0, first=0, bytes=600)
    assert (only(alone).kind, only(alone).share) == (AuditKind.PROBE, 0)
    acted = only(alone, play(0, 600, by="watched", range=False))
    assert (acted.kind, acted.share, acted.seems) == (AuditKind.PLAY, 0.6, "person")
    assert "acted" in acted.signals


def test_every_link_of_a_mail_at_once_is_a_scanner():
    """One network that opens the links of two recipients within seconds; another network at the same time is nobody's fault."""
    gateway = [touch(address=OFFICE), touch(at=LATER + timedelta(seconds=3), address=OFFICE, recipient=OWNER)]
    first, second, third = visits([*LINKS, *gateway, touch(address=PHONE)], SIZES)
    assert "together" in first.signals
    assert "together" in second.signals
    assert "together" not in third.signals
    family = [touch(address=OFFICE), touch(at=LATER + timedelta(minutes=3), address=OFFICE, recipient=OWNER)]
    assert all("together" not in visit.signals for visit in visits([*LINKS, *family], SIZES))


def test_soon_after_is_counted_from_the_mail_where_that_is_known():
    """A mail that waited an hour for its server is not read before it came."""
    mailed = {GUARD: LATER - timedelta(seconds=2)}
    assert "early" in only(touch(), mailed=mailed).signals
    assert "early" not in only(touch()).signals
    assert "early" not in only(touch(), mailed={GUARD: LATER + timedelta(hours=1)}).signals


def test_what_speaks_for_both_is_unclear():
    visit = only(touch(at=MADE + timedelta(seconds=2), clicked=True))
    assert (set(visit.signals), visit.seems) == ({"early", "clicked"}, "unclear")


def test_nothing_that_speaks_is_unclear():
    assert only(touch()).seems == "unclear"


def test_a_pause_begins_another_visit():
    """Each program at each network has its own, for each link."""
    rows = [
        touch(),
        touch(client="Firefox, Linux"),
        touch(address=OFFICE, at=LATER + timedelta(minutes=1)),
        touch(at=LATER + timedelta(minutes=29)),
        touch(at=LATER + timedelta(minutes=60)),
    ]
    assert [(visit.client, visit.address, len(visit.rows)) for visit in visits([*LINKS, *rows], SIZES)] == [
        ("Safari, iPhone", PHONE, 2),
        ("Firefox, Linux", PHONE, 1),
        ("Safari, iPhone", OFFICE, 1),
        ("Safari, iPhone", PHONE, 1),
    ]


def test_a_full_record_is_read_in_a_moment():
    """Ten thousand strangers with one link take no longer than ten thousand lines must."""
    rows = [touch(at=LATER + timedelta(seconds=n % 7), address=f"10.{n // 256}.{n % 256}.0/24") for n in range(10_000)]
    assert len(visits([*LINKS, *rows], SIZES)) == 10_000


def test_plays_of_a_clip_without_bytes_count_nothing():
    """What was sent of a part that was lost since is no share of anything."""
    (visit,) = visits([*LINKS, play(0, 10)], {})
    assert visit.share == 0
