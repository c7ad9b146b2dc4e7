"""Rows in chunks: all of them, once, in order, in chunks that fit."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gradleak.device import chunks


@given(count=st.integers(1, 50), chunk=st.integers(1, 60), fits=st.integers(1, 20))
def test_where_memory_runs_out_chunks_are_halved_and_nothing_is_lost(count, chunk, fits):
    sizes = []

    def run(rows):
        if len(rows) > fits:
            raise torch.OutOfMemoryError("no more")
        sizes.append(len(rows))
        return rows

    rows = torch.arange(count)
    assert torch.equal(torch.cat(chunks.in_chunks(run, rows, chunk)), rows)
    # halving stops at the first size that fits: never below half of what fits but for the rest
    assert all(2 * size >= min(fits, chunk, count) - 1 for size in sizes[:-1])


def test_other_errors_are_the_callers():
    def run(_):
        raise RuntimeError("a fault of its own")

    with pytest.raises(RuntimeError, match="a fault of its own"):
        chunks.in_chunks(run, torch.arange(4), 2)


@given(rows=st.integers(1, 100), each=st.integers(1, 2**22))
def test_blocks_cover_the_rows_and_fit_the_cache(rows, each):
    device = torch.device("cpu")
    parts = list(chunks.blocks(rows, each, device))
    assert [k for part in parts for k in range(part.start, part.stop)] == list(range(rows))
    assert all((p.stop - p.start) * each <= max(each, chunks.CACHED["cpu"]) for p in parts)


def test_as_many_rows_as_take_half_of_the_memory(monkeypatch):
    """Memory for 1000 numbers; a row takes 10, and 50 are taken once."""
    monkeypatch.setattr(chunks, "free", lambda device: 4 * 1000)

    def run(rows):
        return torch.zeros(50), torch.zeros(len(rows), 10)

    assert chunks.as_many_as_fit(run, torch.zeros(4), torch.device("cpu")) == 50


WORDS = [
    RuntimeError("[enforce fail at alloc_cpu.cpp:114] err == 0. DefaultCPUAllocator: can't allocate"
                 " memory: you tried to allocate 9 bytes. Error code 12 (Cannot allocate memory)"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:80] . DefaultCPUAllocator: not enough memory"),
    RuntimeError("could not create a primitive"),
    RuntimeError("could not create a primitive descriptor for the convolution forward"),
    RuntimeError("could not create a memory object"),
    RuntimeError("could not execute a primitive"),
    RuntimeError("std::bad_alloc"), MemoryError(), MemoryError("std::bad_alloc"),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("CUDA error: out of memory"), RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED"
                                                            " when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("unable to mmap 9 bytes: Cannot allocate memory (12)"),
]  # fmt: skip


@pytest.mark.parametrize("error", WORDS, ids=str)
def test_every_word_for_no_memory_halves_the_chunk(error):
    def run(rows):
        if len(rows) > 3:
            raise error
        return rows

    rows = torch.arange(13)
    assert torch.equal(torch.cat(chunks.in_chunks(run, rows, 13)), rows)
    assert chunks.as_many_as_fit(run, rows, torch.device("cpu")) == 1
    with pytest.raises(type(error)):  # of one row there is no half
        chunks.in_chunks(lambda _: run(rows), rows, 4)


def test_memory_that_is_not_there():
    """The allocator's own words, and NumPy's."""
    for huge in (lambda: torch.empty(2**50), lambda: np.empty(2**50)):

        def run(rows, huge=huge):
            return huge() if len(rows) > 1 else rows

        assert len(chunks.in_chunks(run, torch.arange(5), 5)) == 5
