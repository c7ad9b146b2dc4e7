from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

import gradleak as gl

ACTIVATIONS = [nn.ReLU(), nn.Tanh(), nn.Sigmoid()]


def network(activation=ACTIVATIONS[0], features=17, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.Tanh(), nn.Flatten(),
        nn.Linear(48, features), activation, nn.Linear(features, 6), nn.ReLU(), nn.Linear(6, 4),
    ).double()  # fmt: skip


def inputs(n, seed=0):
    rng = torch.Generator().manual_seed(seed)
    x = torch.rand(n, 1, 6, 6, generator=rng, dtype=torch.double)
    return x, torch.randint(4, (n,), generator=rng)


def loop_scores(model, x, stabiliser):
    """The oracle: one backward pass for each feature of each example."""
    rows = []
    for one in x:
        one = one[None].clone().requires_grad_()
        r = model[:5](one)[0]
        slopes = [torch.autograd.grad(f, one, retain_graph=True)[0].norm() for f in r]
        rows.append(torch.stack(slopes) / (r + stabiliser).abs())
    return torch.stack(rows).detach()


@settings(max_examples=15)
@given(
    activation=st.sampled_from(ACTIVATIONS),
    features=st.integers(2, 130),
    examples=st.integers(1, 12),
    rate=st.floats(0, 0.99).map(lambda r: round(r, 4)),
    stabiliser=st.sampled_from([0.1, 1.0]),
    seed=st.integers(0, 100),
)
def test_soteria_hides_what_its_definition_says(
    activation, features, examples, rate, stabiliser, seed
):
    model, (x, _) = network(activation, features, seed), inputs(examples, seed)
    soteria = gl.Soteria("5", rate, stabiliser)
    score = soteria.score(model, x)
    torch.testing.assert_close(score, loop_scores(model, x, stabiliser))
    assume((score > 0).any(1).all())  # a dead representation is refused
    for own, hidden in zip(score.numpy(), soteria.hidden(model, x).numpy(), strict=True):
        below = own < np.quantile(own, rate) * (1 - 1e-12)
        assert hidden[below].all(), "the published rule hides what is below the percentile"
        assert hidden.sum() == pytest.approx(rate * (features - 1), abs=1), "the share is kept"
        assert own[hidden].max(initial=0) <= own[~hidden].min()


@settings(max_examples=10)
@given(rate=st.floats(0, 0.99), examples=st.integers(1, 4))
def test_soteria_sends_everything_but_the_hidden_columns(rate, examples):
    model, (x, y) = network(), inputs(examples)
    soteria = gl.Soteria("5", rate)
    sent, true = gl.Client(model, soteria).release(x, y).g, gl.Client(model).release(x, y).g
    hidden = soteria.hidden(model, x)
    for name in true:
        kept = (~hidden).double().unsqueeze(1) if name == "5.weight" else 1.0
        torch.testing.assert_close(sent[name], true[name] * kept)


@pytest.mark.parametrize("name", ["0", "dense2", "5.weight"])
def test_soteria_names_the_linear_layers(name):
    client = gl.Client(network(), gl.Soteria(name, 0.5))
    with pytest.raises(ValueError, match=rf"'{name}' is no linear layer.*those are 3, 5, 7"):
        client.release(*inputs(1))


@pytest.mark.parametrize("rate", [-0.1, 1.0, 80, float("nan")])
def test_rates_are_shares(rate):
    for make in (lambda: gl.Soteria("5", rate), lambda: gl.MagnitudePruning(rate)):
        with pytest.raises(ValueError, match=r"in \[0, 1\)"):
            make()


def test_a_dead_representation_is_told():
    model = network()
    nn.init.constant_(model[3].bias, -100)
    with pytest.raises(ValueError, match="changes with example 0, 1: the representation is dead"):
        gl.Soteria("5", 0.5).hidden(model, inputs(2)[0])


def test_soteria_is_made_for_one_example():
    x, y = inputs(4)
    client = gl.Client(network(), gl.Soteria("5", 0.5), batch_size=2)
    with pytest.raises(ValueError, match="made for one example, not for a mean over 2"):
        client.release(x.unflatten(0, (2, 2)), y.unflatten(0, (2, 2)))


@settings(max_examples=20)
@given(rate=st.integers(0, 99).map(lambda r: r / 100), seed=st.integers(0, 100))
def test_pruning_hides_what_is_below_the_percentile(rate, seed):
    model, (x, y) = network(seed=seed), inputs(2, seed)
    sent = gl.Client(model, gl.MagnitudePruning(rate)).release(x, y).g
    true = gl.Client(model).release(x, y).g
    for name in true:
        for own, left in zip(true[name].numpy(), sent[name].numpy(), strict=True):
            below = np.abs(own) < np.quantile(np.abs(own), rate)
            np.testing.assert_array_equal(left, np.where(below, 0, own))


DENSITIES = {
    "gaussian": (gl.GaussianNoise(0.3), scipy.stats.norm(scale=0.3).logpdf),
    "laplace": (gl.LaplaceNoise(0.3), scipy.stats.laplace(scale=0.3).logpdf),
}


@pytest.mark.parametrize("density", DENSITIES)
@pytest.mark.parametrize("shared", [1, 3])
def test_beliefs_about_the_rest_are_what_they_say(density, shared):
    """Several attacks on each release, against sums of scipy's densities over what is left."""
    then, logpdf = DENSITIES[density]
    model, (x, y) = network(), inputs(2)
    client = gl.Client(model, gl.Soteria("5", 0.6))
    view = client.release(x, y)
    others, _ = inputs(2 * shared, seed=5)
    others.requires_grad_()
    labels = y.repeat_interleave(shared)
    h = client.gradient(others, labels)
    beliefs = {
        gl.Ignore("5", then): lambda name, g: not name.startswith("5."),
        gl.Ignore(("5.weight", "0"), then): lambda name, g: name not in
            ("5.weight", "0.weight", "0.bias"),
        gl.Survivors("5.weight", then): lambda name, g: g != 0 if name == "5.weight" else True,
        gl.Survivors(("5", "0.weight", "7"), then): lambda name, g: (
            True if name[0] == "3" or name == "0.bias" else g != 0),
    }  # fmt: skip
    for belief, kept in beliefs.items():
        found = replace(client, defense=belief).log_prob(view.g, others, labels)
        for n in range(2 * shared):
            total = 0.0
            for name in h:
                g, own = view.g[name][n // shared].numpy(), h[name][n].detach().numpy()
                keep = np.broadcast_to(kept(name, g), g.shape)
                if isinstance(belief, gl.Ignore):
                    total += logpdf((g - own)[keep]).sum()
                else:
                    total += logpdf(g - np.where(keep, own, 0)).sum()
            assert found[n].item() == pytest.approx(total, rel=1e-9)
        (slope,) = torch.autograd.grad(found.sum(), others, retain_graph=True)
        dense = client.gradient(others, labels)
        dense = gl.Gradient({k: dense[k] for k in dense})  # no factors
        again = belief(dense).log_prob(view.g)
        torch.testing.assert_close(slope, torch.autograd.grad(again.sum(), others)[0])


@pytest.mark.parametrize("belief", [gl.Ignore, gl.Survivors])
def test_directions_of_the_rest(belief):
    """The cosine of what is left, by hand."""
    model, (x, y) = network(), inputs(1)
    client = gl.Client(model, gl.Soteria("5", 0.6))
    g = client.release(x, y).g
    other, _ = inputs(1, seed=3)
    h = client.gradient(other, y)
    a, b = ([v.flatten() for k, v in m.items() if k != "5.weight"] for m in (g, h))
    if belief is gl.Survivors:
        a.append(g["5.weight"].flatten())
        b.append((h["5.weight"] * (g["5.weight"] != 0)).flatten())
    a, b = torch.cat(a), torch.cat(b)
    held = replace(client, defense=belief("5.weight", then=gl.Direction(2.0)))
    expected = 2 * torch.cosine_similarity(a, b, dim=0)
    torch.testing.assert_close(held.log_prob(g, other, y)[0], expected)


@pytest.mark.parametrize("defense", [gl.Soteria("5", 0.6), gl.MagnitudePruning(0.6)])
def test_no_adaptive_attack_falls_through_to_the_plain_one(defense):
    model, (x, y) = network(), inputs(1)
    client = gl.Client(model, defense)
    g = client.release(x, y).g
    layers = tuple(g.layers)
    plain = gl.Direction()
    held = [plain, gl.Ignore("5.weight", plain), gl.Survivors(layers, plain)]
    if isinstance(defense, gl.Soteria):
        held.append(gl.Survivors("5.weight", plain))
    found = [replace(client, defense=b).log_prob(g, *inputs(1, seed=9)).item() for b in held]
    assert len({round(v, 9) for v in found}) == len(held)
    assert replace(client, defense=held[-1]).log_prob(g, x, y).item() == pytest.approx(1)


def test_what_cannot_be_believed_is_told():
    model, (x, y) = network(), inputs(1)
    client = gl.Client(model, gl.Soteria("5", 0.5))
    view = client.release(x, y)
    with pytest.raises(NotImplementedError, match=r"no density.*leave out.*Ignore, Survivors"):
        gl.bayes(client, gl.Flat()).attack(view)
    for belief in (gl.Ignore, gl.Survivors):
        held = belief("dense9", then=gl.Direction())
        with pytest.raises(ValueError, match=r"named dense9; the layers are 0, 3, 5, 7"):
            gl.bayes(replace(client, defense=held), gl.Flat()).attack(view)
        with pytest.raises(NotImplementedError, match="is a belief"):
            replace(client, defense=belief("5", then=gl.Direction())).release(x, y)
    nothing = gl.Ignore(("0", "3", "5", "7"), then=gl.Direction())
    with pytest.raises(ValueError, match="leaves nothing"):
        gl.bayes(replace(client, defense=nothing), gl.Flat()).attack(view)


@pytest.mark.slow
def test_leaving_the_layer_out_undoes_soteria():
    """On an untrained network: near the undefended attack, and far above the plain one."""
    x, y = gl.data.batch("digits", range(4))
    model = gl.models.convbig((1, 8, 8), 10)
    soteria, cosine = gl.Soteria("dense2", 0.8), gl.Direction(1e4)
    arms = {
        "undefended": (gl.NoDefense(), cosine),
        "plain": (soteria, cosine),
        "drop": (soteria, gl.Ignore("dense2.weight", cosine)),
    }
    prior = gl.Sum((gl.TotalVariation(0.1), gl.Box()))
    climb = gl.Adam(steps=80, lr=0.1, decay=0.96, signed=True)
    reached = {}
    for name, (truth, belief) in arms.items():
        client = gl.Client(model, truth)
        attack = gl.bayes(replace(client, defense=belief), prior, optimizer=climb)
        reached[name] = gl.psnr(attack.attack(client.release(x, y)).x, x).mean()
    assert reached["drop"] > reached["undefended"] - 1
    assert reached["drop"] > reached["plain"] + 3
