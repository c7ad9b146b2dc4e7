"""Situations of people who attack what is their own, retold from public threads, small.

Each ended in a wrong answer or somebody else's traceback once. Others of each kind are tested
beside the code that takes or refuses them.
"""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import prune

import gradleak as gl
from gradleak.experiment import Records, run

X, Y = gl.data.batch("digits", [3])
FEW = gl.data.load("digits").take(range(2))
CLIMB = gl.Adam(steps=300, signed=True)
SHORT = gl.Adam(steps=2, signed=True)


def found(model, view_or_none=None, *, x=X, y=Y, prior=None, optimizer=CLIMB, **client):
    """PSNR of cosine matching against a client of this network."""
    client = gl.Client(model, **client)
    view = view_or_none or client.release(x, y)
    prior = {} if prior is None else {"prior": prior}
    return float(gl.psnr(gl.inverting_gradients(client, optimizer=optimizer, **prior)
                         .attack(view).x, x))  # fmt: skip


def small(*layers):
    """A network of one's own that sees an image of 8x8 pixels flat."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), *(layers or [nn.Linear(64, 10)]))


# D1: a result's name holds what was computed


def test_rows_of_another_network_loss_or_weights_are_none_of_ours(tmp_path):
    other = gl.models.cnn((1, 8, 8), 10)
    with torch.no_grad():
        other.dense1.bias[0] += 1e-3
    smooth = nn.CrossEntropyLoss(label_smoothing=0.1)
    clients = [gl.Client(gl.models.cnn((1, 8, 8), 10)), gl.Client(gl.models.lenet((1, 8, 8), 10)),
               gl.Client(other), gl.Client(gl.models.cnn((1, 8, 8), 10), loss=smooth)]  # fmt: skip
    records, ids = Records(tmp_path, "r"), []
    for client in clients:
        attack = gl.inverting_gradients(client, optimizer=SHORT)
        ids += run([gl.Trial(client, attack, FEW, {"model": "mine"})], records).id.tolist()
    assert len(set(ids)) == 8
    assert len(records.read()) == 8


# D2: gradients that were not made here


def test_a_gradient_from_elsewhere_is_attacked_and_what_is_wrong_with_it_refused():
    model = gl.models.cnn((1, 8, 8), 10)
    F.cross_entropy(model(X), Y).backward()
    g = {n: p.grad.clone() for n, p in model.named_parameters()}
    client = gl.Client(model)

    def at(g):
        return client.view(g, Y, shape=(1, 8, 8))

    assert found(model, at({"module." + n: t for n, t in g.items()})) > 28
    with pytest.raises(ValueError, match=r"conv2.weight.*another framework's layout.*permute"):
        at({**g, "conv2.weight": g["conv2.weight"].permute(2, 3, 1, 0)})
    with pytest.raises(ValueError, match=r"not finite in 'dense1.bias'"):
        at({**g, "dense1.bias": g["dense1.bias"] * math.nan})
    with pytest.raises(ValueError, match=r"lacks conv1.weight.*gradleak.Ignore"):
        at({n: t for n, t in g.items() if n != "conv1.weight"})
    with pytest.raises(ValueError, match="is zero, so it tells nothing"):
        at({n: 0 * t for n, t in g.items()})
    with pytest.raises(ValueError, match="several local steps is no gradient"):
        client.view_of_update(model.state_dict(), g, 0.1, Y, shape=(1, 8, 8), steps=5)
    with pytest.raises(ValueError, match="network is not the one of the view's client"):
        gl.dlg(gl.Client(gl.models.cnn((1, 8, 8), 10, seed=1))).attack(at(g))


def test_a_view_that_no_image_explains_is_flagged():
    model = gl.models.mlp((1, 8, 8), 10, (32,))
    client = gl.Client(model)
    other = gl.Client(gl.models.mlp((1, 8, 8), 10, (32,), seed=1)).release(X, Y)
    attack = gl.attacks.FirstLayer()
    for g, explained in ((client.release(X, Y).g, True), (other.g, False)):
        view = client.view(dict(g), Y, shape=(1, 8, 8))
        fit = gl.fit(view, attack.attack(view))
        assert bool(fit.explained.all()) is explained


# D3 and D8: metrics and priors of data that are no images


def test_standardised_tables_are_compared_with_what_they_are():
    torch.manual_seed(0)
    z = 2 * torch.randn(3, 14)
    view = gl.Client(nn.Linear(14, 4)).release(z, torch.tensor([0, 1, 2]))
    x = gl.attacks.FirstLayer().attack(view).x
    assert gl.mse(x, z).max() < 1e-10
    assert gl.psnr(x, z, peak=1).min() > 100


def test_total_variation_of_series_runs_along_time():
    net = nn.Sequential(nn.Flatten(), nn.Linear(2 * 9, 4))
    x = torch.rand(1, 2, 2, 9)
    view = gl.Client(net, batch_size=2).release(x, torch.tensor([[0, 1]]))
    along = gl.TotalVariation(0.5).given(view).log_prob(x)
    assert along.item() == pytest.approx(-0.5 * x.diff(dim=-1).abs().sum().item(), rel=1e-5)


# D4: closed forms follow the order in which layers run


class HeadFirst(nn.Module):
    """Registers its head before its body."""

    def __init__(self):
        super().__init__()
        self.head, self.body = nn.Linear(25, 10), nn.Linear(64, 25)

    def forward(self, x):
        return self.head(self.body(x.flatten(1)).tanh())


def test_closed_forms_follow_the_order_of_running():
    torch.manual_seed(0)
    view = gl.Client(HeadFirst()).release(FEW.x, FEW.y)
    assert torch.equal(gl.attacks.labels(view), FEW.y)
    torch.testing.assert_close(gl.attacks.FirstLayer().attack(view).x, FEW.x)


def test_labels_of_a_batch_are_counted_and_of_a_noisy_client_refused():
    x, y = gl.data.batch("digits", range(12))
    net = small()
    with pytest.raises(ValueError, match="for certain"):  # a digit twice, and not surely so
        gl.attacks.labels(gl.Client(net, batch_size=12).release(x[None], y[None]))
    view = gl.Client(net, batch_size=4).release(x[None, :4], y[None, :4])
    assert torch.equal(gl.attacks.labels(view), y[None, :4].sort().values)
    with pytest.raises(ValueError, match="draws the gradient at random"):
        gl.attacks.labels(gl.Client(net, gl.GaussianNoise(0.5)).release(x, y))


# D5, D6, D9: any network that PyTorch differentiates


class Both(nn.Module):
    """Returns logits and features."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(64, 32), nn.Linear(32, 10)

    def forward(self, x):
        features = self.body(x.flatten(1)).sigmoid()
        return self.head(features), features


class Branch(nn.Module):
    """Looks at its input's numbers to decide what to do."""

    def __init__(self):
        super().__init__()
        self.dense = nn.Linear(64, 10)

    def forward(self, x):
        assert x.ndim == 4
        return self.dense(x.flatten(1)) if x.mean() > 0 else 0 * self.dense(x.flatten(1))


class Series(nn.Module):
    """Reads an image's rows one after another."""

    def __init__(self):
        super().__init__()
        self.gru, self.head = nn.GRU(8, 16, batch_first=True), nn.Linear(16, 10)

    def forward(self, x):
        return self.head(self.gru(x.squeeze(1))[0][:, -1])


class Attention(nn.Module):
    """A row of the image is a token."""

    def __init__(self):
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        self.head = nn.Linear(64, 10)

    def forward(self, x):
        return self.head(self.layer(x.squeeze(1)).flatten(1))


def first_of_both(output, y):
    return F.cross_entropy(output[0], y)


def one_hot(output, y):
    return -(F.one_hot(y, 10) * output.log_softmax(-1)).sum(-1).mean()


def pruned():
    model = small()
    prune.l1_unstructured(model[1], "weight", 0.3)
    return model


@pytest.mark.filterwarnings("ignore::gradleak.gradients.LoopWarning")
@pytest.mark.parametrize(
    ("make", "loss", "least"),
    [
        (pruned, F.cross_entropy, 25),
        (Both, first_of_both, 25),
        (small, one_hot, 25),
        (Branch, F.cross_entropy, 25),
        (Series, F.cross_entropy, 12),
        (lambda: Attention().eval(), F.cross_entropy, 12),
    ],
)
def test_what_autograd_differentiates_is_attacked(make, loss, least):
    torch.manual_seed(0)
    model, before = make(), X.clone()
    view = gl.Client(model, loss=loss).release(X, Y)
    expected = torch.autograd.grad(
        loss(model(X), Y), [p for p in model.parameters() if p.requires_grad]
    )
    for value, true in zip(view.g.values(), expected, strict=True):
        torch.testing.assert_close(value[0], true, rtol=1e-4, atol=1e-6)
    assert found(model, view, loss=loss) > least
    assert torch.equal(X, before)


# D7, D10, D11: what is hidden is found


class Logarithm(nn.Module):
    """Has no slope at zero."""

    def __init__(self):
        super().__init__()
        self.dense = nn.Linear(64, 10)

    def forward(self, x):
        return self.dense(x.log().flatten(1))


def test_a_slope_that_is_not_finite_is_told():
    torch.manual_seed(0)
    x = X.clamp(0.05, 0.95)
    client = gl.Client(Logarithm())
    attack = gl.inverting_gradients(client, gl.Box(), optimizer=gl.Adam(steps=60, signed=True))
    with pytest.warns(gl.attacks.SlopeWarning, match=r"1 of 1.*step"):
        result = attack.attack(client.release(x, Y))
    assert result.stopped.item() < 60


class Dropped(nn.Module):
    """Random in its forward, where no module shows it."""

    def __init__(self):
        super().__init__()
        self.dense = nn.Linear(64, 10)

    def forward(self, x):
        return self.dense(F.dropout(x.flatten(1)))


def test_a_random_forward_is_refused_and_train_mode_found_late():
    with pytest.raises(ValueError, match="random"):
        gl.Client(Dropped()).release(X, Y)
    model = small(nn.Linear(64, 32), nn.Dropout(), nn.Linear(32, 10)).eval()
    client = gl.Client(model)
    model.train()
    with pytest.raises(ValueError, match=r"train mode.*model.eval\(\)"):
        client.release(X, Y)


@pytest.mark.parametrize("belief", [gl.GaussianNoise(1e-3), gl.LaplaceNoise(1e-3)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_scored_in_float32(dtype, belief):
    model = gl.models.mlp((1, 8, 8), 10, (32,)).to(dtype)
    client = gl.Client(model)
    believed = gl.Client(model, belief)
    result = gl.bayes(believed, gl.Box(), optimizer=CLIMB).attack(client.release(X, Y))
    assert result.log_posterior.isfinite().all()
    assert gl.psnr(result.x, X).item() > 15


# D12: batches


def test_records_of_batches_have_a_row_an_image(tmp_path):
    client = gl.Client(small(), batch_size=2)
    trial = gl.Trial(client, gl.inverting_gradients(client, optimizer=SHORT), FEW, {"who": "me"})
    assert len(run([trial], Records(tmp_path, "r"))) == 2
    assert "2 clients of one example" in repr(gl.Client(small()).release(FEW.x, FEW.y))
    with pytest.raises(ValueError, match="match and flatten first"):
        gl.psnr(torch.rand(1, 2, 1, 8, 8), FEW.x[None])


# D13: pruning


def test_a_pruned_first_layer_is_read_off():
    client = gl.Client(gl.models.mlp((1, 8, 8), 10, (64,)), gl.MagnitudePruning(0.9))
    x = gl.attacks.FirstLayer().attack(client.release(FEW.x, FEW.y)).x
    assert gl.ssim(x, FEW.x).min() > 0.5


def test_shares_have_wilsons_interval():
    share = gl.metrics.share([False] * 12)
    assert (share.mean, share.low) == (0, 0)
    assert share.high == pytest.approx(0.2425, abs=1e-3)


# D14: small


@pytest.mark.parametrize(
    ("x", "y", "cure"),
    [
        (torch.tensor([[1, 2, 3]]), Y, r"attack their embeddings"),
        (X, 3, "Of one example"),
        (X[:0], Y[:0], "at least one client"),
    ],
)
def test_inputs_that_are_none_are_refused(x, y, cure):
    with pytest.raises(ValueError, match=cure):
        gl.Client(small()).release(x, y)


def test_arrays_are_taken_and_a_batch_of_nobody_refused():
    view = gl.Client(small()).release(X.numpy(), Y.numpy())
    torch.testing.assert_close(view.g["1.bias"], gl.Client(small()).release(X, Y).g["1.bias"])
    with pytest.raises(ValueError, match="batch_size must be a whole number, at least 1"):
        gl.Client(small(), batch_size=0)


def test_tables_run_and_the_default_prior_names_what_to_give():
    net = nn.Sequential(nn.Linear(14, 4))
    assert math.isfinite(found(net, x=torch.rand(1, 14), y=torch.tensor([1]), prior=gl.Flat()))
    client = gl.Client(net)
    attack = gl.inverting_gradients(client, optimizer=SHORT)
    view = client.release(torch.rand(1, 14), torch.tensor([1]))
    with pytest.raises(ValueError, match=r"default prior.*prior=gl.Flat\(\)"):
        attack.attack(view)


class Scalar(gl.Prior):
    """Couples attacks: one number for all."""

    def log_prob(self, x):
        return -x.square().sum()


def test_own_parts_that_are_none_are_refused_with_the_cure():
    client = gl.Client(small(), lambda gradient: gradient)
    with pytest.raises(ValueError, match="PointMass"):
        client.release(X, Y)
    with pytest.raises(ValueError, match="one number for each of N attacks"):
        found(small(), prior=Scalar())
    with pytest.raises(ValueError, match=r'reduction="mean"'):
        gl.Client(small(), loss=nn.CrossEntropyLoss(reduction="none")).release(X, Y)


def test_the_network_is_left_as_it_was():
    model = small()
    before = copy.deepcopy(vars(model)), [p.clone() for p in model.parameters()]
    found(model, optimizer=SHORT)
    assert vars(model).keys() == before[0].keys()
    assert all(map(torch.equal, model.parameters(), before[1]))
