"""Pruning, believed fully: what zeros tell, against scipy, sums over masks, and other beliefs."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import scipy.integrate
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from stored import load_or_skip
from torch import nn

import gradleak as gl
from gradleak.attacks import FirstLayer
from gradleak.defenses import censored

NOISES = {gl.GaussianNoise: scipy.stats.norm, gl.LaplaceNoise: scipy.stats.laplace}


def pruned(attacks=3, rate=0.6, seed=0, shape=(4, 3)):
    """Gradients around which an attacker believes, and a pruned release of others."""
    rng = torch.Generator().manual_seed(seed)
    shapes = {"w": shape, "b": shape[:1]}

    def draw(_):
        return {k: torch.randn(attacks, *s, generator=rng).double() for k, s in shapes.items()}

    loc, other = map(gl.Gradient, map(draw, range(2)))
    return loc, gl.MagnitudePruning(rate)(other).loc


def by_hand(noise, scale, h, g):
    """Densities of survivors, chances of what was hidden: one parameter of one attack."""
    law = NOISES[noise]
    hidden, least = np.abs(h[g == 0]), np.abs(g[g != 0]).min(initial=np.inf)
    # An even function of the entry, and the left tail does not round.
    chances = law.cdf(least, hidden, scale) - law.cdf(-least, hidden, scale)
    return law.logpdf(g[g != 0], h[g != 0], scale).sum() + np.log(chances).sum()


@pytest.mark.parametrize("noise", NOISES)
@settings(max_examples=30)
@given(rate=st.floats(0, 0.99), seed=st.integers(0, 999), scale=st.floats(0.3, 3))
def test_survivors_have_densities_and_zeros_have_chances(noise, rate, seed, scale):
    loc, g = pruned(rate=rate, seed=seed)
    scales = scale * torch.tensor([0.5, 1.0, 2.0], dtype=torch.double)
    found = gl.Censored(noise(scales))(loc).log_prob(g)
    expected = [
        sum(by_hand(noise, scales[n].item(), loc[k][n].numpy(), g[k][n].numpy()) for k in g)
        for n in range(3)
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-8)


@pytest.mark.parametrize("noise", NOISES)
def test_it_is_the_density_of_noise_that_is_pruned(noise):
    """Two entries of which one survives: all that can be released has probability one."""
    h, scale = torch.tensor([[0.7, -0.4]], dtype=torch.double), 0.5
    belief = gl.Censored(noise(scale))(gl.Gradient({"b": h}))

    def density(value, place):
        g = torch.zeros(1, 2, dtype=torch.double)
        g[0, place] = value
        return belief.log_prob(gl.Gradient({"b": g})).exp().item()

    parts = [
        scipy.integrate.quad(density, *ends, args=(place,), limit=200)[0]
        for place in (0, 1)
        for ends in ((-8, -0.4), (-0.4, -1e-9), (1e-9, 0.7), (0.7, 8))
    ]
    assert sum(parts) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_slopes_are_those_of_finite_differences_and_finite_everywhere(noise, dtype):
    loc, g = pruned(seed=4)
    loc, g = (m.map(lambda v: v.to(dtype)) for m in (loc, g))
    h = {k: v.clone().requires_grad_() for k, v in loc.items()}
    value = lambda h: gl.Censored(noise(0.4))(gl.Gradient(h)).log_prob(g)  # noqa: E731
    slopes = torch.autograd.grad(value(h).sum(), list(h.values()))
    if dtype == torch.float64:
        step = torch.zeros_like(loc["w"])
        step[1, 2, 1] = 1e-5
        up, down = (value({**loc, "w": loc["w"] + s * step})[1] for s in (1, -1))
        assert slopes[0][1, 2, 1].item() == pytest.approx((up - down).item() / 2e-5, rel=1e-5)
    far = {k: (1e8 * v).detach().requires_grad_() for k, v in loc.items()}
    for slope in torch.autograd.grad(value(far).sum(), list(far.values())):
        assert slope.isfinite().all()
        assert (slope != 0).all()


def test_where_nothing_survived_nothing_is_said():
    loc, g = pruned()
    g = gl.Gradient({**g, "b": torch.zeros_like(g["b"])})
    noise = gl.GaussianNoise(0.3)
    rest = gl.Ignore("b", gl.Censored(noise))(loc).log_prob(g)
    torch.testing.assert_close(gl.Censored(noise)(loc).log_prob(g), rest)


def test_without_zeros_it_is_the_noise_alone():
    loc, g = pruned(rate=0)
    for noise in (gl.GaussianNoise(0.3), gl.LaplaceNoise(0.3)):
        torch.testing.assert_close(gl.Censored(noise)(loc).log_prob(g), noise(loc).log_prob(g))


def test_bigger_guesses_of_what_was_hidden_are_less_probable():
    """What `Survivors` cannot tell."""
    _, g = pruned(attacks=1)
    guesses = [g.map(lambda v, size=size: torch.where(v == 0, size, v)) for size in (0.0, 0.5, 4.0)]
    told = [gl.Censored(gl.GaussianNoise(0.2))(h).log_prob(g).item() for h in guesses]
    assert told[0] > told[1] > told[2] + 10
    g = gl.Gradient({"l.w": g["w"], "l.b": g["b"]})
    layered = [gl.Gradient({"l.w": h["w"], "l.b": h["b"]}) for h in guesses]
    untold = [gl.Survivors("l", gl.GaussianNoise(0.2))(h).log_prob(g).item() for h in layered]
    assert untold == pytest.approx([untold[0]] * 3)


def mlp(shape=784, hidden=64, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(shape, hidden), nn.ReLU(), nn.Linear(hidden, 10))


@dataclass(frozen=True)
class Sparsified:
    """What others call sparsification, each entry for itself or the largest of all."""

    how: str
    amount: float

    def __call__(self, gradient):
        if self.how == "threshold":
            keep = {k: v.abs() >= self.amount for k, v in gradient.items()}
        elif self.how == "top-k of all":
            sizes = torch.cat([v.flatten(1).abs() for v in gradient.values()], 1)
            least = sizes.topk(int(self.amount * sizes.shape[1]), dim=1).values[:, -1]
            keep = {k: v.abs() >= least.view(-1, *[1] * (v.ndim - 1)) for k, v in gradient.items()}
        else:
            one = gl.MagnitudePruning(self.amount)(gradient.only(self.how)).loc
            return gl.PointMass(gl.Gradient({**gradient, **one}))
        return gl.PointMass(gradient.map(lambda v, k: v * k, keep))


RELEASES = [
    *(gl.MagnitudePruning(r) for r in (0.01, 0.3, 0.5, 0.9, 0.99, 0.999)),
    *(Sparsified("threshold", t) for t in (1e-6, 1e-3, 0.02)),
    *(Sparsified("top-k of all", k) for k in (0.001, 0.01, 0.3)),
    *(Sparsified(name, 0.9) for name in ("1.weight", "3.weight", "1.bias")),
    gl.NoDefense(),
]


@pytest.mark.parametrize("defense", RELEASES, ids=repr)
@pytest.mark.parametrize("network", ["raw pixels", "convolutions"])
def test_every_kind_of_pruning_is_taken(defense, network):
    """And says more than a wrong image does."""
    x, y = gl.data.batch("digits", range(6))
    model = mlp(64) if network == "raw pixels" else gl.models.cnn((1, 8, 8), 10)
    if network == "convolutions" and getattr(defense, "how", "").startswith(("1", "3")):
        defense = Sparsified("conv2.weight", 0.9)
    client = gl.Client(model, defense)
    held = replace(client, defense=gl.Censored(gl.GaussianNoise(1e-2)))
    g = client.release(x, y).g
    assert (held.log_prob(g, x, y) > held.log_prob(g, x.flip(0), y)).all()


@pytest.mark.parametrize("rate", [0.3, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("network", ["raw pixels", "convolutions"])
def test_zeros_of_a_random_mask_are_refused(rate, network):
    model = mlp() if network == "raw pixels" else gl.models.convbig((1, 8, 8), 10)
    images = load_or_skip("mnist" if network == "raw pixels" else "digits").take(range(4))
    x, y = images.x, images.y
    client = gl.Client(model, gl.RandomMask(rate, gl.NoDefense(), seed=3))
    view = client.release(x, y)
    attack = gl.bayes(replace(client, defense=gl.Censored(gl.GaussianNoise(0.01))), gl.Box())
    with pytest.raises(ValueError, match=r"random mask, whose zeros say nothing.*Survivors"):
        attack.attack(view)


def test_it_needs_noise_whose_tails_are_known():
    for noise in (gl.Direction(), gl.NoDefense(), 0.1):
        with pytest.raises(ValueError, match=r"give a width: Censored\(GaussianNoise"):
            gl.Censored(noise)


RATES = (0.9, 0.99)
SURVIVORS = gl.Survivors(("1", "3"), then=gl.Direction())
CENSORED = gl.Censored(gl.LaplaceNoise(0.05))


def leaks(count=12):
    """Share of fresh MNIST images with SSIM > 0.5 of an MLP 784-64-10: {attack: {rate: share}}.

    The width was chosen on images 0 to 11.
    """
    fresh = load_or_skip("mnist").take(range(200, 200 + count))
    prior = gl.Sum((gl.TotalVariation(1e-5), gl.Box()))
    climb = gl.Adam(steps=100, signed=True, lr=0.1, drops=(3 / 8, 5 / 8, 7 / 8))
    found = {}
    for rate in RATES:
        client = gl.Client(mlp(), gl.MagnitudePruning(rate))

        arms = {"Survivors": SURVIVORS, "Direction": gl.Direction(), "Censored": CENSORED}
        attacks = {
            name: gl.bayes(replace(client, defense=belief), prior, optimizer=climb)
            for name, belief in arms.items()
        }
        for name, attack in {**attacks, "FirstLayer": FirstLayer()}.items():
            x_hat = attack.attack(client.release(fresh.x, fresh.y)).x
            leaked = gl.ssim(x_hat, fresh.x) > 0.5
            found.setdefault(name, {})[rate] = gl.metrics.share(leaked)
    return found


@pytest.mark.slow
def test_who_believes_in_pruning_finds_most():
    """The table of book/gotchas.md; to print it: python tests/defenses/test_censored.py."""
    found = leaks()
    for rate in RATES:
        share = {name: by_rate[rate].mean for name, by_rate in found.items()}
        assert share["Censored"] >= max(share["Survivors"], share["Direction"])
        assert share["FirstLayer"] == 1
    assert found["Censored"][0.99].low > found["Survivors"][0.99].high
    page = (Path(__file__).parents[2] / "book" / "gotchas.md").read_text()
    for name, shares in found.items():
        (line,) = (line for line in page.splitlines() if line.startswith(f"| `{name}` |"))
        shown = [int(cell.split()[0]) for cell in line.split("|")[2:4]]
        means = [100 * shares[rate].mean for rate in RATES]
        assert shown == pytest.approx(means, abs=17), "two images may round otherwise elsewhere"


def table(found):
    """In Markdown, in percent."""
    lines = [["attack", *(f"rate {r}" for r in RATES)], ["---"] * 3]
    for name, by_rate in found.items():
        cells = [replace(s, mean=100 * s.mean, low=100 * s.low, high=100 * s.high)
                 for s in by_rate.values()]  # fmt: skip
        lines.append([f"`{name}`", *(f"{c:.0f}" for c in cells)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    print(table(leaks()))


def test_a_gap_counts_from_beyond_its_bound():
    """A tenth of 60 survivors lies within FALL times the smallest: no gap; else there is one."""
    survivors = torch.full((60,), censored.FALL)
    survivors[:6] = 1.0
    others = torch.zeros(20)
    for widened, gap in ((1.0, False), (1.001, True)):
        v = torch.cat([torch.where(survivors > 1, widened * survivors, survivors), others])
        assert censored._cut_at_random(v[torch.randperm(80)].view(8, 10)) is gap
