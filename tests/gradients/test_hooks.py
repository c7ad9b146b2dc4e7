import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

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


def agree(model, x, y, loss=F.cross_entropy, path="captured"):
    """Values, and the derivative of a function of them, equal those of the general path."""
    assert compute.path(model, x, y, loss) == path
    weights, slopes = {}, []
    for gradient in (compute.gradient, compute.general):
        z = x.clone().requires_grad_()
        g = gradient(model, z, y, loss)
        for name, value in g.items():
            other = weights.setdefault(name, value.detach())
            torch.testing.assert_close(value.detach(), other, rtol=1e-9, atol=1e-12)
        total = sum((v**3).sum() + v.abs().sum() for v in g.values())
        slopes.append(torch.autograd.grad(total, z)[0])
    assert list(g) == list(weights)
    torch.testing.assert_close(*slopes, rtol=1e-9, atol=1e-11)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@settings(max_examples=30)
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
    agree(model.eval(), x, y)


def test_repeated_layers_and_places():
    model = seeded(Twice())
    x, y = torch.rand(3, 2, 5, 4, dtype=torch.double), torch.randint(3, (3, 2))
    agree(model, x, y)


def test_in_place_activations_are_no_trap():
    model = seeded(nn.Sequential(nn.Linear(4, 6), nn.ReLU(inplace=True), nn.Linear(6, 3)))
    x, y = torch.rand(3, 2, 4, dtype=torch.double), torch.randint(3, (3, 2))
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
    agree(model, x, y, path="general")


def test_frozen_parameters_do_not_matter():
    model = seeded(nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)))
    model[0].requires_grad_(False)
    model[1].bias.requires_grad_(False)
    x, y = torch.rand(3, 2, 4, dtype=torch.double), torch.randint(3, (3, 2))
    agree(model, x, y)
