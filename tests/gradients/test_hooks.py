import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import gradleak as gl
from gradleak.gradients import compute, hooks


class Twice(nn.Module):
    """A network that uses one layer twice, with places beside examples."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(4, 4)
        self.last = nn.Linear(4, 3)

    def forward(self, x):
        x = torch.tanh(self.inner(x))
        return self.last(torch.tanh(self.inner(x)).mean(1))


class Bare(nn.Module):
    """A network with a parameter that no layer holds."""

    def __init__(self):
        super().__init__()
        self.last = nn.Linear(4, 3)
        self.scale = nn.Parameter(torch.ones(4))

    def forward(self, x):
        return self.last(self.scale * x)


class Mixing(nn.Module):
    """A network whose output for one example depends on the others."""

    def __init__(self):
        super().__init__()
        self.last = nn.Linear(4, 3)

    def forward(self, x):
        return self.last(x - 0.5 * x.mean(0, keepdim=True))


def seeded(model: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for p in model.parameters():
        nn.init.normal_(p, std=0.4)
    return model.double()


def agree(model, x, y, loss=F.cross_entropy):
    """Values, and the derivative of a function of them, equal those of the general path."""
    weights, slopes = {}, []
    for path in (compute.gradient, compute.general):
        z = x.clone().requires_grad_()
        g = path(model, z, y, loss)
        for name, value in g.items():
            other = weights.setdefault(name, value.detach())
            torch.testing.assert_close(value.detach(), other, rtol=1e-9, atol=1e-12)
        total = sum((v**3).sum() + v.abs().sum() for v in g.values())
        slopes.append(torch.autograd.grad(total, z)[0])
    assert list(g) == list(weights)
    torch.testing.assert_close(*slopes, rtol=1e-9, atol=1e-11)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@settings(max_examples=30, deadline=None)
@given(
    attacks=st.integers(1, 3),
    batch=st.integers(1, 3),
    channels=st.integers(1, 3),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    padding=st.sampled_from([(0, 0), (1, 0), (0, 2), "valid", "same"]),
    dilation=st.integers(1, 2),
    bias=st.booleans(),
)
def test_convolutions(attacks, batch, channels, kernel, stride, padding, dilation, bias):
    if padding == "same":
        stride = 1
    conv = nn.Conv2d(channels, 2, kernel, stride, padding, dilation=dilation, bias=bias)
    size = conv(torch.zeros(1, channels, 6, 7)).numel()
    model = seeded(nn.Sequential(conv, nn.Tanh(), nn.Flatten(), nn.Linear(size, 3, bias=bias)))
    x = torch.rand(attacks, batch, channels, 6, 7, dtype=torch.double)
    y = torch.randint(3, (attacks, batch))
    assert compute.path(model, x, y) == "captured"
    agree(model, x, y)


def test_batch_normalisation_by_running_statistics():
    """Captured in eval mode, where clients have it; in train mode it mixes examples."""
    norm = nn.BatchNorm2d(2)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), norm, nn.ReLU(), nn.MaxPool2d(2), nn.Flatten())
    model = seeded(nn.Sequential(model, nn.Linear(8, 3)))
    norm.running_mean.copy_(torch.tensor([0.3, -0.2]))
    norm.running_var.copy_(torch.tensor([2.0, 0.5]))
    x, y = torch.rand(3, 2, 1, 6, 6, dtype=torch.double), torch.randint(3, (3, 2))
    assert not hooks.supported(model.train())
    assert compute.path(model.eval(), x, y) == "captured"
    agree(model, x, y)


def test_repeated_layers_and_places():
    model = seeded(Twice())
    x, y = torch.rand(3, 2, 5, 4, dtype=torch.double), torch.randint(3, (3, 2))
    assert compute.path(model, x, y) == "captured"
    agree(model, x, y)


def test_in_place_activations_are_no_trap():
    model = seeded(nn.Sequential(nn.Linear(4, 6), nn.ReLU(inplace=True), nn.Linear(6, 3)))
    x, y = torch.rand(3, 2, 4, dtype=torch.double), torch.randint(3, (3, 2))
    assert compute.path(model, x, y) == "captured"
    agree(model, x, y)


def test_cross_entropy_counts_what_pytorchs_mean_counts():
    """Labels of -100 are left out, chances may stand in for labels, and places are averaged."""
    model = nn.Sequential(nn.Linear(3, 5)).double()
    x = torch.rand(4, 3, 3, dtype=torch.double)
    labels = torch.tensor([[0, 1, -100], [4, -100, -100], [2, 3, 1], [0, 0, 0]])
    agree(model, x, labels)
    agree(model, x, torch.rand(4, 3, 5, dtype=torch.double).softmax(2))
    spatial = nn.Sequential(nn.Conv2d(1, 5, 2)).double()
    agree(spatial, torch.rand(3, 2, 1, 4, 4, dtype=torch.double), torch.randint(5, (3, 2, 3, 3)))


def test_a_loss_of_ones_own_is_captured_too():
    model = seeded(nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2)))
    x, y = torch.rand(3, 2, 4, dtype=torch.double), torch.rand(3, 2, 2, dtype=torch.double)
    assert compute.path(model, x, y, F.mse_loss) == "captured"
    agree(model, x, y, F.mse_loss)


@pytest.mark.parametrize(
    "model",
    [
        Bare(),
        Mixing(),
        nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 3)),
        nn.Sequential(nn.Unflatten(1, (4, 1)), nn.Conv1d(4, 3, 1), nn.Flatten()),
    ],
    ids=["bare parameter", "mixes examples", "layer norm", "conv1d"],
)
def test_other_networks_take_the_general_path(model):
    model = seeded(model)
    x, y = torch.rand(3, 2, 4, dtype=torch.double), torch.randint(3, (3, 2))
    assert compute.path(model, x, y) == "general"
    agree(model, x, y)


def test_frozen_parameters_do_not_matter():
    model = seeded(nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)))
    model[0].requires_grad_(False)
    model[1].bias.requires_grad_(False)
    x, y = torch.rand(3, 2, 4, dtype=torch.double), torch.randint(3, (3, 2))
    assert compute.path(model, x, y) == "captured"
    agree(model, x, y)


@settings(max_examples=25, deadline=None)
@given(
    released=st.integers(1, 3),
    each=st.integers(1, 3),
    uses=st.integers(1, 3),
    out=st.integers(1, 4),
    inputs=st.integers(1, 5),
    seed=st.integers(0, 99),
    masked=st.sampled_from(["not", "shared", "own", "columns"]),
)
def test_factors_stand_for_the_tensor(released, each, uses, out, inputs, seed, masked):
    """Every operation on factors equals that on the tensor, also with shared observations."""
    rng = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=rng, dtype=torch.double)

    n = released * each
    factors = gl.gradients.Outer(draw(n, uses, out), draw(n, uses, inputs)).scaled(0.7)
    loc = gl.Gradient({"w": factors, "b": draw(n, out)})
    g = gl.Gradient({"w": draw(released, out, inputs), "b": draw(released, out)})
    wide = gl.Gradient({k: v.repeat_interleave(each, 0) for k, v in g.items()})
    if masked != "not":
        lead = () if masked == "shared" else (released,)
        rows = (1, inputs) if masked == "columns" else (out, inputs)
        mask = {"w": (draw(*lead, *rows) > 0).double(), "b": (draw(*lead, out) > 0).double()}
        loc = loc.masked(mask)
        own = mask["w"] if masked == "shared" else mask["w"].repeat_interleave(each, 0)
        torch.testing.assert_close(loc["w"], factors.dense() * own)
    oracle = loc.dense()
    torch.testing.assert_close(loc.moments(g), oracle.moments(wide))
    torch.testing.assert_close(loc.sq_norm(), oracle.sq_norm())
    torch.testing.assert_close(loc.sq_distance(g), oracle.sq_distance(wide))
    torch.testing.assert_close(loc.abs_distance(g), oracle.abs_distance(wide))
    torch.testing.assert_close(loc.moments(g), oracle.moments(g))
    assert (loc.attacks, loc.size) == (n, out * inputs + out)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("cached", [1, 48, 10**6])
def test_entrywise_distance_has_the_tensors_slope(masked, cached, monkeypatch):
    monkeypatch.setitem(gl.device.chunks.CACHED, "cpu", cached)
    delta = torch.randn(6, 2, 3, dtype=torch.double, requires_grad=True)
    a = torch.randn(6, 2, 4, dtype=torch.double, requires_grad=True)
    g = torch.randn(3, 3, 4, dtype=torch.double)
    mask = (torch.rand(3, 4) > 0.5).double() if masked else torch.ones(3, 4)
    factors = gl.gradients.Outer(delta, a, mask if masked else None)
    dense = torch.einsum("nko,nki->noi", delta, a) * mask - g.repeat_interleave(2, 0)
    expected = dense.abs().flatten(1).sum(1)
    found = factors.entrywise(gl.gradients.entrywise.absolute, g)
    torch.testing.assert_close(found, expected)
    weights = torch.rand(6, dtype=torch.double)
    for ours, theirs in zip(
        torch.autograd.grad((weights * found).sum(), (delta, a)),
        torch.autograd.grad((weights * expected).sum(), (delta, a)),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("cached", [1, 48, 10**6])
@pytest.mark.parametrize("uses", [1, 2])
def test_moments_of_factors_have_the_tensors_slope(uses, cached, monkeypatch):
    monkeypatch.setitem(gl.device.chunks.CACHED, "cpu", cached)
    delta = torch.randn(6, uses, 3, dtype=torch.double, requires_grad=True)
    a = torch.randn(6, uses, 4, dtype=torch.double, requires_grad=True)
    g = torch.randn(3, 3, 4, dtype=torch.double)
    dense = torch.einsum("nko,nki->noi", delta, a)
    inner = (dense * g.repeat_interleave(2, 0)).sum((1, 2))
    expected = torch.stack([inner, dense.square().sum((1, 2))])
    found = torch.stack(gl.gradients.Outer(delta, a).moments(g))
    torch.testing.assert_close(found, expected)
    weights = torch.rand(2, 6, dtype=torch.double)
    ours, theirs = (torch.autograd.grad(v, (delta, a), weights) for v in (found, expected))
    torch.testing.assert_close(ours, theirs)


def test_moments_of_tensors_can_be_differentiated_twice():
    h = [torch.randn(4, *s, dtype=torch.double, requires_grad=True) for s in ((2, 3), (2,))]
    g = [torch.randn(2, *s, dtype=torch.double) for s in ((2, 3), (2,))]

    def f(*h):
        return gl.gradients.products.of_tensors(h, g)

    assert torch.autograd.gradcheck(f, h)
    assert torch.autograd.gradgradcheck(f, h)


DEFENSES = [
    gl.GaussianNoise(0.1),
    gl.LaplaceNoise(0.1),
    gl.RandomMask(0.5, then=gl.GaussianNoise(0.1)),
    gl.RandomMask(0.5, then=gl.LaplaceNoise(0.1)),
]
BELIEFS = [
    gl.Direction(10.0),
    gl.LayerWeights((1.0, 0.5, 2.0, 0.3), then=gl.GaussianNoise(0.1)),
    gl.LayerWeights((1.0, 0.5, 2.0, 0.3), then=gl.Direction(5.0)),
    gl.LayerWeights((1.0, 0.5, 2.0, 0.3), then=gl.RandomMask(0.5, then=gl.GaussianNoise(0.1))),
    gl.LayerDirections(5.0),
    gl.UnknownMask(0.5, then=gl.GaussianNoise(0.1)),
    gl.UnknownMask(0.3, then=gl.LaplaceNoise(0.1)),
    gl.Uninformative(),
]


@pytest.mark.parametrize("belief", [*DEFENSES, *BELIEFS], ids=repr)
def test_every_belief_equals_a_loop_over_single_attacks(belief):
    """Value and slope of log p(g | x) in float64, against autograd one attack at a time."""
    model = gl.models.cnn((1, 8, 8), 10).double()
    x, y = gl.data.batch("digits", range(4))
    view = gl.Client(model, DEFENSES[2]).release(x[:2], y[:2])
    starts = torch.rand(4, 1, 8, 8, dtype=torch.double, generator=torch.Generator().manual_seed(0))
    labels = view.y.repeat_interleave(2)
    z = starts.clone().requires_grad_()
    together = gl.Client(model, belief).log_prob(view.g, z, labels)
    (slope,) = torch.autograd.grad(together.sum(), z)
    names = [name for name, _ in model.named_parameters()]
    for n in range(4):
        one = starts[n : n + 1].clone().requires_grad_()
        loss = F.cross_entropy(model(one), labels[n : n + 1])
        parts = torch.autograd.grad(loss, list(model.parameters()), create_graph=True)
        loc = gl.Gradient({k: v.unsqueeze(0) for k, v in zip(names, parts, strict=True)})
        value = belief(loc).log_prob(view.g.rows(slice(n // 2, n // 2 + 1)))
        (alone,) = torch.autograd.grad(value.sum(), one)
        torch.testing.assert_close(together[n : n + 1], value, rtol=1e-8, atol=1e-8)
        scale = alone.abs().max()
        torch.testing.assert_close(slope[n : n + 1], alone, rtol=1e-7, atol=1e-8 * float(scale))
