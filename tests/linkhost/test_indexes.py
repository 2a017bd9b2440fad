"""What the host knows of the fragments of a part, read from its file as far as it has grown."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from tests.linkhost.client import CLIP, OTHER_CLIP
from tests.linkhost.videos import fragments, video
from vigintd import fmp4
from vigintd.linkhost import indexes
from vigintd.linkhost.files import Files
from vigintd.linkhost.indexes import PLAIN, Indexes
from vigintd.linkhost.store import Part

NOW = datetime(2026, 3, 14, tzinfo=UTC)


@pytest.fixture
def files(tmp_path) -> Iterator[Files]:
    """The folder of clips."""
    files = Files(tmp_path)
    yield files
    files.close()


def held(files: Files, data: bytes, clip: str = CLIP, epoch: int = 1) -> Part:
    """A part of which so much is there."""
    files.path(clip, 0).write_bytes(data)
    return Part(clip, 0, len(data), None, "0" * 64, "", mismatched=False, epoch=epoch, changed_at=NOW)


async def test_an_index_grows_with_its_part(files):
    """Whatever was added, also in the middle of a fragment: what is whole is known."""
    data, known = video(2), Indexes(files)
    whole = fmp4.scan(data)[0]
    for length in (100, whole[1].offset_bytes, whole[2].offset_bytes + 50, len(data) - 1, len(data)):
        found = await known.fragments(held(files, data[:length]))
        assert found == [f for f in whole if f.offset_bytes + f.length_bytes <= length]


async def test_media_data_is_passed_over(files, monkeypatch):
    """Of a file only its boxes are read, however large its pictures are; times that go back keep it from having a film only."""
    data = video(2, width=1280, height=720)
    free = (len(data) * 8).to_bytes(4) + b"free" + bytes(len(data) * 8 - 8)
    monkeypatch.setattr(indexes, "MAX_READ_BYTES", len(data) + 10_000)
    part, known = held(files, data + free + fragments(data)[1]), Indexes(files)
    assert len(await known.fragments(part)) == len(fragments(data)) + 1
    assert await known.film(part) is PLAIN


async def test_a_part_that_begins_anew_is_read_anew(files):
    """Another epoch is another file."""
    known = Indexes(files)
    assert len(await known.fragments(held(files, video(3)))) == 7
    assert len(await known.fragments(held(files, video(2), epoch=2))) == 5


@pytest.mark.parametrize(("bound", "least"), [("MAX_FRAGMENTS", 2), ("MAX_READ_BYTES", 2000)])
async def test_a_part_beyond_the_bounds_is_shown_as_it_is(files, monkeypatch, bound, least):
    """It has no film; what of it was read is listed."""
    monkeypatch.setattr(indexes, bound, least)
    part = held(files, video(6))
    known = Indexes(files)
    assert await known.film(part) is PLAIN
    assert len(await known.fragments(part)) < 12


async def test_indexes_that_nobody_uses_make_room(files, monkeypatch):
    """Beyond the bound on all of them the least used goes; asked again, it is read again."""
    monkeypatch.setattr(indexes, "MAX_HELD_SAMPLES", 30)
    known = Indexes(files)
    for clip in (CLIP, OTHER_CLIP, CLIP):
        assert len(await known.fragments(held(files, video(2), clip))) == 5
        assert len(known._held) == 1
