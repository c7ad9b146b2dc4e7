import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import gradleak as gl
from gradleak.device.precision import PRECISIONS, MatrixInputs, chosen, products, rounded
from gradleak.gradients import compute

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


def choice():
    """What PyTorch would do to products on a graphics card."""
    matmul = torch.backends.cuda.matmul.allow_tf32
    assert matmul == (torch.get_float32_matmul_precision() == "high")
    return matmul, torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_choice_holds_inside_and_is_undone_outside(precision):
    before = choice()
    assert chosen() == "float32, convolutions tf32"  # PyTorch's own
    with products(precision):
        assert choice() == (precision == "tf32",) * 2
        assert chosen() == ("tf32" if precision == "tf32" else "float32")
    assert choice() == before
    with pytest.raises(ZeroDivisionError), products(precision):
        _ = 1 / 0
    assert choice() == before


@pytest.mark.parametrize("legacy", [True, False])
def test_either_way_to_choose_a_precision_outlives_ours(legacy):
    """PyTorch has an old and a new way to say it, and refuses the old one after the new one."""
    code = (
        "torch.set_float32_matmul_precision('high'); known = torch.get_float32_matmul_precision"
        if legacy
        else "torch.backends.fp32_precision = 'tf32'; known = lambda: torch.backends.fp32_precision"
    )
    script = f"""
import torch, gradleak as gl
{code}
before = known()
with gl.device.precision.products("float32"):
    pass
assert known() == before, (known(), before)
"""
    subprocess.run([sys.executable, "-W", "error", "-c", script], check=True)


def test_bfloat16_products_take_and_return_float32():
    a, b = torch.rand(8, 16), torch.rand(16, 4)
    with products("bfloat16"):
        product, total, double = a @ b, a + a, a.double() @ b.double()
    assert torch.equal(product, (a.bfloat16() @ b.bfloat16()).float())
    assert torch.equal(total, a + a)
    assert torch.equal(double, a.double() @ b.double())


@pytest.mark.parametrize("choose", [products, MatrixInputs])
def test_a_rounded_attack_takes_the_fast_path_and_finds_the_same(choose):
    """The path is checked in float32: else a rounded product would look like a wrong gradient."""
    x, y = gl.data.batch("digits", range(3))
    model = gl.models.cnn(x.shape[1:], 10)
    client = gl.Client(model, gl.GaussianNoise(0.01))
    view = client.release(x, y)
    search = gl.Adam(steps=40, lr=0.1, decay=0.95, signed=True)
    prior = gl.Sum((gl.TotalVariation(1.0), gl.Box()))
    adversary = gl.bayes(client, prior, optimizer=search)
    compute.VERDICTS.clear()
    with choose("bfloat16"):
        rounded_x = adversary.attack(view).x
        assert compute.path(model, x[:, None], y[:, None]) == "captured"
    apart = gl.psnr(rounded_x, x) - gl.psnr(adversary.attack(view).x, x)
    assert apart.abs().max() < 1.5


@pytest.mark.parametrize("choose", [products, MatrixInputs])
def test_unknown_precision_is_refused(choose):
    with pytest.raises(ValueError, match="one of: float32, tf32, bfloat16"), choose("float8"):
        pass
