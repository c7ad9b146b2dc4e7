import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import gradleak as gl
from gradleak.precision import MatrixInputs, rounded

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=False)


@given(st.lists(FLOATS, min_size=1, max_size=8))
def test_bfloat16_rounds_as_torch_does(values):
    x = torch.tensor(values, dtype=torch.float32)
    expected = x.bfloat16().float()
    finite = expected.isfinite()  # the largest numbers round up to infinity
    assert torch.equal(rounded(x, 7)[finite], expected[finite])


@given(FLOATS.filter(lambda v: 1e-30 < abs(v) < 1e30), st.integers(2, 22))
def test_rounding_is_to_the_nearest(value, bits):
    x = torch.tensor([value], dtype=torch.float32)
    near = rounded(x, bits)
    assert abs(near - x) <= abs(x) * 2.0 ** -(bits + 1)
    assert torch.equal(rounded(near, bits), near)


def test_only_the_inputs_of_products_are_rounded():
    a, b = torch.rand(8, 16), torch.rand(16, 4)
    with MatrixInputs("bfloat16"):
        product, total = a @ b, a + a
    assert torch.equal(product, rounded(a, 7) @ rounded(b, 7))
    assert torch.equal(total, a + a)
    with MatrixInputs("float32"):
        assert torch.equal(a @ b, torch.mm(a, b))


def test_networks_are_reached():
    model = gl.models.cnn((1, 8, 8), 10)
    x = torch.rand(2, 1, 8, 8)
    exact = model(x)
    errors = []
    for name in ("tf32", "bfloat16"):
        with MatrixInputs(name):
            errors.append(((model(x) - exact).norm() / exact.norm()).item())
    assert 1e-6 < errors[0] < 2e-3 < errors[1] < 2e-2


def test_unknown_precision_is_refused():
    with pytest.raises(ValueError, match="one of float32, tf32, bfloat16"):
        MatrixInputs("float8")
