"""What the spool promises: nothing half-written is visible, and what is visible is on the disk."""

import asyncio
import errno
import hashlib
import json
import os
import stat
import threading
from uuid import uuid4

import pytest

from tests.fmp4.boxes import fragment, init
from vigintd import failpoints
from vigintd.errors import ClipError
from vigintd.failpoints import FailpointError
from vigintd.model import Fragment, Original
from vigintd.spool import NotDurable, Spool


@pytest.fixture
async def store(tmp_path):
    store = Spool(tmp_path / "state" / "spool")
    yield store
    await store.aclose()
    failpoints.disarm()


@pytest.fixture
def incident_id():
    return str(uuid4())


def pieces(start: int, *lengths: int) -> tuple[bytes, list[Fragment]]:
    """Bytes and fragments that continue a file at `start`."""
    found = []
    for length in lengths:
        found.append(Fragment(start, length, 0, 0, is_key=True))
        start += length
    return os.urandom(sum(lengths)), found


async def test_the_folder_is_private(store):
    """Nobody else on the box reads clips."""
    assert stat.S_IMODE(store.root.stat().st_mode) == 0o700


async def test_a_part_grows_by_whole_fragments(store, incident_id):
    """What was appended is on the disk, visible and listed."""
    part = await store.new_part(incident_id, 0)
    one, first = pieces(0, 10, 20)
    two, second = pieces(30, 5)
    await part.append(one, first)
    assert (part.visible_bytes, part.path.read_bytes()) == (30, one)
    await part.append(two, second)
    assert part.path == store.part_path(incident_id, 0)
    assert part.path.read_bytes() == one + two
    assert list(part.fragments) == first + second
    assert stat.S_IMODE(part.path.stat().st_mode) == 0o600


async def test_only_what_continues_the_file_is_taken(store, incident_id):
    """Bytes that are not exactly the fragments due are a programmer's error and change nothing."""
    part = await store.new_part(incident_id, 0)
    data, fragments = pieces(0, 10)
    for wrong in ((data, pieces(1, 10)[1]), (data + b"x", fragments), (data[:-1], fragments), (data, [])):
        with pytest.raises(ValueError, match="byte"):
            await part.append(*wrong)
    assert part.path.read_bytes() == b""
    await part.append(data, fragments)
    assert part.visible_bytes == 10


async def test_a_part_is_created_once(store, incident_id):
    """A second writer of one part is refused."""
    await store.new_part(incident_id, 0)
    with pytest.raises(FileExistsError):
        await store.new_part(incident_id, 0)


async def test_the_seal_is_the_hash_of_the_whole_file(store, incident_id):
    """Seal and sidecar state length and SHA-256 of the file as it lies there."""
    part = await store.new_part(incident_id, 2)
    for start in (0, 100, 200):
        await part.append(*pieces(start, 60, 40))
    sealed = await part.seal(duration_s=1.5, partial="caméra perdue", reduced="1280x720")
    whole = part.path.read_bytes()
    assert (sealed.length_bytes, sealed.sha256) == (300, hashlib.sha256(whole).hexdigest())
    assert part.sealed is sealed
    assert json.loads(part.path.with_suffix(".json").read_text(encoding="utf-8")) == {
        "incident_id": incident_id,
        "index": 2,
        "length_bytes": 300,
        "sha256": sealed.sha256,
        "duration_s": 1.5,
        "partial": "caméra perdue",
        "reduced": "1280x720",
    }
    assert await part.seal(duration_s=9) is sealed
    with pytest.raises(ValueError, match="grow"):
        await part.append(*pieces(300, 1))
    assert not [path for path in store.root.iterdir() if path.name.startswith(".")]


async def test_followers_wake_for_growth_and_for_the_seal(store, incident_id):
    """Whoever waits for more hears of more, and of the end."""
    part = await store.new_part(incident_id, 0)
    followers = [asyncio.create_task(part.beyond(0)) for _ in range(3)]
    await part.append(*pieces(0, 8))
    await asyncio.gather(*followers)
    await part.beyond(7)
    last = asyncio.create_task(part.beyond(8))
    await asyncio.sleep(0)
    assert not last.done()
    await part.seal(duration_s=0)
    await last
    await part.beyond(10**9)


async def test_reading_ends_where_the_visible_ends(store, incident_id):
    """A reader gets what is visible, and nothing behind it."""
    part = await store.new_part(incident_id, 0)
    data, fragments = pieces(0, 50)
    await part.append(data, fragments)
    with part.path.open("ab") as file:
        file.write(b"torn")
    assert await part.read(40, 100) == data[40:]
    assert await part.read(50, 10) == b""
    assert await part.read(-5, 10) == b""
    await part.seal(duration_s=0)
    assert part.path.read_bytes() == data
    assert await part.read(0, 4) == data[:4]


@pytest.mark.parametrize("point", ["spool.append.before", "spool.append.after"])
async def test_a_failed_append_may_be_made_again(store, incident_id, point):
    """After a failure nothing became visible, and the hash is that of what did in the end."""
    part = await store.new_part(incident_id, 0)
    await part.append(*pieces(0, 10))
    waiting = asyncio.create_task(part.beyond(10))
    failpoints.arm(point, "error")
    step = pieces(10, 30)
    with pytest.raises(FailpointError):
        await part.append(*step)
    assert (failpoints.fired[point], part.visible_bytes, waiting.done()) == (1, 10, False)
    await part.append(*step)
    await waiting
    sealed = await part.seal(duration_s=1)
    assert sealed.sha256 == hashlib.sha256(part.path.read_bytes()).hexdigest()


@pytest.mark.parametrize("point", ["spool.seal.before", "spool.seal.after"])
async def test_a_failed_seal_may_be_made_again(store, incident_id, point):
    """A part is sealed once its sidecar is durable, not earlier."""
    part = await store.new_part(incident_id, 0)
    await part.append(*pieces(0, 10))
    failpoints.arm(point, "error")
    with pytest.raises(FailpointError):
        await part.seal(duration_s=1)
    assert (failpoints.fired[point], part.sealed) == (1, None)
    assert (await part.seal(duration_s=1)).length_bytes == 10


def failing(monkeypatch, name: str, error: int, *, times: int = 1) -> list[int]:
    """Make a call of the system fail so often; answers a list of the descriptors it failed on."""
    real, failed = getattr(os, name), list[int]()

    def broken(descriptor, *arguments):
        if len(failed) < times:
            failed.append(descriptor)
            raise OSError(error, os.strerror(error))
        return real(descriptor, *arguments)

    monkeypatch.setattr(os, name, broken)
    return failed


async def test_a_disk_that_is_full_for_a_while_leaves_no_torn_tail(store, incident_id, monkeypatch):
    """A write that finds no room makes nothing visible, gives back what it took, and may be made again."""
    part = await store.new_part(incident_id, 0)
    await part.append(*pieces(0, 10))
    failed = failing(monkeypatch, "pwrite", errno.ENOSPC)
    step = pieces(10, 1000)
    with pytest.raises(OSError, match="No space"):
        await part.append(*step)
    assert failed
    assert (part.visible_bytes, part.path.stat().st_size) == (10, 10)
    await part.append(*step)
    assert (await part.seal(duration_s=1)).sha256 == hashlib.sha256(part.path.read_bytes()).hexdigest()


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC])
async def test_after_a_failed_fsync_nothing_more_goes_into_the_file(store, incident_id, monkeypatch, error):
    """Whatever a later fsync would say: what was good is sealed, and what failed is nowhere."""
    part = await store.new_part(incident_id, 0)
    good = pieces(0, 10)
    await part.append(*good)
    failed = failing(monkeypatch, "fsync", error)
    with pytest.raises(NotDurable, match=os.strerror(error)):
        await part.append(*pieces(10, 1000))
    assert failed
    with pytest.raises(NotDurable, match="damaged by its disk"):
        await part.append(*pieces(10, 5))
    sealed = await part.seal(duration_s=1, partial="the disk failed")
    assert part.path.read_bytes() == good[0]
    assert (sealed.length_bytes, sealed.sha256) == (10, hashlib.sha256(good[0]).hexdigest())


@pytest.mark.parametrize("times", [1, 100])
async def test_a_disk_that_takes_no_seal_costs_no_clip(store, incident_id, monkeypatch, times):
    """What is visible is durable already: the part is sealed, with or without a sidecar, and gives the same seal again."""
    part = await store.new_part(incident_id, 0)
    await part.append(*pieces(0, 10))
    failed = failing(monkeypatch, "fsync", errno.ENOSPC, times=times)
    sealed = await part.seal(duration_s=1)
    assert failed
    assert part.sealed is sealed
    assert sealed.sha256 == hashlib.sha256(part.path.read_bytes()).hexdigest()
    assert not [path for path in store.root.iterdir() if path.name.startswith(".")]


async def test_a_file_that_could_not_be_made_durable_can_be_created_again(store, incident_id, monkeypatch):
    """A disk that refuses once leaves nothing that stands in the way of the next try."""
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(5, "Input/output error")))
        for create in (store.new_part, store.new_source):
            with pytest.raises(OSError, match="Input/output"):
                await create(incident_id, 0)
    assert list(store.root.iterdir()) == []
    await store.new_part(incident_id, 0)
    await store.new_source(incident_id, 0)


async def test_a_cancelled_append_ends_whole(store, incident_id, monkeypatch):
    """Who is cancelled while the disk works leaves disk, hash and attributes agreeing."""
    loop = asyncio.get_running_loop()
    started, go_on = asyncio.Event(), threading.Event()
    real = os.fsync

    def slow(descriptor):
        loop.call_soon_threadsafe(started.set)
        go_on.wait(10)
        real(descriptor)

    part = await store.new_part(incident_id, 0)
    monkeypatch.setattr(os, "fsync", slow)
    one, two = pieces(0, 10), pieces(10, 10)
    job = asyncio.create_task(part.append(*one))
    await started.wait()
    job.cancel()
    with pytest.raises(asyncio.CancelledError):
        await job
    assert part.visible_bytes == 0
    go_on.set()
    await part.append(*two)
    sealed = await part.seal(duration_s=1)
    assert part.path.read_bytes() == one[0] + two[0]
    assert sealed.sha256 == hashlib.sha256(one[0] + two[0]).hexdigest()


async def test_small_files_are_kept_whole(store, incident_id, monkeypatch):
    """A snapshot is there whole or not at all, and a failure leaves the one before."""
    assert await store.read_kept(incident_id, ".jpg") is None
    path = await store.keep(incident_id, ".jpg", b"one")
    assert path.name == f"{incident_id}.jpg"
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(OSError, match="space"):
            await store.keep(incident_id, ".jpg", b"two")
    assert await store.read_kept(incident_id, ".jpg") == b"one"
    assert [p.name for p in store.root.iterdir()] == [path.name]


async def test_removing_takes_everything_of_one_incident(store, incident_id):
    """Clip, sidecar and snapshot go together; another incident's stay; nothing there is no fault."""
    other = str(uuid4())
    for owner in (incident_id, other):
        part = await store.new_part(owner, 0)
        await part.append(*pieces(0, 3))
        await part.seal(duration_s=1)
        await store.keep(owner, ".jpg", b"x")
    await store.new_part(incident_id, 1)
    await store.remove(incident_id)
    await store.remove(incident_id)
    assert sorted(p.name for p in store.root.iterdir()) == [f"{other}.0.json", f"{other}.0.mp4", f"{other}.jpg"]


async def test_what_each_incident_takes_is_weighed_by_its_blocks(store, incident_id):
    """A snapshot alone is no video, a part or a source is; other people's files do not count."""
    other, third = str(uuid4()), str(uuid4())
    part = await store.new_part(incident_id, 0)
    await part.append(*pieces(0, 100_000))
    await store.keep(incident_id, ".jpg", b"x" * 5000)
    await store.keep(other, ".jpg", b"x")
    await store.new_source(third, 0)
    (store.root / "notes.txt").write_bytes(b"whose?")
    weights = await store.weigh()
    assert {key: weight.has_video for key, weight in weights.items()} == {incident_id: True, other: False, third: True}
    assert 105_000 <= weights[incident_id].size_bytes < 105_000 + 4 * 4096
    disk = await store.measure()
    assert 0 < disk.free_bytes <= disk.disk_bytes
    assert not disk.is_read_only


async def test_names_cannot_leave_the_folder(store, incident_id):
    """An id or suffix that is none is refused before it touches a path."""
    for wrong in ("../x", "*", "", incident_id.upper(), incident_id + "/"):
        with pytest.raises(ValueError, match="id"):
            await store.remove(wrong)
    for wrong in ("/x", "../x", ".", "x", ".J"):
        with pytest.raises(ValueError, match="suffix"):
            await store.keep(incident_id, wrong, b"")


async def test_closing_leaves_an_unsealed_part_as_it_is(tmp_path, incident_id):
    """What was visible stays for recovery; no thread stays."""
    before = set(threading.enumerate())
    store = Spool(tmp_path)
    part = await store.new_part(incident_id, 0)
    data, fragments = pieces(0, 10)
    await part.append(data, fragments)
    await store.aclose()
    assert part.path.read_bytes() == data
    with pytest.raises(ValueError, match="grow"):
        await part.append(*pieces(10, 1))
    for thread in set(threading.enumerate()) - before:
        thread.join(5)
        assert not thread.is_alive()


async def test_a_follower_of_a_part_that_is_closed_without_a_seal_is_told(tmp_path, incident_id):
    """Who tails a part that nobody will seal does not wait for ever."""
    store = Spool(tmp_path)
    part = await store.new_part(incident_id, 0)
    follower = asyncio.create_task(part.beyond(0))
    await asyncio.sleep(0)
    await part.close()
    with pytest.raises(ClipError, match="without a seal"):
        await follower
    await store.aclose()


async def test_a_source_is_sealed_as_a_part_is_and_is_none(store, incident_id):
    """Its name, its sidecar and its hash; beside a part of the same number."""
    part, source = await store.new_part(incident_id, 0), await store.new_source(incident_id, 0)
    data, fragments = pieces(0, 20, 5)
    await source.append(data, fragments)
    assert (source.path.name, source.complete) == (f"{incident_id}.0.source.mp4", False)
    assert source.path == store.source_path(incident_id, 0)
    original = await source.seal(codec="hevc")
    assert original == Original(0, "hevc", 25, hashlib.sha256(data).hexdigest())
    assert json.loads(source.path.with_suffix(".json").read_text(encoding="utf-8"))["codec"] == "hevc"
    assert (source.complete, part.visible_bytes) == (True, 0)
    assert await store.incidents() == [incident_id]
    await source.drop()
    assert [path.name for path in store.root.iterdir()] == [part.path.name]


async def test_sources_that_were_left_are_read_to_their_last_whole_fragment(store, incident_id):
    """In order, complete as they are, and only those of the incident."""
    for owner, index, tail in ((incident_id, 10, b""), (incident_id, 2, b"torn"), (str(uuid4()), 0, b"")):
        store.source_path(owner, index).write_bytes(init() + fragment(0, [3600] * index) + tail)
    sources = await store.left_sources(incident_id)
    assert [(s.index, len(s.fragments), s.fragments[1].duration_90k) for s in sources] == [(2, 2, 7200), (10, 2, 36_000)]
    assert all(source.complete for source in sources)
    await sources[0].beyond(10**9)
    assert await sources[0].read(0, 10**9) == init() + fragment(0, [3600] * 2)
    with pytest.raises(ValueError, match="grow"):
        await sources[0].append(*pieces(sources[0].visible_bytes, 1))
