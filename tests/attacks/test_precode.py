import math
from dataclasses import replace

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.distributions import Independent, Normal, kl_divergence

import gradleak as gl
from gradleak.attacks import FirstLayer, analytic, latents
from gradleak.attacks.latents import FreshLatents, Joint, Known, ReadOff, StandardNormal
from gradleak.defenses.precode import (
    Bottleneck,
    Latent,
    Precode,
    VariationalLoss,
    join,
    kl,
    precode_ffn,
    precode_lenet,
    slipped_kl,
    split,
)
from gradleak.priors import Moment

SHAPE = (1, 8, 8)


def client(build=precode_ffn, size=16, **options):
    model = build(SHAPE, 10, size=size, **options)
    with torch.no_grad():  # the published start is small for images of 8x8 pixels
        for parameter in model.parameters():
            parameter.mul_(2)
    return gl.Client(model, transform=Latent(size, SHAPE))


def test_the_published_sizes():
    model = precode_ffn((3, 32, 32), 10)
    assert sum(p.numel() for p in model.parameters()) == 2_931_850
    values = torch.cat([p.flatten() for p in model.parameters()])
    assert values.abs().max() <= 0.05
    assert values.std().item() == pytest.approx(0.1 / math.sqrt(12), rel=0.01)
    convolutional = precode_lenet((3, 32, 32), 10)
    assert convolutional.encoder.dense.in_features == 768
    assert convolutional(torch.rand(2, 3 * 32 * 32 + 256)).shape == (2, 10)


def test_kl_is_that_of_torch_and_the_slip_is_not():
    mean, log_variance = torch.randn(5, 7), torch.randn(5, 7)
    posterior = Independent(Normal(mean, (log_variance / 2).exp()), 1)
    expected = kl_divergence(posterior, Independent(Normal(torch.zeros(7), torch.ones(7)), 1))
    torch.testing.assert_close(kl(mean, log_variance), expected)
    assert (kl(torch.zeros(1, 7), torch.zeros(1, 7)) == 0).all()
    torch.testing.assert_close(
        slipped_kl(mean, log_variance), kl(log_variance, log_variance)
    )  # whatever the mean


def test_the_loss_adds_kl_in_train_mode_only():
    model = precode_ffn(SHAPE, 10, size=4)
    joined, y = Latent(4, SHAPE)(torch.rand(3, *SHAPE), [(0, k) for k in range(3)]), torch.arange(3)
    loss, plain = VariationalLoss(0.5), nn.functional.cross_entropy
    assert loss(model(joined), y) == plain(model(joined), y)
    logits, mean, log_variance = model.train()(joined)
    expected = plain(logits, y) + 0.5 * kl(mean, log_variance).mean()
    torch.testing.assert_close(loss(model(joined), y), expected)


def test_training_under_a_bottleneck_learns():
    train = gl.data.load("digits", "train")
    hiding = replace(client(), loss=VariationalLoss(0.003))
    (checkpoint,) = gl.train.checkpoints(
        hiding, train, [60], optimizer=torch.optim.Adam, lr=0.003, seed=1
    )
    joined = hiding.transform(train.x[:300], [(5, k) for k in range(300)])
    right = (checkpoint.model(joined).argmax(1) == train.y[:300]).float().mean()
    assert right > 0.5


@settings(max_examples=15)
@given(
    activation=st.sampled_from([nn.ReLU, nn.Tanh, nn.Sigmoid]),
    size=st.integers(8, 20),
    seed=st.integers(0, 99),
)
def test_the_image_and_the_latent_are_read_off_exactly(activation, size, seed):
    """Whatever the bottleneck draws: the first layer tells the image, the later ones the latent."""
    x, y = gl.data.batch("digits", range(4))
    hiding = client(size=size, activation=activation, seed=seed)
    joined = hiding.transformed(x, seed=seed)
    assume(bool((hiding.gradient(joined, y).sq_norm() > 1e-6).all()))  # ReLUs may all be closed
    view = hiding.release(x, y, seed=seed)
    model = hiding.model
    found = FirstLayer().attack(view).x
    torch.testing.assert_close(found, x, rtol=0, atol=1e-4)
    _, z = split(joined, SHAPE)
    torch.testing.assert_close(latents.latent(view.g, model), z, rtol=1e-3, atol=2e-3)
    assert torch.equal(analytic.labels(view), y)


def test_a_convolution_hides_the_image_but_not_the_latent():
    x, y = gl.data.batch("digits", range(3))
    hiding = client(precode_lenet)
    view = hiding.release(x, y)
    with pytest.raises(ValueError, match=r"'encoder.conv1' is no linear layer.*search for the"):
        FirstLayer().attack(view)
    _, z = split(hiding.transformed(x), SHAPE)
    torch.testing.assert_close(latents.latent(view.g, hiding.model), z, rtol=1e-3, atol=1e-3)


def test_several_examples_are_told_by_their_residual():
    x, y = gl.data.batch("digits", range(4))
    model = gl.models.mlp(SHAPE, 10)
    view = gl.Client(model, batch_size=2).release(x.unflatten(0, (2, 2)), y.unflatten(0, (2, 2)))
    assert (analytic.layer_input(view.g, "dense1").residual > 0.1).all()
    with pytest.raises(ValueError, match="mean over 2 examples"):
        FirstLayer().attack(view)
    noisy = gl.Client(model, gl.GaussianNoise(0.1)).release(x, y)
    with pytest.raises(ValueError, match="rows of 'dense1' disagree"):
        FirstLayer().attack(noisy)
    anyway = FirstLayer(tolerance=math.inf).attack(noisy)
    a = analytic.layer_input(noisy.g, "dense1").a
    torch.testing.assert_close(anyway.x, model.normalize.inverse(a.view_as(x)))
    pooled = nn.Sequential(nn.AvgPool2d(2), nn.Flatten(), nn.Linear(16, 10))
    with pytest.raises(ValueError, match="'2' is not the image: it sees 16 numbers made of its 64"):
        FirstLayer().attack(gl.Client(pooled).release(x, y))


def test_dead_layers_and_missing_biases_are_told():
    x, y = gl.data.batch("digits", range(2))
    model = gl.models.mlp(SHAPE, 10)
    with torch.no_grad():  # bright images would wake a unit, these do not
        model.dense1.weight.fill_(1.0)
        model.dense1.bias.fill_(-model.normalize(x).flatten(1).sum(1).max().item() - 1e-3)
    dead = gl.Client(model).release(x, y)
    with pytest.raises(ValueError, match="no unit of 'dense1' is active for client 0, 1"):
        analytic.layer_input(dead.g, "dense1")
    assert (FirstLayer().attack(dead).x == 0.5).all()
    bare = nn.Sequential(nn.Flatten(), nn.Linear(64, 10, bias=False))
    view = gl.Client(bare).release(x, y)
    with pytest.raises(ValueError, match=r"no linear layer with a bias.*those are none"):
        FirstLayer().attack(view)
    with pytest.raises(ValueError, match="no bias to read the label"):
        analytic.labels(view)


@pytest.mark.parametrize("make", [lambda: Bottleneck(5, 0), lambda: VariationalLoss(-0.1)])
def test_bad_bottlenecks_and_weights_are_refused(make):
    with pytest.raises(ValueError, match=r"(size|weight) must be a"):
        make()


PRIOR = gl.Sum((gl.TotalVariation(0.01), gl.Box()))


def test_joint_priors_are_sums():
    joined = Latent(3, SHAPE)(torch.rand(4, *SHAPE), [(k,) for k in range(4)])
    x, z = split(joined, SHAPE)
    assert torch.equal(join(x, z), joined)
    free = Joint(PRIOR, StandardNormal(), SHAPE)
    expected = PRIOR.log_prob(x) + Normal(0.0, 1.0).log_prob(z).sum(1)
    found = free.log_prob(joined)
    torch.testing.assert_close(found - found[0], expected - expected[0])
    fixed = Joint(PRIOR, Known(z + 1), SHAPE).project(joined + 5)
    torch.testing.assert_close(split(fixed, SHAPE)[1], z + 1)
    assert (split(fixed, SHAPE)[0] == 1).all()
    assert (split(Joint(PRIOR, Known(), SHAPE).project(joined), SHAPE)[1] == 0).all()


def test_fresh_latents_average_over_the_latent():
    """In the limit of many samples, the mean of a quadratic over N(0, I) is its closed form."""
    smoothing = FreshLatents(samples=4000, size=3)
    joined = torch.rand(2, 8, dtype=torch.double)

    def f(v, _):
        return (v[:, 5:] * torch.tensor([1.0, 2.0, 3.0])).square().sum(1) + v[:, :5].sum(1)

    mean = smoothing.around(f, [(0, 0), (0, 1)])(joined, Moment(1, 2))
    expected = 14 + joined[:, :5].sum(1)
    torch.testing.assert_close(mean, expected, rtol=0.06, atol=0)
    again = smoothing.around(f, [(0, 1)])(joined[1:], Moment(1, 2))
    torch.testing.assert_close(again, mean[1:])


@pytest.mark.slow
def test_each_belief_is_another_attack_and_knowing_more_helps(tmp_path):
    """On the convolutional variant: the latent read off beats believing in none."""
    few = gl.data.load("digits").take(range(4))
    hiding = client(precode_lenet)
    cosine, climb = gl.Direction(1e3), gl.Adam(steps=60, lr=0.1, decay=0.95, signed=True)
    trials = {}
    for name, latent in (("plain", Known()), ("joint", StandardNormal()), ("read off", ReadOff())):
        held = gl.Adversary(replace(hiding, defense=cosine), Joint(PRIOR, latent, SHAPE), climb)
        trials[name] = gl.Trial(hiding, held, few, {"arm": name}, keep=few.index)
    fresh = replace(trials["plain"].attack, ball=FreshLatents(2, 16))
    trials["marginal"] = gl.Trial(hiding, fresh, few, {"arm": "marginal"})
    records = gl.experiment.Records(tmp_path, "r")
    table = gl.experiment.run(list(trials.values()), records)
    means = table.groupby("arm").psnr.mean()
    assert means.nunique() == 4
    assert means["read off"] > means["plain"] + 1
    assert (table.psnr == table.psnr_x).all()
    shown = records.images(table[table.arm == "joint"].id)
    assert shown.shape == few.x.shape


def test_a_bottleneck_fits_any_network():
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 9), nn.Tanh())
    model = Precode(encoder, Bottleneck(9, 5), nn.Sequential(nn.Linear(5, 10)), SHAPE).eval()
    x, y = gl.data.batch("digits", range(2))
    view = gl.Client(model, transform=Latent(5, SHAPE)).release(x, y)
    assert gl.gradients.path(model, torch.rand(2, 1, 69), y[:, None]) == "captured"
    torch.testing.assert_close(FirstLayer().attack(view).x, x, rtol=0, atol=1e-4)


class Words(nn.Module):
    """Tokens in, classes out; `tied` predicts the next token with the table itself."""

    def __init__(self, tied=False, **options):
        super().__init__()
        self.table, self.tied = nn.Embedding(12, 4, **options), tied
        self.last = nn.Linear(4, 3)

    def forward(self, x):
        h = torch.tanh(self.table(x)).mean(1)
        return h @ self.table.weight.T if self.tied else self.last(h)


@pytest.mark.parametrize("options", [{}, {"padding_idx": 0}, {"scale_grad_by_freq": True}])
def test_tokens_are_the_rows_of_an_embeddings_gradient(options):
    x = torch.tensor([[[3, 5, 3, 0]], [[11, 1, 0, 2]]])
    g = gl.gradient(Words(**options), x, torch.tensor([[0], [1]]))
    padding = {0} if "padding_idx" in options else set()
    found = [set(row.tolist()) for row in gl.attacks.tokens(g, "table")]
    assert found == [set(text.flatten().tolist()) - padding for text in x]


def test_tokens_of_a_tied_or_a_noisy_table_are_refused():
    x, y = torch.tensor([[[3, 5]]]), torch.tensor([[0]])
    with pytest.raises(ValueError, match=r"every row of 'table'.*tied.*noisy"):
        gl.attacks.tokens(gl.gradient(Words(tied=True), x, y), "table")
    with pytest.raises(ValueError, match="layers with a matrix are table, last"):
        gl.attacks.tokens(gl.gradient(Words(), x, y), "embedding")
