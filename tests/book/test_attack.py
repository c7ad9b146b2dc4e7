"""The live page's mathematics is the package's: its own functions, in a browser, against torch."""

import pytest
import torch
import toy
from torch import nn

import gradleak as gl

SCRIPT = toy.REPO / "book" / "_static" / "attack.js"
SCALE, HIDDEN, WEIGHT, LABEL, SEED = 0.1, 0.4, 3.0, 7, 11
RUN = """
const [x, law, belief, scale, hidden, weight, label, seed] = arguments;
const theta = attack.network(seed), drawn = attack.draws(seed, law);
const sent = attack.gradient(theta, x[0], label);
const g = attack.release(sent, drawn, scale, hidden);
const what = {law, belief, scale, hidden, rank: drawn.rank};
const at = attack.posterior(theta, label, g, what, weight, x[1]);
const told = {theta, sent, g, rank: drawn.rank, noise: drawn.noise, slope: at.slope};
for (const name in told) told[name] = Array.from(told[name]);
return {...told, value: at.value, psnr: attack.psnr(x[1], x[0])};
"""


@pytest.fixture(scope="module")
def page(browser):
    browser.get("about:blank")
    browser.execute_script(SCRIPT.read_text() + "\nwindow.attack = attack;")
    return browser


def compute(page, x, law="gaussian", belief="bayes"):
    told = page.execute_script(RUN, x.tolist(), law, belief, SCALE, HIDDEN, WEIGHT, LABEL, SEED)
    return {k: torch.tensor(v, dtype=torch.float64) for k, v in told.items()}


@pytest.fixture(scope="module")
def x():
    return torch.rand(2, 784, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def network(theta):
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 64), nn.Tanh(), nn.Linear(64, 10)).double()
    nn.utils.vector_to_parameters(theta, model.parameters())
    return model


def mulberry(seed, count):
    """The page's generator, by its definition."""
    told, mask = [], 2**32 - 1
    for _ in range(count):
        seed = (seed + 0x6D2B79F5) & mask
        t = ((seed ^ (seed >> 15)) * (1 | seed)) & mask
        t = ((t + (((t ^ (t >> 7)) * (61 | t)) & mask)) ^ t) & mask
        told.append(((t ^ (t >> 14)) & mask) / 2**32)
    return torch.tensor(told, dtype=torch.float64)


def test_weights_and_the_gradient_are_pytorchs(page, x):
    told = compute(page, x)
    u, sides = 2 * mulberry(SEED, 784 * 64 + 64 + 640 + 10) - 1, (784 * 64 + 64, 650)
    bound = torch.cat([u.new_full((n,), k**-0.5) for n, k in zip(sides, (784, 64), strict=True)])
    torch.testing.assert_close(told["theta"], u * bound, rtol=1e-12, atol=0)
    model = network(told["theta"])
    loss = nn.functional.cross_entropy(model(x[:1]), torch.tensor([LABEL]))
    slopes = torch.autograd.grad(loss, list(model.parameters()))
    expected = torch.cat([v.flatten() for v in slopes])
    torch.testing.assert_close(told["sent"], expected, rtol=1e-9, atol=1e-14)
    client = gl.Client(model)
    view = client.release(x[:1].view(1, 1, 28, 28), torch.tensor([LABEL]))
    ours = torch.cat([v.flatten() for v in view.g.values()])
    torch.testing.assert_close(told["sent"], ours, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("law", ["gaussian", "laplace"])
def test_noise_and_mask_have_their_laws(page, x, law):
    told = compute(page, x, law)
    size = len(told["noise"])
    power = told["noise"].square().mean() / (1 if law == "gaussian" else 2)
    assert abs(told["noise"].mean()) < 5 * 2**0.5 / size**0.5
    assert abs(power - 1) < 5 * 5**0.5 / size**0.5
    third = told["noise"].abs().gt(1).double().mean()
    assert abs(third - (0.3173 if law == "gaussian" else 0.3679)) < 0.01
    hidden = told["rank"] < HIDDEN
    assert abs(hidden.double().mean() - HIDDEN) < 0.01
    expected = told["sent"].where(~hidden, 0) + SCALE * told["noise"]
    torch.testing.assert_close(told["g"], expected, rtol=1e-12, atol=1e-15)


class Masked:
    """A mask that is given, then noise: what the page draws by ranks."""

    def __init__(self, kept, then):
        self.kept, self.then = kept, then

    def __call__(self, gradient):
        return self.then(gradient.masked(self.kept))


@pytest.mark.parametrize("law", ["gaussian", "laplace"])
@pytest.mark.parametrize("belief", ["bayes", "unknown", "l2", "l1", "cosine"])
def test_the_posterior_and_its_slope_are_the_packages(page, x, law, belief):
    told = compute(page, x, law, belief)
    model = network(told["theta"])
    parts = told["rank"].ge(HIDDEN).double().split([p.numel() for p in model.parameters()])
    named = zip(model.named_parameters(), parts, strict=True)
    kept = {name: part.view(1, *p.shape) for (name, p), part in named}
    noise = {"gaussian": gl.GaussianNoise(SCALE), "laplace": gl.LaplaceNoise(SCALE)}
    beliefs = {
        "bayes": Masked(kept, noise[law]),
        "unknown": gl.defenses.UnknownMask(HIDDEN, noise[law]),
        "l2": noise["gaussian"],
        "l1": noise["laplace"],
        "cosine": gl.Direction(3000 / SCALE),
    }
    sent = told["g"].split([p.numel() for p in model.parameters()])
    g = gl.gradients.Gradient(
        {k: v.view(1, *p.shape) for (k, p), v in zip(model.named_parameters(), sent, strict=True)}
    )
    client, prior = gl.Client(model, beliefs[belief]), gl.TotalVariation(WEIGHT)
    at = x[1:].view(1, 1, 28, 28).clone().requires_grad_()
    value = client.log_prob(g, at, torch.tensor([LABEL])) + prior.log_prob(at)
    (slope,) = torch.autograd.grad(value.sum(), at)
    torch.testing.assert_close(told["value"], value[0].detach(), rtol=1e-9, atol=1e-6)
    torch.testing.assert_close(told["slope"], slope.flatten(), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(told["psnr"], gl.psnr(x[1:], x[:1])[0], rtol=1e-9, atol=0)


def test_bayes_ends_above_l2_under_a_mask(page, x):
    square = torch.zeros(28, 28, dtype=torch.float64)
    square[6:22, 9:19] = 1.0
    found = page.execute_script(
        """
        const [x, scale, hidden, label] = arguments, ends = {};
        for (let seed = 1; seed < 4; seed++) {
          const theta = attack.network(seed), drawn = attack.draws(seed, "gaussian");
          const g = attack.release(attack.gradient(theta, x, label), drawn, scale, hidden);
          for (const belief of ["bayes", "l2"]) {
            const what = {law: "gaussian", belief, scale, hidden, rank: drawn.rank};
            const at = attack.climb(x => attack.posterior(theta, label, g, what, 1, x), 100, seed);
            while (at.step < at.steps) at.advance();
            (ends[belief] = ends[belief] || []).push(attack.psnr(at.x, x));
          }
        }
        return ends;
        """,
        square.flatten().tolist(), 0.1, 0.5, 3,
    )  # fmt: skip
    gains = [b - other for b, other in zip(found["bayes"], found["l2"], strict=True)]
    assert min(gains) > 3, found
    assert min(found["bayes"]) > 15, found
