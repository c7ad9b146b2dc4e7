import os
import threading
import time
from concurrent.futures import CancelledError

import pytest
import torch

from gradleak.device import LiveMemory, cores, follows, proceed, side_by_side, threads

ROWS = torch.arange(10)


@pytest.mark.parametrize("workers", [2, 3, 20])
@pytest.mark.parametrize("chunk", [1, 4, 100])
def test_workers_hold_a_chunk_together_and_answers_come_in_order(workers, chunk):
    held, lock, most = [0], threading.Lock(), []

    def run(rows):
        with lock:
            held[0] += len(rows)
            most.append(held[0])
        time.sleep(0.002)
        with lock:
            held[0] -= len(rows)
        assert torch.get_num_threads() == 1
        return rows

    before = torch.get_num_threads()
    found = side_by_side(run, ROWS, chunk, workers)
    assert torch.cat(found).equal(ROWS)
    assert max(most) <= max(chunk, workers)
    assert torch.get_num_threads() == before


def test_what_finds_no_memory_is_run_after_the_rest():
    alone = threading.main_thread()

    def run(rows):
        if threading.current_thread() is not alone and 3 in rows:
            raise RuntimeError("DefaultCPUAllocator: not enough memory")
        return rows

    assert torch.cat(side_by_side(run, ROWS, 10, 2)).equal(ROWS)


def test_an_error_of_one_stops_the_others():
    stopped, begun = [], threading.Event()

    def run(rows):
        if 0 in rows:
            begun.wait()
            raise ValueError("of one")
        begun.set()
        try:
            while True:
                proceed()
                time.sleep(0.001)
        except CancelledError:
            stopped.append(rows)
            raise

    with pytest.raises(ValueError, match="of one"):
        side_by_side(run, ROWS, 10, 2)
    assert len(stopped) == 1
    proceed()  # outside of workers it does nothing


def test_modes_do_not_pass_on_to_threads():
    assert follows()
    with LiveMemory():
        assert not follows()
    with torch.device("cpu"):
        assert not follows()


def test_threads_are_given_back_after_an_error():
    before = torch.get_num_threads()
    with pytest.raises(RuntimeError, match="negative"), threads(before + 1):
        torch.empty(torch.get_num_threads() - before - 2)
    assert torch.get_num_threads() == before


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity")
def test_cores_are_those_that_this_process_may_use():
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert cores() == 1
    finally:
        os.sched_setaffinity(0, before)
    assert cores() == len(before)
