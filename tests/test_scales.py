from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch

import gradleak as gl
from gradleak.scales import check_number, per_attack


def test_a_number_for_each_attack_multiplies_its_row():
    like = torch.rand(3, 2, 4, dtype=torch.double)
    scale = torch.tensor([1.0, 10.0, 100.0])
    found = per_attack(scale, like) * like
    torch.testing.assert_close(
        found, torch.stack([s * v for s, v in zip(scale, like, strict=True)])
    )
    assert found.dtype == like.dtype


def test_one_number_stays_as_it_is():
    assert per_attack(0.5, torch.rand(3, 2)) == 0.5
    one = torch.tensor(0.5)
    assert per_attack(one, torch.rand(3, 2)) is one


@pytest.mark.filterwarnings("ignore")  # PyTorch's own, of prototypes
@pytest.mark.parametrize(
    "make",
    [
        torch.Tensor.to_sparse,
        lambda v: v.to("meta"),
        lambda v: v.to(torch.float8_e4m3fn),
        lambda v: torch.quantize_per_tensor(v, 0.1, 0, torch.qint8),
        lambda v: torch.nested.nested_tensor([v]),
        torch.Tensor.bool,
        torch.Tensor.cfloat,
    ],
)
@pytest.mark.parametrize("of", [gl.GaussianNoise, gl.TotalVariation, lambda v: gl.Adam(lr=v)])
def test_tensors_that_hold_no_plain_numbers_are_no_scale(of, make):
    of(torch.ones(3))
    with pytest.raises(ValueError, match=r"or a tensor \(N,\) of such"):
        of(make(torch.ones(3)))


@pytest.mark.parametrize("value", [10**400, -(10**400), Fraction(1, 2), Decimal("0.5"), True, "1"])
@pytest.mark.parametrize("interval", ["[0, inf)", "(-inf, inf]"])
def test_numbers_are_ints_and_floats_that_a_float_holds(value, interval):
    with pytest.raises(ValueError, match="a must be a number"):
        check_number("a", value, interval)


@pytest.mark.parametrize("value", [0, 3, 0.5, np.float32(0.5), np.int64(3), np.float16(1)])
def test_numpys_numbers_are_numbers(value):
    check_number("a", value, "[0, inf)")
