"""The memory file: without a name, sealed, sparse, and refused where it is not ours."""

from __future__ import annotations

import errno
import os
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fix_store import FORKS, in_child

from snakepit_mp.errors import StoreFull, StoreMismatch
from snakepit_mp.store import segment as module
from snakepit_mp.store.layout import (
    DESCRIPTORS,
    FAMILY,
    FAMILY_LOCKED,
    FAMILY_ROBUST,
    MAGIC,
    NAMESPACE,
    PAGE_WORDS,
    READY,
    SIZE,
    VERSION,
    WORD,
)
from snakepit_mp.store.segment import Segment

pytestmark = FORKS
linux = pytest.mark.skipif(sys.platform != "linux", reason="anonymous memory files are Linux's")


@pytest.fixture
def segment() -> Iterator[Segment]:
    made = Segment.create(16 << 20, FAMILY_LOCKED)
    yield made
    made.close()


def attached(segment: Segment) -> Segment:
    return Segment.attach(os.dup(segment.descriptor), FAMILY_LOCKED)


@linux
def test_it_has_no_name_anywhere() -> None:
    before = set(os.listdir("/dev/shm"))
    segment = Segment.create(16 << 20, FAMILY_LOCKED)
    try:
        assert set(os.listdir("/dev/shm")) == before
        assert "memfd:snakepit_mp" in os.readlink(f"/proc/self/fd/{segment.descriptor}")
    finally:
        segment.close()


@linux
def test_it_can_be_neither_shrunk_nor_grown(segment: Segment) -> None:
    for size in (segment.size // 2, segment.size * 2):
        with pytest.raises(PermissionError):
            os.ftruncate(segment.descriptor, size)


def test_only_committed_memory_is_taken(segment: Segment) -> None:
    def taken() -> int:
        return os.fstat(segment.descriptor).st_blocks * 512

    assert segment.size >= 1 << 30
    assert taken() < 1 << 20
    segment.grow(0, 64)
    assert 1 << 20 <= taken() < 2 << 20


def test_it_does_not_survive_an_exec(segment: Segment) -> None:
    assert not os.get_inheritable(segment.descriptor)


def test_another_handle_sees_the_same_words(segment: Segment) -> None:
    other = attached(segment)
    segment.words[DESCRIPTORS] = 7
    assert (other.words[DESCRIPTORS], other.identity) == (7, segment.identity)
    assert other.seed == segment.seed
    other.close()


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        (MAGIC, "none"),
        (VERSION, "layout"),
        (FAMILY, "implementation"),
        (SIZE, "size"),
        (READY, "died"),
        (NAMESPACE, "PID namespace"),
    ],
)
def test_a_stranger_is_refused(segment: Segment, word: int, reason: str) -> None:
    segment.words[word] += 1
    with pytest.raises(StoreMismatch, match=reason):
        attached(segment)


def test_the_twins_do_not_share(segment: Segment) -> None:
    with pytest.raises(StoreMismatch, match="implementation"):
        Segment.attach(os.dup(segment.descriptor), FAMILY_ROBUST)


def test_a_file_that_is_too_small_is_refused(tmp_path: Path) -> None:
    file = os.open(tmp_path / "small", os.O_RDWR | os.O_CREAT)
    with pytest.raises(StoreMismatch, match="too small"):
        Segment.attach(file, FAMILY_LOCKED)


@linux
@pytest.mark.parametrize("limit", [resource.RLIMIT_AS, resource.RLIMIT_FSIZE])
def test_where_limits_refuse_the_size_it_is_smaller(limit: int) -> None:
    def limited() -> None:
        resource.setrlimit(limit, (8 << 30, resource.getrlimit(limit)[1]))
        segment = Segment.create(1 << 20, FAMILY_LOCKED)
        assert 1 << 28 <= segment.size < 8 << 30
        segment.close()

    assert in_child(limited) == 0


def test_no_memory_at_all_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise OSError(errno.ENOMEM, "no memory")

    monkeypatch.setattr(module, "_reserve", refuse)
    with pytest.raises(StoreFull, match="no memory"):
        Segment.create(1 << 20, FAMILY_LOCKED)


def test_a_refused_growth_is_a_full_store(
    segment: Segment, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object) -> None:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(module, "_reserve", refuse)
    with pytest.raises(StoreFull, match="no memory left"):
        segment.grow(0, 1)


def test_pages_end_within_the_file(segment: Segment) -> None:
    end = segment.heap + segment.max_pages * PAGE_WORDS
    assert end * WORD <= segment.size
    assert segment.descriptor_of(segment.max_pages) <= segment.heap
