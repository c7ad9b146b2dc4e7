import copy
import math
import re
from fractions import Fraction

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import gradleak as gl
from gradleak.gradients import received

SIZES = st.integers(1, 5)


def network(activation=nn.Tanh):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 3, 4), activation(), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(27, 5)
    ).eval()


def true(net, n=None):
    """Autograd's own gradient, of one client or of n, with a plain loop."""
    x, y = torch.rand(n or 1, 2, 6, 6), torch.arange(n or 1) % 5
    each = [
        torch.autograd.grad(F.cross_entropy(net(a[None]), b[None]), [*net.parameters()])
        for a, b in zip(x, y, strict=True)
    ]
    names = [k for k, _ in net.named_parameters()]
    stacked = {k: torch.stack(v) for k, v in zip(names, zip(*each, strict=True), strict=True)}
    return {k: v[0] for k, v in stacked.items()} if n is None else stacked


def names(net):
    return list(received.like(net))


@pytest.mark.parametrize("n", [None, 1, 3])
def test_one_client_or_several_are_told_by_the_shape(n):
    net = network()
    g = true(net, n)
    found = received.gradient(net, dict(reversed(g.items())), names(net))
    assert list(found) == names(net)  # in the model's order, whatever the dict's
    for k, v in found.items():
        assert torch.equal(v, g[k] if n else g[k][None])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_precision_becomes_the_models(dtype):
    net = network()
    g = true(net)
    found = received.gradient(net, {k: v.to(dtype) for k, v in g.items()}, names(net))
    for k, v in found.items():
        assert v.dtype is torch.float32
        torch.testing.assert_close(v[0], g[k], rtol=1e-2, atol=1e-5)


@given(st.data())
def test_another_frameworks_layout_is_guessed_and_its_cure_is_right(data):
    """Whatever is told to be done, done: then it is the parameter's shape, and what was sent."""
    space = data.draw(st.integers(0, 3))
    kind = [nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d][space]
    out, into = data.draw(SIZES), data.draw(SIZES)
    kernel = [data.draw(SIZES) for _ in range(space)]
    net = kind(into, out, kernel, bias=False) if space else nn.Linear(into, out, bias=False)
    weight = torch.randn(net.weight.shape)
    last = space + 1
    orders = {
        (*range(2, last + 1), 1, 0): "IO", (0, *range(2, last + 1), 1): "O",
        (1, *range(2, last + 1), 0): "I", (1, 0, *range(2, last + 1)): "IO",
    }  # fmt: skip
    order = data.draw(st.sampled_from(sorted(orders)))
    leading = data.draw(st.booleans())
    sent = weight.permute(order)
    if sent.shape == weight.shape:
        return  # by its shape alone no one can tell
    sent = sent[None] if leading else sent
    with pytest.raises(ValueError, match=r"looks like .* another framework's layout") as found:
        received.gradient(net, {"weight": sent}, ["weight"])
    cure = re.search(r"\.permute(\([\d, ]+\))", str(found.value)).group(1)
    back = sent.permute(*map(int, re.findall(r"\d+", cure)))
    assert back.shape[leading:] == weight.shape
    if len({out, into, *kernel}) == space + 2:  # no two axes can be taken for each other
        assert torch.equal(back[0] if leading else back, weight)


def changed(name, f):
    return lambda g: {**g, name: f(g[name])}


NAN, INF = math.nan, math.inf
BAD = {
    "missing": (lambda g: {k: v for k, v in g.items() if k != "4.bias"},
                r"lacks 4.bias.*Ignore\(\('4.bias',\)"),
    "nothing": (lambda g: {}, "lacks 0.weight, 0.bias"),
    "all None": (lambda g: dict.fromkeys(g), "lacks 0.weight, 0.bias"),
    "HWIO": (changed("0.weight", lambda v: v.permute(2, 3, 1, 0)),
             r"looks like HWIO.*permute\(3, 2, 0, 1\)"),
    "OHWI": (changed("0.weight", lambda v: v.permute(0, 2, 3, 1)),
             r"looks like OHWI.*permute\(0, 3, 1, 2\)"),
    "transposed": (changed("4.weight", lambda v: v.T),
                   r"looks like IO.*permute\(1, 0\)"),
    "flattened": (changed("0.weight", lambda v: v.flatten()), "one client's"),
    "regrouped": (changed("0.weight", lambda v: v.reshape(6, 1, 4, 4)), "reshape"),
    "another size": (changed("4.bias", lambda v: torch.ones(7)), "of this network"),
    "one with a leading axis": (changed("4.bias", lambda v: v[None]), "leading axis"),
    "one without": (lambda g: {k: v if k == "4.bias" else v[None] for k, v in g.items()},
                    r"'4.bias' of shape \(5,\).*unsqueeze"),
    "unlike numbers": (lambda g: {k: torch.stack([v] * (2 + (k == "0.bias")))
                                  for k, v in g.items()},
                       "one and the same number"),
    "no clients": (lambda g: {k: v[None][:0] for k, v in g.items()}, "at least 1"),
    "nan": (changed("2.bias", lambda v: v * NAN), "not finite in '2.bias' of client 0"),
    "one inf": (changed("4.bias", lambda v: torch.tensor([0, 0, INF, 0, 0])), "not finite in"),
    "overflow of a cast": (changed("4.bias", lambda v: v.double() * 1e60),
                           "not finite in '4.bias'"),
    "overflow of a square": (lambda g: {k: v * 1e25 for k, v in g.items()}, "so large"),
    "zero": (lambda g: {k: v * 0 for k, v in g.items()}, "zero_grad"),
    "one client of zero": (lambda g: {k: torch.stack([v, v * 0]) for k, v in g.items()},
                           "of client 1 is zero"),
    "zero by underflow": (lambda g: {k: v * 1e-30 for k, v in g.items()}, "is zero"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_what_does_not_fit_is_refused_by_name(what):
    net = network()
    make, cure = BAD[what]
    with pytest.raises(ValueError, match=cure):
        received.gradient(net, make(true(net)), names(net))


def test_weights_are_no_gradient():
    net = network()
    for wrong in (dict(net.named_parameters()), net.state_dict(), list(net.parameters())):
        with pytest.raises(ValueError, match=r"the model's weights.*p.grad"):
            received.gradient(net, wrong, names(net))


@pytest.mark.parametrize("form", [torch.Tensor.half, torch.Tensor.bfloat16,
                                  lambda v: v.half().numpy()])  # fmt: skip
def test_a_step_that_rounding_hides_is_refused(form):
    """Half precision keeps a step of lr 1, and loses one of lr 1e-5."""
    net = network()
    after, g = stepped(net, 1.0)
    rounded = {k: form(v) for k, v in after.items() if k in g}
    found = received.update(net, net.state_dict(), rounded, 1.0, names(net))
    apart = sum((found[k][0] - v).square().sum() for k, v in g.items()).sqrt()
    assert apart < 0.1 * found.sq_norm().sqrt()
    rounded = {k: form(v) for k, v in stepped(net, 1e-5)[0].items() if k in g}
    with pytest.raises(ValueError, match="hardly more than their rounding"):
        received.update(net, net.state_dict(), rounded, 1e-5, names(net))


def test_what_is_held_fixed_has_no_gradient():
    net = network()
    g = true(net)
    net[0].requires_grad_(False)
    with pytest.raises(ValueError, match=r"not zero in '0.weight', which the client's model holds"):
        received.gradient(net, g, names(net))
    g |= {k: v * 0 for k, v in g.items() if k.startswith("0.")}
    assert list(received.gradient(net, g, names(net))) == names(net)


def stepped(net, lr=0.05, optimizer=torch.optim.SGD, steps=1):
    after = copy.deepcopy(net)
    update = optimizer(after.parameters(), lr=lr)
    torch.manual_seed(1)
    x, y = torch.rand(1, 2, 6, 6), torch.tensor([2])
    for _ in range(steps):
        update.zero_grad()
        F.cross_entropy(after(x), y).backward()
        update.step()
    (*g,) = torch.autograd.grad(F.cross_entropy(net(x), y), [*net.parameters()])
    return after.state_dict(), dict(zip(dict(net.named_parameters()), g, strict=True))


@pytest.mark.parametrize("lr", [1e-3, 0.05, 3])
def test_a_step_of_sgd_is_the_gradient(lr):
    """Up to the rounding of weights: half a unit in the last place, over the learning rate."""
    net = network()
    after, g = stepped(net, lr)
    for end in (after, {k: v[None] for k, v in after.items()}, [*after.values()]):
        found = received.update(net, net.state_dict(), end, lr, names(net))
        for k, v in found.items():
            torch.testing.assert_close(v[0], g[k], rtol=1e-5, atol=1e-7 / lr)


def test_several_clients_begin_where_the_model_is():
    net = network()
    (one, _), (two, _) = stepped(net, 0.1), stepped(net, 0.2)
    both = {k: torch.stack([one[k], two[k]]) for k in one}
    found = received.update(net, net.state_dict(), both, 0.1, names(net))
    torch.testing.assert_close(found["4.weight"][1], 2 * found["4.weight"][0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "lr",
    [
        0,
        -0.1,
        NAN,
        INF,
        "0.1",
        None,
        True,
        1j,
        [0.1],
        np.array([0.1, 0.1]),
        torch.zeros(2),
        10**400,
        Fraction(1, 10),
    ],
)
def test_a_learning_rate_is_a_positive_number(lr):
    net = network()
    with pytest.raises(ValueError, match=r"lr must be a number.*learning rate"):
        received.update(net, net.state_dict(), stepped(net)[0], lr, names(net))


def test_updates_begin_at_the_models_weights():
    net = network()
    after, _ = stepped(net)
    start = {k: v.clone() for k, v in net.state_dict().items()}
    for before, cure in (
        (
            {**start, "4.bias": start["4.bias"] + 1e-5},
            r"'4.bias' differs by 1e-05.*load_state_dict",
        ),
        ({**start, "4.bias": start["4.bias"] * NAN}, "'4.bias' differs by nan"),
        ({k: v.half() for k, v in start.items()}, "load_state_dict"),
        (after, "load_state_dict"),
        ({k: v for k, v in start.items() if k != "4.bias"}, "weights before lacks 4.bias"),
    ):
        with pytest.raises(ValueError, match=cure):
            received.update(net, before, after, 0.05, names(net))
    with pytest.raises(ValueError, match=r"model holds the weights after.*or swap the two"):
        received.update(net, after, start, 0.05, names(net))
    with pytest.raises(ValueError, match="difference of weights over lr of client 0 is zero"):
        received.update(net, start, start, 0.05, names(net))
    with pytest.raises(ValueError, match=r"not finite in '0.bias'"):
        received.update(net, start, {**after, "0.bias": after["0.bias"] * NAN}, 0.05, names(net))


def test_something_of_the_gradients_shapes():
    net = network()
    assert {k: v.shape for k, v in received.like(net).items()} == {
        k: v.shape
        for k, v in gl.gradient(net, torch.rand(1, 1, 2, 6, 6), torch.tensor([[1]])).items()
    }


@pytest.mark.parametrize("clients", [1, 3])
@pytest.mark.parametrize("factor", [1, -1, -0.1, -1e-4, 0])
@pytest.mark.parametrize("seed", range(3))
def test_a_change_or_a_gradient_is_no_weights_after(seed, factor, clients):
    net = network()
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.3, generator=torch.Generator().manual_seed(seed))
    wrong = {k: factor * v for k, v in true(net, clients).items()}
    with pytest.raises(ValueError, match=r"hold nearly nothing of those before.*before \+ change"):
        received.update(net, net.state_dict(), wrong, 0.1, names(net))


def test_networks_of_zeros_and_of_one_number_take_any_step():
    for net in (nn.Linear(6, 3), nn.Linear(1, 1, bias=False)):
        for p in net.parameters():
            nn.init.zeros_(p)
        after = {k: torch.randn(p.shape) for k, p in net.named_parameters()}
        received.update(net, net.state_dict(), after, 0.1, list(after))
    one = nn.Linear(1, 1, bias=False)
    received.update(one, one.state_dict(), {"weight": -one.weight}, 0.1, ["weight"])
    received.gradient(one, {"weight": 3 * one.weight}, ["weight"])


@pytest.mark.parametrize("factor", [1, 1.001, 0.5, 1e-4])
@pytest.mark.parametrize("rounding", [torch.Tensor.float, torch.Tensor.bfloat16])
def test_scaled_or_rounded_weights_are_no_gradient(factor, rounding):
    net = network()
    wrong = {k: rounding(factor * p.detach()) for k, p in net.named_parameters()}
    with pytest.raises(ValueError, match=r"the model's weights.*p.grad"):
        received.gradient(net, wrong, names(net))
    both = {k: torch.stack([v, wrong[k].float()]) for k, v in true(net).items()}
    with pytest.raises(ValueError, match=r"the model's weights"):
        received.gradient(net, both, names(net))
