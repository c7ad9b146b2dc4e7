import contextlib
import dataclasses

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from stored import load_or_skip
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
    images = load_or_skip("mnist").take(range(20, 32))
    x, y = images.x, images.y
    view = gl.Client(build(784), gl.MagnitudePruning(rate)).release(x, y)
    shown = gl.ssim(FirstLayer().attack(view).x, x)
    assert (shown > 0.5).double().mean() >= (1 if build is network else 0.75)
    if rate < 0.9:
        assert (shown > 0.99).all()


@pytest.mark.parametrize("rate", [0.3, 0.5, 0.9])
def test_pixels_that_a_mask_hid_are_mid_grey(rate):
    images = load_or_skip("mnist").take(range(20, 26))
    x, y = images.x, images.y
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
