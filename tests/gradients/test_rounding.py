"""Networks without corners: near the network, differentiable as autograd says, and a copy alone."""

import copy
import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import gradleak as gl
from gradleak.gradients import path, rounded


def functional(relu):
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Linear(6, 5), nn.Linear(5, 5), nn.Linear(5, 3)

        def forward(self, x):
            z = self.a(x)
            z = z + self.b(relu(z))  # where z was overwritten, it is what was left
            return self.c(relu(z))

    return Network().eval()


class Overwrites(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.relu, self.b = nn.Linear(6, 5), nn.ReLU(inplace=True), nn.Linear(5, 3)

    def forward(self, x):
        z = self.a(x)
        self.relu(z)
        return self.b(z)


NETWORKS = {
    "module": lambda: nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)),
    "one module twice": lambda: nn.Sequential(*[nn.Linear(6, 6), r := nn.ReLU()] * 2, r),
    "overwrites": Overwrites,
    **{
        name: lambda relu=relu: functional(relu)
        for name, relu in {
            "F.relu": F.relu,
            "F.relu, in place": lambda z: F.relu(z, inplace=True),
            "torch.relu_": torch.relu_,
            "Tensor.relu": torch.Tensor.relu,
            "F.relu by keyword": lambda z: F.relu(input=z),
        }.items()
    },
}


@pytest.fixture
def x():
    return torch.rand(40, 6, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", NETWORKS)
def test_it_comes_near_the_network_as_its_width_falls(name, x):
    with gl.randomness.seeded(0):
        model = NETWORKS[name]()
    errors = [(rounded(model, x, w)(x) - model(x)).abs().max() for w in (1.0, 0.1, 0.01, 1e-3)]
    assert errors[0] > 1e-3
    assert all(after < before for before, after in itertools.pairwise(errors))
    assert errors[-1] < 1e-3


def test_one_relu_is_softplus_of_the_width_of_its_input(x):
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU())
    h = 0.3 * model[0](x).std(0).mean()
    expected = h * F.softplus(model[0](x) / h)
    torch.testing.assert_close(rounded(model, x, 0.3)(x), expected)
    assert (rounded(model, x, 0.3)(x) - model(x)).max() <= h * math.log(2) + 1e-6


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_and_slopes_of_the_copy_are_autograds(name, x):
    with gl.randomness.seeded(0):
        model = NETWORKS[name]()
    twin, y = rounded(model, x, 0.3), torch.tensor([0, 1, 2])
    a = x[:3].clone().requires_grad_()
    g = gl.gradient(twin, a[:, None], y[:, None])
    for n in range(3):
        loss = F.cross_entropy(twin(a[n : n + 1]), y[n : n + 1])
        own = torch.autograd.grad(loss, list(twin.parameters()), create_graph=True)
        for mine, theirs in zip(g.values(), own, strict=True):
            torch.testing.assert_close(mine[n], theirs, rtol=1e-4, atol=1e-6)
        slope = torch.autograd.grad(sum((v**3).sum() for v in own), a, retain_graph=True)[0][n]
        ours = torch.autograd.grad(sum((v[n] ** 3).sum() for v in g.values()), a, retain_graph=True)
        torch.testing.assert_close(ours[0][n], slope, rtol=1e-3, atol=1e-6)


def test_the_usual_networks_are_captured():
    for name in ("cnn", "convbig", "mlp"):
        model = getattr(gl.models, name)((1, 16, 16), 10)
        x = torch.rand(8, 1, 16, 16)
        twin = rounded(model, x, 0.1)
        assert twin is not model
        a = x[:2, None].requires_grad_()
        assert path(twin, a, torch.zeros(2, 1).long()) == "captured"


def test_the_copy_shares_the_weights_and_the_network_stays_as_it_was(x):
    model = functional(F.relu)
    before, state = model(x), copy.deepcopy(model.state_dict())
    twin = rounded(model, x, 0.3)
    assert all(a is b for a, b in zip(twin.parameters(), model.parameters(), strict=True))
    assert rounded(model, x, 0.3) is twin
    assert rounded(model, x, 0.1) is not twin
    assert torch.equal(model(x), before)
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    with torch.no_grad():
        model.a.weight.mul_(2)
    assert rounded(model, x, 0.3) is not twin


def test_a_forward_that_calls_more_relus_than_the_examples_showed(x):
    class Decides(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 3)

        def forward(self, x):
            z = F.relu(self.a(x))
            return self.b(F.relu(z) if x.sum() < 0 else z)

    twin = rounded(Decides(), x, 0.01)
    assert (twin(-x) - twin.b(F.relu(twin.a(-x)))).abs().max() < 0.1


def test_without_a_relu_it_is_the_network_itself(x):
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))
    with pytest.warns(UserWarning, match="Sequential calls no ReLU, so there is nothing"):
        assert rounded(model, x, 0.3) is model
