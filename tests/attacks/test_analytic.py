import contextlib
import dataclasses

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import gradleak as gl
from gradleak.attacks import FirstLayer, analytic

SHAPE = (1, 8, 8)


class Reordered(nn.Module):
    """A network whose head is registered before its body."""

    def __init__(self, inputs=64, hidden=25, classes=10, then=nn.Identity(), before=nn.Identity()):
        super().__init__()
        self.head, self.body = nn.Linear(hidden, classes), nn.Linear(inputs, hidden)
        self.before, self.then = before, then

    def forward(self, x):
        return self.then(self.head(self.body(self.before(x).flatten(1)).sigmoid()))


def released(net, x, y, **client):
    return gl.Client(net, **client).release(x, y)


@settings(max_examples=25)
@given(
    shape=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    classes=st.integers(2, 30),
    seed=st.integers(0, 99),
    spread=st.sampled_from([0.1, 1.0, 30.0]),
)
def test_what_is_read_off_follows_the_order_in_which_layers_run(shape, classes, seed, spread):
    """Tables, series, images and volumes; more classes than features, and fewer."""
    torch.manual_seed(seed)
    x = torch.rand(3, *shape) if len(shape) == 3 else spread * torch.randn(3, *shape)
    y = torch.randint(classes, (3,))
    net = Reordered(x[0].numel(), 7, classes)
    view = released(net, x, y).without_labels()
    found = FirstLayer().attack(view).x
    torch.testing.assert_close(found, x, rtol=1e-3, atol=1e-3 * float(x.abs().max()))
    assert torch.equal(analytic.labels(view), y)


@settings(max_examples=40)
@given(
    counts=st.lists(st.integers(0, 3), min_size=3, max_size=30).filter(any),
    seed=st.integers(0, 99),
    loudness=st.sampled_from([0.1, 1.0, 5.0]),
)
def test_the_labels_of_a_batch_are_counted_or_refused(counts, seed, loudness):
    """Never wrong; and never refused where chances of each class add to less than one."""
    torch.manual_seed(seed)
    y = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    order = torch.randperm(len(y))
    x, net = torch.randn(1, len(y), 5), nn.Sequential(nn.Linear(5, len(counts)))
    with torch.no_grad():
        net[0].weight.mul_(loudness)
    view = released(net, x, y[order][None], batch_size=len(y))
    if net(x[0]).softmax(1).sum(0).max() < 0.99:
        assert torch.equal(analytic.labels(view), y[None])
        return
    with contextlib.suppress(ValueError):
        assert torch.equal(analytic.labels(view), y[None])


def test_labels_of_several_batches_are_each_clients_own():
    torch.manual_seed(0)
    x, y = torch.rand(3, 4, *SHAPE), torch.randint(10, (3, 4))
    view = released(gl.models.mlp(SHAPE, 10), x, y, batch_size=4).without_labels()
    found = analytic.labels(view)
    assert torch.equal(found, y.sort(1).values)
    shown = dataclasses.replace(view, y=found)  # an attack takes them in any order
    prior = gl.Sum((gl.TotalVariation(1e-5), gl.Box()))
    attack = gl.inverting_gradients(shown.client, prior, optimizer=gl.Adam(steps=2, signed=True))
    assert attack.attack(shown).x.shape == x.shape


def test_one_example_a_client_and_a_batch_of_one_say_the_same():
    torch.manual_seed(0)
    net, x, y = nn.Sequential(nn.Linear(5, 4)), 6 * torch.randn(30, 5), torch.randint(4, (30,))
    y[:10] = net(x[:10]).argmax(1)
    one, batch = released(net, x, y), released(net, x[:, None], y[:, None], batch_size=1)
    chance = net(x).softmax(1)[range(30), y]
    assert chance.min() < 0.01  # very unsure ones are among them, and very sure ones
    assert chance.max() > 0.99
    assert torch.equal(analytic.labels(one), y)
    assert torch.equal(analytic.labels(batch), y[:, None])


def scaled(gradient):
    return gl.PointMass(gradient.map(lambda v: 2.5 * v))


def clamped(gradient):
    return gl.PointMass(gradient.map(lambda v: v.clamp(-0.05, 0.05)))


@pytest.mark.parametrize(
    ("defense", "batch", "message"),
    [
        (gl.GaussianNoise(0.5), None, "draws the gradient at random"),
        (gl.GaussianNoise(1e-4), 3, "draws the gradient at random"),
        (gl.LaplaceNoise(torch.tensor([0.1, 0.2, 0.3, 0.4])), None, "draws the gradient at random"),
        (gl.RandomMask(0.5, gl.NoDefense()), None, "for certain"),
        (gl.MagnitudePruning(0.9), None, "for certain"),
        (gl.MagnitudePruning(0.5), 3, "changes the gradient"),
        (scaled, 3, "changes the gradient"),
        (clamped, 3, "changes the gradient"),
    ],
)
def test_labels_behind_a_defense_are_refused(defense, batch, message):
    torch.manual_seed(0)
    count = 4 * (batch or 1)
    x, y = torch.rand(count, *SHAPE), torch.arange(count) % 10
    if batch:
        x, y = x.unflatten(0, (4, batch)), y.unflatten(0, (4, batch))
    view = released(gl.models.mlp(SHAPE, 10), x, y, defense=defense, batch_size=batch)
    with pytest.raises(ValueError, match=rf"{message}.*dataclasses.replace\(view, y=labels\)"):
        analytic.labels(view)


@pytest.mark.parametrize("defense", [scaled, gl.Soteria("head", 0.5)])
def test_labels_of_one_example_survive_what_keeps_signs(defense):
    x, y = gl.data.batch("digits", range(6))
    assert torch.equal(analytic.labels(released(Reordered(), x, y, defense=defense)), y)


def test_noise_that_nobody_told_of_is_seen():
    x, y = gl.data.batch("digits", range(12))
    view = released(gl.models.mlp(SHAPE, 10), x, y)
    torch.manual_seed(0)
    noisy = view.g.map(lambda v: v + 0.5 * torch.randn_like(v))
    with pytest.raises(ValueError, match="does not tell the labels of client 0, 1"):
        analytic.labels(dataclasses.replace(view, g=noisy))


def doubled(output, y):
    return 2 * F.cross_entropy(output, y)


def own(output, y):
    return -output.log_softmax(1).gather(1, y[:, None]).mean()


def test_a_loss_is_known_by_what_it_does():
    x, y = gl.data.batch("digits", range(4))
    assert torch.equal(analytic.labels(released(Reordered(), x, y, loss=own)), y)
    within = Reordered(then=nn.LogSoftmax(1))
    assert torch.equal(analytic.labels(released(within, x, y, loss=F.nll_loss)), y)
    smooth, weighted = (
        nn.CrossEntropyLoss(label_smoothing=0.3),
        nn.CrossEntropyLoss(torch.arange(1.0, 11)),
    )
    for loss, batch in ((smooth, None), (doubled, None), (weighted, 4), (smooth, 4)):
        rows = (x, y) if batch is None else (x[None], y[None])
        view = released(Reordered(), *rows, loss=loss, batch_size=batch)
        with pytest.raises(ValueError, match="no cross-entropy of what 'head' puts out"):
            analytic.labels(view)
    for then in (nn.Softmax(1), nn.ReLU(), nn.Linear(10, 10, bias=False)):
        with pytest.raises(ValueError, match=r"no cross-entropy|has no bias"):
            analytic.labels(released(Reordered(then=then), x, y))
    view = released(Reordered(), x, torch.rand(4, 10), loss=F.mse_loss)
    with pytest.raises(ValueError, match=r"takes no class labels|no cross-entropy"):
        analytic.labels(view)


@pytest.mark.parametrize(
    "before", [nn.Tanh(), nn.AvgPool2d(2), nn.Upsample(scale_factor=2), nn.ChannelShuffle(1)]
)
def test_what_enters_the_first_layer_has_to_be_the_image(before):
    x, y = gl.data.batch("digits", range(2))
    size = before(x)[0].numel()
    view = released(Reordered(size, before=before), x, y)
    if isinstance(before, nn.ChannelShuffle):  # of one channel: leaves the image as it is
        torch.testing.assert_close(FirstLayer().attack(view).x, x, rtol=0, atol=1e-4)
        return
    with pytest.raises(ValueError, match=r"what enters 'body' is not the image.*layer_input"):
        FirstLayer().attack(view)


def test_only_the_normalisation_before_the_first_layer_is_undone():
    x, y = gl.data.batch("digits", range(2))
    normalize = gl.models.Normalize((0.3,), (0.2,))
    before = Reordered(before=normalize)
    torch.testing.assert_close(FirstLayer().attack(released(before, x, y)).x, x, rtol=0, atol=1e-4)
    idle = Reordered()
    idle.unused = normalize
    torch.testing.assert_close(FirstLayer().attack(released(idle, x, y)).x, x, rtol=0, atol=1e-4)


def test_a_network_that_is_one_layer_is_read_off():
    x, y = torch.randn(3, 14) * 2, torch.tensor([0, 1, 2])
    view = released(nn.Linear(14, 4), x, y)
    torch.testing.assert_close(FirstLayer().attack(view).x, x, rtol=0, atol=1e-4)
    assert torch.equal(analytic.labels(view), y)
    with pytest.raises(ValueError, match="'other' is no linear layer"):
        analytic.layer_input(view.g, "other")
