"""What is read off gradients of which parts were hidden, against the image itself."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import gradleak as gl
from gradleak.attacks import FirstLayer, analytic


def network(inputs=64, hidden=64, seed=0, activation=nn.ReLU):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Flatten(), nn.Linear(inputs, hidden), activation(), nn.Linear(hidden, 10)
    )


def rank_one(seed, hidden=12, inputs=9, attacks=3):
    rng = torch.Generator().manual_seed(seed)
    delta, a = (torch.randn(attacks, n, generator=rng).double() for n in (hidden, inputs))
    return gl.Gradient({"l.weight": delta.unsqueeze(2) * a.unsqueeze(1), "l.bias": delta}), delta, a


@settings(max_examples=60)
@given(rate=st.floats(0, 0.98), seed=st.integers(0, 9999))
def test_pruned_inputs_are_exact_or_within_their_bound(rate, seed):
    g, _, a = rank_one(seed)
    found = analytic.layer_input(gl.MagnitudePruning(rate)(g).loc, "l")
    told = found.bound == 0
    torch.testing.assert_close(found.a[told], a[told], rtol=1e-9, atol=1e-12)
    assert (a.abs() <= found.bound)[~told].all()
    assert (found.a[~told] == 0).all()
    assert (found.residual < 1e-9).all()


def reached(sent, bias):
    """Which inputs are told, by a walk from row to column and back: a plain loop."""
    rows = {i for i, b in enumerate(bias) if b}
    columns, before = set(), None
    while before != (len(rows), len(columns)):
        before = len(rows), len(columns)
        columns |= {j for i in rows for j, s in enumerate(sent[i]) if s}
        rows |= {i for i, row in enumerate(sent) if any(row[j] for j in columns)}
    return columns


@settings(max_examples=60)
@given(rate=st.floats(0, 0.9), seed=st.integers(0, 9999))
def test_masked_inputs_are_read_from_all_rows_that_hang_together(rate, seed):
    g, _, a = rank_one(seed, attacks=1)
    rng = torch.Generator().manual_seed(seed + 1)
    mask = {k: (torch.rand(v.shape, generator=rng) >= rate).double() for k, v in g.items()}
    mask["l.bias"][0, 0] = 1
    found = analytic.layer_input(g.masked(mask), "l")
    told = reached(mask["l.weight"][0].bool().tolist(), mask["l.bias"][0].bool().tolist())
    for j in range(9):
        assert found.a[0, j].item() == pytest.approx(a[0, j].item() if j in told else 0, rel=1e-6)
    assert (found.residual < 1e-9).all()


@pytest.mark.parametrize("rate", [0.0, 0.3, 0.9, 0.99])
@pytest.mark.parametrize("build", [network, lambda _: gl.models.mlp((1, 28, 28), 10)])
def test_survivors_of_pruning_show_the_image(rate, build):
    """Raw pixels, of which most are black, and normalised ones."""
    x, y = gl.data.batch("mnist", range(20, 32))
    view = gl.Client(build(784), gl.MagnitudePruning(rate)).release(x, y)
    shown = gl.ssim(FirstLayer().attack(view).x, x)
    assert (shown > 0.5).double().mean() >= (1 if build is network else 0.75)
    if rate < 0.9:
        assert (shown > 0.99).all()


@pytest.mark.parametrize("rate", [0.3, 0.5, 0.9])
def test_pixels_that_a_mask_hid_are_mid_grey(rate):
    x, y = gl.data.batch("mnist", range(20, 26))
    masked = gl.RandomMask(rate, gl.NoDefense(), seed=1)
    raw = gl.Client(network(784), masked).release(x, y)
    assert (gl.ssim(FirstLayer().attack(raw).x, x) > 0.9).all(), "black is told from hidden"
    seen = gl.Client(gl.models.mlp((1, 28, 28), 10), masked).release(x, y)
    found = FirstLayer().attack(seen).x
    right = (found - x).abs() < 1e-5
    assert right.double().mean() > 0.98
    assert (found[~right] == 0.5).all()


def test_a_hidden_bias_is_told():
    x, y = gl.data.batch("digits", range(3))
    client = gl.Client(network())
    view = client.release(x, y)
    bias = view.g["1.bias"].clone()
    bias[1] = 0
    with pytest.raises(
        ValueError, match=r"all of the gradient of '1.bias' was hidden for client 1"
    ):
        analytic.layer_input(gl.Gradient({**view.g, "1.bias": bias}), "1")
    hidden = gl.Client(client.model, lambda g: gl.PointMass(g.masked({"1.bias": 0 * bias[0]})))
    with pytest.raises(ValueError, match=r"only up to its scale.*Censored"):
        FirstLayer().attack(hidden.release(x, y))


def test_a_hidden_weight_is_grey_and_a_black_image_black():
    x, y = gl.data.batch("digits", range(2))
    client = gl.Client(network())
    weight = torch.zeros(64, 64)
    hidden = gl.Client(client.model, lambda g: gl.PointMass(g.masked({"1.weight": weight})))
    assert (FirstLayer().attack(hidden.release(x, y)).x == 0.5).all()
    assert (FirstLayer().attack(client.release(0 * x, y)).x == 0).all()


def test_survivors_with_noise_are_refused():
    """Noise before pruning, or several examples: surviving rows disagree."""
    g, *_ = rank_one(3)
    other, *_ = rank_one(4)
    noisy = gl.Normal(g, 0.05).sample([(0,), (1,), (2,)])
    for wrong in (noisy, g.map(torch.add, other)):
        pruned = gl.MagnitudePruning(0.5)(wrong).loc
        assert (analytic.layer_input(pruned, "l").residual > 1e-2).all()
