"""Room on the disk: what may go goes in its order, what is owed never does, and each turn is said once."""

from __future__ import annotations

import errno
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from tests.manual_clock import ManualClock
from vigintd.incident import space
from vigintd.incident.space import BARREN_S, MIB, Bounds, Held, Rank, Space, disk_trouble, rank, to_remove
from vigintd.journal import Effect, EffectKind, EffectState, IncidentRow, Journal, Owed
from vigintd.model import Detection, Incident, IncidentState, Original, SealedPart
from vigintd.spool import Measure, Spool

NOW = ManualClock().now()
KEPT = timedelta(hours=48)


# The rule


@st.composite
def rows(draw: st.DrawFn, number: int = 0) -> IncidentRow:
    """An incident in any state, owing anything."""

    def effect(kind: EffectKind, what: str) -> Effect:
        return Effect(what, "", kind, what, draw(st.sampled_from(EffectState)), 0, NOW, NOW, None, "")

    ended_lived = draw(st.none() | st.integers(0, 100).map(lambda hours: NOW - timedelta(hours=hours)))
    effects = [effect(EffectKind.ALERT, str(n)) for n in range(draw(st.integers(0, 3)))]
    effects += [effect(EffectKind.FOLLOW_UP, "0")] * draw(st.integers(0, 1)) + [effect(EffectKind.PUBLISH, "")]
    originals = (Original(0, "hevc", 1, ""),) * draw(st.integers(0, 1))
    state = draw(st.sampled_from([IncidentState.CLOSED, *IncidentState]))
    incident = Incident(str(number), Detection("entree", 0, ended_lived or NOW, "motion"), state=state, originals=originals)
    return IncidentRow(incident, None, 0, tuple(effects), ended_lived)


def is_owed(row: IncidentRow, *, has_video: bool) -> bool:
    """The promise, said another way: it is not over, nobody was told, or nobody had the clip though its time has not passed."""
    states = {(effect.kind, effect.state) for effect in row.effects}
    if row.incident.state is not IncidentState.CLOSED or EffectState.OWED in {state for _, state in states}:
        return True
    if (EffectKind.ALERT, EffectState.DONE) not in states:
        return True
    had_its_time = row.ended_lived is not None and NOW - row.ended_lived >= KEPT
    return has_video and (EffectKind.PUBLISH, EffectState.DONE) not in states and not had_its_time


@given(
    st.lists(st.tuples(rows(), st.booleans(), st.integers(0, 100)), max_size=12),
    st.integers(-10, 600),
)
def test_whatever_lies_there_nothing_owed_goes_and_the_room_is_made_if_it_can_be(found, lack_bytes):
    """No more goes than is needed, in the order of ranks and then of age."""
    held = {}
    for number, (row, has_video, size_bytes) in enumerate(found):
        may_go = rank(row, has_video=has_video, now=NOW, kept=KEPT)
        assert (may_go is None) == is_owed(row, has_video=has_video)
        held[str(number)] = Held(str(number), size_bytes, row.incident.detection.at, may_go)
    chosen = to_remove(held.values(), lack_bytes)
    made_bytes = sum(each.size_bytes for each in chosen)
    could_go = [each for each in held.values() if each.rank is not None and each.size_bytes]
    assert all(each in could_go for each in chosen)
    assert made_bytes >= lack_bytes or len(chosen) == len(could_go)
    assert not chosen or made_bytes - chosen[-1].size_bytes < lack_bytes
    assert [place(each) for each in chosen] == sorted(place(each) for each in could_go)[: len(chosen)]


def place(held: Held) -> tuple[Rank, datetime]:
    """In line."""
    assert held.rank is not None
    return held.rank, held.ended_at


def test_what_camera_and_host_both_lost_goes_last():
    """Expired, published, published with an original that lies here alone, given up."""
    done = [
        Effect("", "", kind, "", EffectState.DONE, 0, NOW, NOW, None, "") for kind in (EffectKind.ALERT, EffectKind.PUBLISH)
    ]
    given_up = (done[0], replace(done[1], state=EffectState.DEAD))
    closed = Incident("", Detection("entree", 0, NOW, "motion"), state=IncidentState.CLOSED)
    original = replace(closed, originals=(Original(0, "hevc", 1, ""),))
    cases = [(closed, done, NOW - KEPT), (closed, done, NOW), (original, done, NOW), (closed, given_up, NOW - KEPT)]
    found = [
        rank(IncidentRow(incident, None, 0, tuple(effects), ended), has_video=True, now=NOW, kept=KEPT)
        for incident, effects, ended in cases
    ]
    assert found == list(Rank)


GIB = 1024 * MIB


@pytest.mark.parametrize(
    ("disk_bytes", "kept_bytes"),
    [(8 * MIB, 2 * MIB), (4 * GIB, GIB), (16 * GIB, GIB), (64 * GIB, 64 * GIB // 20), (8192 * GIB, 10 * GIB)],
    ids=["8 MB", "4 GB", "16 GB", "64 GB", "8 TB"],
)
def test_a_box_of_which_nothing_was_said_keeps_its_disk_from_filling(disk_bytes, kept_bytes):
    """5 %, at least a gibibyte and at most ten, and never more than a quarter."""
    assert Bounds().keep_free_bytes(disk_bytes) == kept_bytes
    assert 0 < Bounds().headroom_bytes(disk_bytes) <= disk_bytes // 16


def test_the_nearer_bound_counts():
    disk = Measure(100 * MIB, 50 * MIB, is_read_only=False)
    assert Bounds(keep_free_mb=40, max_mb=35).left_bytes(disk, 30 * MIB) == 5 * MIB
    assert Bounds(keep_free_mb=48, max_mb=35).left_bytes(disk, 30 * MIB) == 2 * MIB
    assert Bounds(keep_free_mb=0).left_bytes(disk, None) == 50 * MIB


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ENOSPC, "is full"),
        (errno.EDQUOT, "is full"),
        (errno.EROFS, "read-only"),
        (errno.EIO, "failed: Input/output error"),
    ],
)
def test_a_disks_errors_are_said_in_words(code, words):
    assert words in disk_trouble(OSError(code, "Input/output error"))


# The room

CLIP_BYTES = 256 * 1024


class Box:
    """A journal and a spool bounded to a megabyte, with clips of a quarter of one."""

    def __init__(self, clock: ManualClock, journal: Journal, spool: Spool) -> None:
        self.clock, self.journal, self.spool = clock, journal, spool
        self.space = Space(journal=journal, spool=spool, bounds=Bounds(keep_free_mb=0, max_mb=1), expiry_h=48, clock=clock)
        self.ids: list[str] = []

    async def clip(self, *settled: EffectKind, at: datetime | None = None) -> str:
        """A sealed clip in the spool, of an incident that owes all but what is settled; each is a second younger."""
        incident_id = f"00000000-0000-4000-8000-{len(self.ids):012d}"
        self.ids.append(incident_id)
        await self.clock.advance(1)
        incident = Incident(incident_id, Detection("entree", 0, at or self.clock.now(), "motion"))
        await self.journal.open_incident(incident, [Owed(EffectKind.PUBLISH, ""), Owed(EffectKind.ALERT, "a@exemple.fr")])
        self.spool.part_path(incident_id, 0).write_bytes(bytes(CLIP_BYTES))
        sealed = replace(incident, state=IncidentState.SEALED, parts=(SealedPart(0, CLIP_BYTES, "", 1),))
        await self.journal.record_incident(sealed)
        for kind in settled:
            await self.settle(incident_id, kind)
        return incident_id

    async def settle(self, incident_id: str, kind: EffectKind) -> None:
        row = await self.journal.incident(incident_id)
        assert row
        (effect,) = [effect for effect in row.effects if effect.kind is kind]
        await self.journal.settle(effect.key)


@asynccontextmanager
async def boxed(tmp_path):
    clock, spool = ManualClock(), Spool(tmp_path / "spool")
    async with Journal.open(tmp_path / "journal.sqlite3", clock) as journal:
        yield Box(clock, journal, spool)
    await spool.aclose()


BOTH = (EffectKind.ALERT, EffectKind.PUBLISH)


async def test_published_clips_make_room_oldest_first_and_only_as_many_as_it_takes(tmp_path):
    """Each with its sidecar and its snapshot."""
    async with boxed(tmp_path) as box:
        for _ in range(4):
            await box.spool.keep(await box.clip(*BOTH), ".jpg", b"a picture")
        assert await box.space.run_once()
        assert await box.spool.incidents() == box.ids[1:]
        assert not [path for path in box.spool.root.iterdir() if path.name.startswith(box.ids[0])]
        assert await box.space.run_once()
        assert await box.spool.incidents() == box.ids[1:]


async def test_many_clips_go_a_few_at_a_look_and_meanwhile_recording_goes_on(tmp_path, monkeypatch):
    """The next look follows at once; the disk counts as full when nothing more can go, not before."""
    monkeypatch.setattr(space, "AT_ONCE", 1)
    async with boxed(tmp_path) as box:
        for _ in range(6):
            await box.clip(*BOTH)
        for looks in (1, 2, 3):
            box.space._wake.clear()
            assert await box.space.run_once()
            assert await box.spool.incidents() == box.ids[looks:]
            assert box.space._wake.is_set() is (looks < 3)


async def test_a_spool_full_of_what_is_owed_keeps_all_of_it_and_says_so_once(tmp_path):
    """When something may go again, there is room again, and that is said once too."""
    async with boxed(tmp_path) as box:
        for settled in ((), (EffectKind.ALERT,), (EffectKind.PUBLISH,), ()):
            await box.clip(*settled)
        with capture_logs() as logs:
            for _ in range(3):
                assert not await box.space.run_once()
                await box.clock.advance(BARREN_S)
        assert "spool.max_mb" in box.space.full
        assert box.space.status()["full"] == box.space.full
        assert await box.spool.incidents() == box.ids
        await box.settle(box.ids[1], EffectKind.PUBLISH)
        with capture_logs() as after:
            for _ in range(3):
                assert await box.space.run_once()
        assert await box.spool.incidents() == [box.ids[0], *box.ids[2:]]
        said = [(log["log_level"], log["event"]) for log in [*logs, *after] if log["event"].startswith("disk.")]
        assert said == [("error", "disk.full"), ("warning", "disk.room")]


async def test_what_was_given_up_and_told_goes_once_it_has_had_its_time(tmp_path):
    """Not before, and not by a wall clock that was set: the journal's own time counts."""
    async with boxed(tmp_path) as box:
        ids = [await box.clip(EffectKind.ALERT) for _ in range(4)]
        await box.journal.bury(f"{ids[2]}/publish/", "413 too large")
        box.clock.jump(365 * 86_400)
        assert not await box.space.run_once()
        assert await box.spool.incidents() == ids
        await box.clock.advance(KEPT.total_seconds())
        assert await box.space.run_once()
        assert await box.spool.incidents() == [ids[0], ids[1], ids[3]]


async def test_what_is_to_be_published_again_stays_though_it_had_been_chosen(tmp_path):
    """An operator's `incidents retry` between the choice and the removal."""
    async with boxed(tmp_path) as box:
        incident_id = await box.clip(EffectKind.ALERT)
        await box.journal.bury(f"{incident_id}/publish/", "413 too large")
        await box.clock.advance(KEPT.total_seconds())
        weights = await box.spool.weigh()
        chosen = to_remove(await box.space._held(weights), 1)
        assert [each.incident_id for each in chosen] == [incident_id]
        await box.journal.revive(incident_id, links_until=box.clock.now() + KEPT)
        assert await box.space._remove(chosen, weights) == 0
        assert await box.spool.incidents() == [incident_id]


async def test_a_disk_that_lets_nothing_go_is_told_as_full(tmp_path, monkeypatch):
    """What failed is said; nothing is recorded until it works again."""
    async with boxed(tmp_path) as box:
        for _ in range(5):
            await box.clip(*BOTH)
        fired = 0

        async def broken(_spool, _incident_id):
            nonlocal fired
            fired += 1
            raise OSError(errno.EIO, "Input/output error")

        with monkeypatch.context() as patch, capture_logs() as logs:
            patch.setattr(Spool, "remove", broken)
            assert not await box.space.run_once()
        assert fired
        assert [log["event"] for log in logs] == ["spool.unremoved"] * fired + ["disk.full"]
        await box.clock.advance(BARREN_S)
        assert await box.space.run_once()


async def test_a_clip_that_cannot_be_removed_keeps_no_other(tmp_path, monkeypatch):
    async with boxed(tmp_path) as box:
        for _ in range(5):
            await box.clip(*BOTH)
        remove, failed = box.spool.remove, list[str]()

        async def failing(incident_id: str) -> None:
            if incident_id == box.ids[0]:
                failed.append(incident_id)
                raise PermissionError(errno.EPERM, "Operation not permitted")
            await remove(incident_id)

        monkeypatch.setattr(box.spool, "remove", failing)
        assert await box.space.run_once()
        assert failed == [box.ids[0]]
        assert await box.spool.incidents() == [box.ids[0], *box.ids[3:]]


async def test_files_of_which_the_journal_knows_nothing_are_left_alone(tmp_path):
    async with boxed(tmp_path) as box:
        stranger = "00000000-0000-4000-8000-00000000ffff"
        box.spool.part_path(stranger, 0).write_bytes(bytes(5 * CLIP_BYTES))
        assert not await box.space.run_once()
        assert await box.spool.incidents() == [stranger]


async def test_a_disk_that_cannot_be_looked_at_changes_nothing_and_is_said_once(tmp_path, monkeypatch):
    async with boxed(tmp_path) as box:
        fired = 0

        async def broken(_spool):
            nonlocal fired
            fired += 1
            raise OSError(errno.EIO, "Input/output error")

        monkeypatch.setattr(Spool, "measure", broken)
        with capture_logs() as logs:
            assert await box.space.run_once()
            assert await box.space.run_once()
        assert fired == 2
        assert [log["event"] for log in logs] == ["disk.unmeasured"]
