"""Memory, counted by hand."""

import torch

from gradleak.device.memory import LiveMemory, MovedMemory


def test_live_memory_counts_what_is_alive():
    with LiveMemory() as memory:
        a = torch.zeros(1000)
        b = a + 1
        view = b[:10]
        del a
        c = b * 2
    assert memory.peak == 8000
    assert memory.live == 8000
    del b, view, c
    assert memory.live == 0


def test_moved_memory_is_what_operations_read_and_write():
    a, b, column = torch.rand(10, 10), torch.rand(10, 10), torch.rand(10, 1)
    for operation, numbers in (
        (lambda: a + b, 300),
        (lambda: a @ b, 300),
        (lambda: a.T[2:].unsqueeze(0), 0),
        (lambda: a.add_(b), 300),
        (lambda: torch.mul(a, column.expand(10, 10)), 210),  # a column is read once
        (lambda: a[3].sum(), 11),
        (lambda: a.clone(), 200),
    ):
        with MovedMemory() as memory:
            operation()
        assert memory.moved == 4 * numbers
