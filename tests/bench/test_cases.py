"""What the benchmark measures."""

import dataclasses

import pytest
import torch

from gradleak.bench import cases


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_cases_differ_and_cover_each_precision_where_a_device_is_busy(device):
    every = cases.every(torch.device(device))
    assert len(set(every)) == len(every)
    known = {"cpu": {"float32", "bfloat16"}, "cuda": {"float32", "tf32", "bfloat16"}}[device]
    for case in cases.busy(torch.device(device)):
        kept = [c.precision for c in every if dataclasses.replace(c, precision="float32") == case]
        assert set(kept) == known
