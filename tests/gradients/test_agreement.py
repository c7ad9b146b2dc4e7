"""Networks and losses of all kinds: the way that is taken, and its values, against autograd."""

import copy
import random
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import zoo
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import gradleak as gl
from gradleak.gradients import LoopWarning, compute

WAYS = {"captured": zoo.CAPTURED, "general": zoo.GENERAL, "loop": zoo.LOOP}
CASES = [(way, name) for way, cases in WAYS.items() for name in cases]


def made(case, dtype=torch.double):
    torch.manual_seed(0)
    return case[0]().to(dtype)


def by_hand(model, x, y, loss=F.cross_entropy):
    """Gradients of each attack, with a fresh copy of the network, as they are usually written."""
    model = copy.deepcopy(model)
    parameters = [p for p in model.parameters() if p.requires_grad]
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        total = loss(model(x.clone()), y.clone())
        found = torch.autograd.grad(
            total, parameters, create_graph=x.requires_grad, materialize_grads=True
        )
    return [g.to_dense() if g.is_sparse else g for g in found]


def combined(gradients):
    """A number that depends on every entry, by another function than the check's own."""
    return sum(
        (g * torch.linspace(-1, 2, g.numel()).to(g).view_as(g)).sin().sum() for g in gradients
    )


def agrees(model, x, y, loss=F.cross_entropy):
    """Gradients, and a slope in x, equal those by hand, attack for attack."""
    z = x.clone().requires_grad_()
    g = gl.gradient(model, z, y, loss)
    values = gl.gradient(model, x, y, loss)
    found = torch.autograd.grad(sum(combined([v[n] for v in g.values()]) for n in range(len(x))), z)
    for n in range(len(x)):
        a = x[n].clone().requires_grad_()
        expected = by_hand(model, a, y[n], loss)
        for e, v, w in zip(expected, g.values(), values.values(), strict=True):
            torch.testing.assert_close(v[n], e)
            torch.testing.assert_close(w[n], e.detach())
        torch.testing.assert_close(found[0][n], torch.autograd.grad(combined(expected), a)[0])


@pytest.fixture
def _quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LoopWarning)
        yield


@pytest.mark.usefixtures("_quiet")
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize(("way", "name"), CASES)
def test_every_network_gives_autograds_gradients_and_slopes(way, name, batch):
    case = WAYS[way][name]
    model, x = made(case), torch.rand(3, batch, *case[1], dtype=torch.double)
    y, before = torch.randint(3, (3, batch)), x.clone()
    kept = [dict(vars(module)) for module in model.modules()]
    state = {k: (v, v.clone()) for k, v in model.state_dict(keep_vars=True).items()}
    agrees(model, x, y)
    assert compute.path(model, x, y) == way
    assert compute.path(model, x.requires_grad_(), y) == way
    # Neither x nor the network is changed.
    assert torch.equal(x, before)
    for k, v in model.state_dict(keep_vars=True).items():
        assert v is state[k][0]
        assert torch.equal(v, state[k][1])
    for module, was in zip(model.modules(), kept, strict=True):
        assert vars(module).keys() == was.keys()


@pytest.mark.usefixtures("_quiet")
@pytest.mark.parametrize(("way", "name"), CASES)
def test_every_network_can_be_attacked(way, name):
    case = WAYS[way][name]
    client = gl.Client(made(case, torch.float))
    view = client.release(torch.rand(3, *case[1]), torch.tensor([0, 1, 2]))
    attack = gl.inverting_gradients(client, prior=gl.Box(), optimizer=gl.Adam(steps=3))
    found = attack.attack(view)
    assert found.x.isfinite().all()
    assert found.log_posterior.isfinite().all()


def test_linear_layers_stay_factored_and_the_rest_is_captured():
    """Else a slow engine would give the same numbers."""
    model, y = gl.models.convnet((1, 9, 9), 10, width=4), torch.randint(10, (4, 1))
    x = torch.rand(4, 1, 1, 9, 9, requires_grad=True)
    assert compute.path(model, x, y) == compute.path(model, x.detach(), y) == "captured"
    wide, z = gl.models.mlp((1, 8, 8), 10), torch.rand(2, 1, 1, 8, 8, requires_grad=True)
    entries = gl.gradient(wide, z, y[:2])._entries
    assert type(entries["dense1.weight"]) is type(entries["dense2.weight"]) is gl.gradients.Outer


def one_hot(output, y):
    return -(F.one_hot(y, 3) * output.log_softmax(-1)).sum(-1).mean()


def masked(output, y):
    return F.cross_entropy(output[y >= 0], y[y >= 0])


def item(output, y):
    return F.cross_entropy(output, y) * (2 if output.sum().item() > 0 else 1)


def no_nan(output, y):
    value = F.cross_entropy(output, y)
    assert not torch.isnan(value)
    return value


def counted(output, y):
    return sum(-output[i].log_softmax(-1)[int(y[i])] for i in range(len(y))) / len(y)


def first(output, y):
    return F.cross_entropy(output[0], y)


def logits(output, y):
    return F.cross_entropy(output["logits"], y)


def writes(output, y):
    y[y == 2] = 0
    return F.cross_entropy(output, y)


@pytest.mark.parametrize("loss", [one_hot, masked, item, no_nan, counted])
def test_losses_that_vmap_refuses_leave_the_network_captured(loss):
    model = made(zoo.CAPTURED["convolution"])
    x, y = torch.rand(3, 2, *zoo.IMAGE, dtype=torch.double), torch.randint(3, (3, 2))
    agrees(model, x, y, loss)
    assert compute.path(model, x, y, loss) == "captured"


@pytest.mark.parametrize(
    ("loss", "of"),
    [(first, lambda z: (z, z.sin())), (logits, lambda z: {"logits": z, "loss": None})],
)
def test_outputs_that_are_no_tensor(loss, of):
    model = zoo.Of(lambda m, x: of(m.last(torch.tanh(m.inner(x)))), inner=nn.Linear(8, 6),
                   last=nn.Linear(6, 3)).double()  # fmt: skip
    x, y = torch.rand(3, 2, 8, dtype=torch.double), torch.randint(3, (3, 2))
    agrees(model, x, y, loss)
    assert compute.path(model, x, y, loss) == "general"


def test_labels_are_not_changed():
    model, y = zoo.mlp().double(), torch.tensor([[2, 1], [2, 2]])
    with pytest.warns(LoopWarning, match=r"one attack after the other.*mask"):
        agrees(model, torch.rand(2, 2, 8).double(), y, writes)
    assert y.tolist() == [[2, 1], [2, 2]]


def test_a_decision_is_made_for_each_attack():
    """Two attacks that happen to decide alike are no reason to decide for all of them at once."""
    model = made(zoo.LOOP["if"])
    low, high = 0.2 * torch.rand(2, 1, 8).double(), 0.8 + 0.2 * torch.rand(2, 1, 8).double()
    with pytest.warns(LoopWarning):
        gl.gradient(model, high, torch.tensor([[0], [1]]))
    with pytest.warns(LoopWarning):
        agrees(model, torch.cat([high, low]), torch.tensor([[0], [1], [2], [0]]))


def test_a_maximum_of_one_in_every_image_does_not_hide_that_attacks_mix():
    model = made(zoo.GENERAL["scaled by the batch"])
    x = torch.rand(2, 1, 8).double()
    x[..., 0] = 1
    gl.gradient(model, x, torch.tensor([[0], [1]]))
    agrees(model, x * torch.tensor([1, 0.5]).view(2, 1, 1), torch.tensor([[0], [1]]))


def test_pruned_or_frozen_after_its_first_gradient():
    model, y = zoo.mlp().double(), torch.tensor([[0], [1]])
    x = torch.rand(2, 1, 8).double()
    agrees(model, x, y)
    nn.utils.prune.l1_unstructured(model[0], "weight", 0.5)
    with torch.no_grad():
        model(x[0])
    agrees(model, x, y)
    model[2].requires_grad_(False)
    agrees(model, x, y)


DRAWS = {
    "dropout": lambda m, x: m.last(F.dropout(x)),
    "noise": lambda m, x: m.last(x + 1e-2 * torch.randn_like(x)),
    "rarely": lambda m, x: m.last(x) * (2 if torch.rand(()) < 1e-6 else 1),
    "Python": lambda m, x: m.last(x) * (2 if random.random() < 1e-6 else 1),
    "NumPy": lambda m, x: m.last(x) * np.random.rand(),
    "own generator": lambda m, x: m.last(x) * np.random.default_rng().random(),
    "permuted": lambda m, x: m.last(x[:, torch.randperm(8)]),
}


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_a_random_forward_is_refused(draw):
    client = gl.Client(zoo.only(draw))
    with pytest.raises(
        ValueError, match=r"depends on more than x and y; call model.eval\(\) first"
    ):
        client.release(torch.rand(2, 8), torch.tensor([0, 1]))


@pytest.mark.parametrize(
    "layer", [nn.RReLU(), nn.LSTM(8, 8, 2, batch_first=True, dropout=0.5)], ids=["RReLU", "LSTM"]
)
def test_a_random_layer_is_refused_in_train_mode_alone(layer):
    run = lambda m, x: m.last(out[0][:, -1] if isinstance(out := m.layer(x - 0.5), tuple) else out)  # noqa: E731
    model = zoo.Of(run, layer=layer, last=nn.Linear(8, 3))
    x, y = torch.rand(2, *((5, 8) if isinstance(layer, nn.LSTM) else (8,))), torch.tensor([0, 1])
    with pytest.raises(ValueError, match="more than x and y"):
        gl.Client(model).release(x, y)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LoopWarning)
        gl.Client(model.eval()).release(x, y)


def test_a_second_derivative_that_is_missing_is_named():
    client = gl.Client(zoo.mlp(), loss=nn.MultiMarginLoss())
    view = client.release(torch.rand(2, 8), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match=r"slope of the gradient in x.*multi_margin") as caught:
        gl.inverting_gradients(client, prior=gl.Box()).attack(view)
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_a_gradient_that_is_not_finite_decides_nothing():
    model = zoo.only(lambda m, x: m.last(x.log())).double()
    x, y = torch.rand(2, 1, 8).double() + 0.1, torch.tensor([[0], [1]])
    assert compute.path(model, 0 * x, y) == "loop"
    assert compute.path(model, x, y) == "captured"


@settings(max_examples=25)
@given(
    layers=st.lists(
        st.sampled_from(
            [
                lambda: nn.Linear(8, 8),
                lambda: nn.LayerNorm(8),
                lambda: nn.Tanh(),
                lambda: nn.GroupNorm(2, 8),
                lambda: nn.RMSNorm(8),
                lambda: nn.GELU(),
                lambda: nn.Softmax(-1),
                lambda: nn.PReLU(),
                lambda: nn.BatchNorm1d(8).eval(),
                lambda: zoo.only(lambda m, x: (x + 0).mul_(2) + m.last(x)[:, :1]),
                lambda: nn.utils.parametrizations.weight_norm(nn.Linear(8, 8)),
                lambda: zoo.dense(
                    lambda m, x: x + m.last(zoo.Square.apply(m.first(x))).sum(1, True)
                ),
            ]
        ),
        min_size=1,
        max_size=4,
    ),
    attacks=st.integers(1, 3),
    batch=st.integers(1, 3),
)
def test_any_stack_of_layers(layers, attacks, batch):
    torch.manual_seed(0)
    model = nn.Sequential(*(make() for make in layers), nn.Linear(8, 3)).double()
    x = torch.randn(attacks, batch, 8, dtype=torch.double)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LoopWarning)
        agrees(model, x, torch.randint(3, (attacks, batch)))
