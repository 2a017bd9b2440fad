"""What a writer that died left behind: sealed at its last whole fragment, or gone."""

import hashlib
import json

import pytest

from tests.clip.pictures import FPS, coded
from vigintd.clip.recorder import ClipRecorder
from vigintd.errors import ClipError
from vigintd.fmp4 import FragmentParser
from vigintd.spool import PartFile, Spool

ID = "00000000-0000-4000-8000-000000000001"


@pytest.fixture
async def store(tmp_path):
    store = Spool(tmp_path)
    yield store
    await store.aclose()


@pytest.fixture
async def left(store):
    """A clip of three seconds whose writer died."""
    parts: list[PartFile] = []
    recorder = ClipRecorder(store, ID, on_part=parts.append)
    await recorder.write(coded(3 * FPS))
    await recorder.aclose()
    (part,) = parts
    return part


async def test_a_part_is_sealed_at_its_last_whole_fragment(store, left):
    """What a crash wrote behind it is cut off; the rest is untouched, hashed, and described beside it."""
    whole = left.path.read_bytes()
    with left.path.open("ab") as file:
        file.write(b"\x00\x00\x10\x00moof, torn")
    (sealed,) = await store.salvage(ID, "the power went")
    assert left.path.read_bytes() == whole
    assert (sealed.index, sealed.length_bytes, sealed.sha256) == (0, len(whole), hashlib.sha256(whole).hexdigest())
    assert sealed.partial == "the power went"
    last = left.fragments[-1]
    assert sealed.duration_s == (last.start_90k + last.duration_90k) / 90_000
    assert json.loads(left.path.with_suffix(".json").read_bytes())["sha256"] == sealed.sha256


async def test_done_again_the_answer_is_the_same(store, left):
    first = await store.salvage(ID, "the power went")
    assert await store.salvage(ID, "another reason") == first


@pytest.mark.parametrize("kept_bytes", [0, 10, 700])
async def test_of_a_part_without_a_whole_fragment_nothing_stays(store, left, kept_bytes):
    with left.path.open("r+b") as file:
        file.truncate(kept_bytes)
    assert await store.salvage(ID, "the power went") == ()
    assert list(store.root.iterdir()) == []


async def test_a_part_that_lost_bytes_after_its_seal_is_sealed_anew(store, left):
    """The sidecar is believed only as long as the file is as long as it says."""
    (before,) = await store.salvage(ID, "first")
    with left.path.open("r+b") as file:
        file.truncate(before.length_bytes - 1)
    (after,) = await store.salvage(ID, "second")
    assert after.length_bytes < before.length_bytes
    assert after.partial == "second"


async def test_a_sealed_part_is_read_back_with_its_fragments(store, left):
    """As an upload wants it."""
    (sealed,) = await store.salvage(ID, "the power went")
    part = await store.stored_part(ID, sealed)
    data = await part.read(0, sealed.length_bytes + 10)
    assert data == left.path.read_bytes()
    assert list(part.fragments) == FragmentParser().feed(data) == list(left.fragments)
    assert await part.read(part.visible_bytes, 1) == b""
    await part.beyond(part.visible_bytes)


async def test_a_part_that_is_not_as_it_was_sealed_is_refused(store, left):
    (sealed,) = await store.salvage(ID, "the power went")
    with left.path.open("ab") as file:
        file.write(b"more")
    with pytest.raises(ClipError, match="was sealed with"):
        await store.stored_part(ID, sealed)
    left.path.unlink()
    with pytest.raises(ClipError, match="not in the spool"):
        await store.stored_part(ID, sealed)
