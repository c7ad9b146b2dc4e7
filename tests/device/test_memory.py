"""Memory, counted by hand."""

import psutil
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gradleak.device import memory as device_memory
from gradleak.device.memory import LiveMemory, MovedMemory, _left, free


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


V1 = "12:pids:/x\n4:cpu,memory:/docker/abc\n1:name=systemd:/\n0::/\n"
V2 = "0::/a.slice/b.scope\n"
GB = 2**30


def group(*numbers, version=2, cached=0):
    """The files of a group: limit and use."""
    names = ("memory.max", "memory.current") if version == 2 else (
        "memory.limit_in_bytes", "memory.usage_in_bytes")  # fmt: skip
    stat = f"anon 5\n{'total_' * (version == 1)}inactive_file {cached}\nx 1\n"
    return {**{n: f"{v}\n" for n, v in zip(names, numbers, strict=True)}, "memory.stat": stat}


OLD = {"memory.limit_in_bytes": str(2**63 - 4096), "memory.usage_in_bytes": "9"}
CASES = [
    (V2, {"a.slice/b.scope": group(4 * GB, GB)}, [3 * GB]),
    (V2, {"a.slice/b.scope": group("max", GB), "a.slice": group(2 * GB, GB)}, [GB]),
    (V2, {"a.slice/b.scope": group(4 * GB, GB), "a.slice": group(2 * GB, GB)}, [3 * GB, GB]),
    (V2, {"a.slice/b.scope": group("max", GB)}, []),
    (V2, {"a.slice/b.scope": group(4 * GB, 3 * GB, cached=GB)}, [2 * GB]),
    (V2, {"a.slice/b.scope": group(GB, 2 * GB)}, [0]),
    ("0::/\n", {".": group(2 * GB, GB)}, [GB]),  # in a container with a name space of its own
    ("0::/../outside\n", {".": group(2 * GB, GB)}, [GB]),
    (V1, {"memory/docker/abc": group(4 * GB, GB, version=1)}, [3 * GB]),
    (V1, {"memory": group(4 * GB, GB, version=1, cached=5)}, [3 * GB + 5]),  # the host's path
    (V1, {"memory": OLD, "memory/docker": group(GB, 5, version=1)}, [GB - 5]),
    (V1, {"memory": OLD, "memory/docker/abc": OLD}, []),
    (V2, {"a.slice/b.scope": {"memory.max": "garbage", "memory.current": "1"}}, []),
    (V2, {"a.slice/b.scope": {"memory.max": "5"}}, []),
    ("", {}, []),
    ("garbage\n:::\n\n", {}, []),
]


@pytest.mark.parametrize(("own", "groups", "left"), CASES)
def test_limits_of_containers_are_seen(tmp_path, own, groups, left):
    (tmp_path / "own").write_text(own)
    for place, files in groups.items():
        (tmp_path / "root" / place).mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (tmp_path / "root" / place / name).write_text(text)
    assert sorted(_left(tmp_path / "root", tmp_path / "own")) == sorted(left)
    assert _left(tmp_path / "nowhere", tmp_path / "none") == []


@given(st.lists(st.integers(0, 2**50), max_size=4))
def test_no_more_is_free_than_the_closest_limit_leaves(left):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(device_memory, "_left", lambda: left)
        patch.setattr(psutil, "virtual_memory", lambda: type("M", (), {"available": 2**40}))
        assert free(torch.device("cpu")) == min([2**40, *left])
