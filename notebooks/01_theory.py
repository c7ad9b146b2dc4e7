# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Theory: the best possible attack, computed
#
# ```{admonition} In short
# :class: tip
# - **Claim.** The best attack is Bayes' rule. Where the prior is a finite set of images, it can be
#   computed exactly, and drawn beside the attacks that people run.
# - **Paper.** Sections 3 and 4, Table 1 of {cite}`balunovic2022bayesian`.
# - **Smaller than it could be.** The exact part needs a prior that can be listed; every figure says
#   how many images it lists.
# ```

# %% tags=["parameters"]
profile = "smoke"  # smoke (digits, seconds), quick (MNIST, minutes) or paper (1000 images)
device = "auto"  # auto, cpu or cuda
seed = 0  # of the noise, the starts and the network
results = ""  # folder of the records; empty: one below _build/results
dataset = ""  # one of digits, mnist, fashion_mnist or cifar10; empty: the profile's
network = "cnn"  # one of cnn, cnn2 or mlp
examples = 0  # images that the finite prior holds; 0: the profile's
images = 0  # attacked images; 0: the profile's
steps = 0  # iterations of each attack; 0: the profile's
delta = 0.0  # radius of a success, in pixels; 0: the data set's

# %% tags=["hide-input"]
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown, display
from torch import nn

import gradleak as gl

pd.set_option("display.max_colwidth", None)
PROFILES = {
    "smoke": dict(dataset="digits", examples=200, scales=8, rounds=3, images=6, steps=40, draws=20),
    "quick": dict(dataset="mnist", examples=1000, scales=20, rounds=5, images=20, steps=100,
                  draws=800),
    "paper": dict(dataset="mnist", examples=1000, scales=20, rounds=10, images=100, steps=150,
                  draws=800),
}  # fmt: skip
NETWORKS = {"cnn": gl.models.cnn, "cnn2": gl.models.cnn2, "mlp": gl.models.mlp}
given = dict(dataset=dataset, examples=examples, images=images, steps=steps)
size = gl.experiment.profile(profile, PROFILES, **given)
dataset = gl.names.choose("dataset", size.dataset, gl.data.NAMES)
delta = delta or {"digits": 2.0, "mnist": 4.0, "fashion_mnist": 4.0, "cifar10": 6.0}[dataset]
results = Path(results or f"../_build/results/{profile}")
records = results / f"theory-{profile}-{dataset}.csv"
command = f"gradleak run theory --profile {profile} -p dataset={dataset}"

# %% [markdown]
# ## The question
#
# A client holds an example $x$ with label $y$, drawn from $p(x \mid y)$, and releases a gradient
# $g$, drawn from $p(g \mid x, y)$: the defense. An **adversary** is a function $f$ that turns $g$
# into a guess. It fails if its guess is farther than $\delta$ from the truth.
#
# :::{prf:definition} Adversarial risk
# :label: def-risk
#
# $$
# R(f) = \E_{x}\, \E_{g \mid x}\, \mathbf 1\bigl[\, \norm{x - f(g)} > \delta \,\bigr].
# $$ (eq-risk)
# :::
#
# No attack can have a lower risk than the best one. What is the best one, and how far from it are
# the attacks that people run?
#
# ## The equation
#
# Everything that $g$ tells about $x$ is the posterior,
# $p(x \mid g, y) \propto p(g \mid x, y)\, p(x \mid y)$. Write
# $B(x_0) = \{x : \norm{x - x_0} \le \delta\}$ for the ball around a guess.
#
# :::{prf:theorem} The Bayes-optimal adversary
# :label: thm-optimal
#
# No adversary has a lower risk than
#
# $$
# f^*(g) = \operatorname*{arg\,max}_{x_0} \int_{B(x_0)} p(x \mid g, y) \, dx.
# $$ (eq-optimal)
# :::
#
# :::{prf:proof}
# Exchange the two expectations in {eq}`eq-risk`: first draw $g$, then $x$ from its posterior.
# The inner expectation is the posterior's mass outside of the ball around the guess,
# $1 - \int_{B(f(g))} p(x \mid g, y)\, dx$. The guess may be chosen for each $g$ by itself, so the
# risk is least where each inner term is: at $f^*(g)$.
# :::
#
# The proof asks nothing of the defense and nothing of the network, and tells what an attacker needs
# to know: both densities, and no more.
#
# ## Ten lines
#
# In two dimensions all of this can be seen. A small network, two-dimensional examples that may lie
# anywhere in a square, one released gradient:


# %%
def small_network(seed):
    """Two inputs, twelve hidden units, two classes."""
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(2, 12), nn.Tanh(), nn.Linear(12, 2)).double()
    with torch.no_grad():
        net[0].weight.mul_(6)
        net[0].bias.mul_(3)
    return net


flat, label = small_network(4), torch.tensor([1])
point = torch.tensor([[0.3, 0.6]], dtype=torch.double)  # private
hidden = gl.Client(flat, gl.GaussianNoise(0.2))  # p(g | x, y)
g = hidden.release(point, label, seed=3).g  # all that the server sees
posterior = gl.attacks.grid.on_plane(lambda x: hidden.log_prob(g, x, label.expand(len(x))))
reach = 0.1
answers = {"MAP": posterior.mode, "optimum": posterior.best(reach)}
{name: round(posterior.within(at, reach), 3) for name, at in answers.items()}

# %% [markdown]
# These are the chances of a success, by the posterior itself, of two answers: the most probable
# point (maximum a posteriori, MAP), and the optimum of {prf:ref}`thm-optimal`.


# %% tags=["hide-input"]
def prior_peaks(x):
    """A needle that holds a twentieth of the prior's mass, and a hill that holds the rest."""
    needle = -(x - 0.25).square().sum(1) / (2 * 0.02**2) - 2 * np.log(0.02) + np.log(0.05)
    hill = -(x - 0.65).square().sum(1) / (2 * 0.15**2) - 2 * np.log(0.15) + np.log(0.95)
    return torch.logaddexp(needle, hill)


def log_believed(scale, prior):
    """log p(x | g, y) + const after one release, as a function of points."""
    client = gl.Client(flat, gl.GaussianNoise(scale))
    g = client.release(point, label, seed=3).g
    return lambda x: client.log_prob(g, x, label.expand(len(x))) + prior(x)


def believed(scale, prior):
    """The same as a density on the square."""
    return gl.attacks.grid.on_plane(log_believed(scale, prior), n=120)


def climb(scale, prior):
    """The points that an attack visits, from one corner."""
    log_p, path = log_believed(scale, prior), []

    def f(x, _):
        path.append(x.detach()[0].clone())
        return log_p(x)

    start = torch.tensor([[0.9, 0.95]], dtype=torch.double)
    gl.attacks.maximize(f, start, gl.Adam(steps=150, lr=0.02, decay=0.99), gl.Box().project)
    return torch.stack(path)


def uniform(x):
    """Every point of the square alike."""
    return torch.zeros(len(x), dtype=torch.double)


def draw(axis, scale, prior):
    """A density with three answers, and the way of an attack."""
    plane = believed(scale, prior)
    axis.imshow(plane.density.T, origin="lower", extent=(0, 1, 0, 1), cmap="Blues")
    answers = {
        "MAP": (plane.mode, "x"),
        "mean": (plane.mean, "o"),
        "optimum": (plane.best(reach), "^"),
    }
    axis.plot(*point[0], "*", color="k", ms=9, label="private $x$")
    for (name, (at, mark)), color in zip(answers.items(), gl.figures.COLORS[1:], strict=False):
        axis.plot(*at, mark, color=color, mew=2, label=f"{name}", mfc="none")
    axis.plot(*climb(scale, prior).T, color="0.3", lw=1, label="way of the attack")
    axis.set_title(f"noise {scale}", fontsize=9)
    axis.set(xticks=[0, 1], yticks=[0, 1])


figure, axes = plt.subplots(2, 4, figsize=(7.6, 4.3), layout="constrained")
for axis, scale in zip(axes[0], (0.03, 0.1, 0.2, 0.5), strict=True):
    draw(axis, scale, uniform)
for axis, scale in zip(axes[1], (0.1, 0.5, 1.0, 2.0), strict=True):
    draw(axis, scale, prior_peaks)
axes[0, 0].set_ylabel("prior: uniform", fontsize=9)
axes[1, 0].set_ylabel("prior: needle and hill", fontsize=9)
figure.legend(
    *axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False
)
plt.close(figure)
figure

# %% [markdown]
# With little noise all answers agree. As it grows they part. The attack climbs to a most probable
# point, the nearest on its way. Is that the best answer?

# %% tags=["hide-input"]
rows = {}
for scale in (0.1, 0.5, 1.0, 2.0):
    plane = believed(scale, prior_peaks)
    answers = {"MAP": plane.mode, "posterior mean": plane.mean, "optimum": plane.best(reach)}
    rows[scale] = {k: f"{plane.within(v, reach):.2f}" for k, v in answers.items()}
pd.DataFrame(rows).T.rename_axis("noise", axis=1)

# %% [markdown]
# The chance to be within 0.1, by the posterior itself. **The most probable point is not the best
# answer** once the needle is the mode but the hill has the mass.
#
# The same at more noise scales, to be moved. Black is the private point, red MAP, green the mean,
# blue the optimum. Darker is more probable, and each picture has its own greys. On the right stands
# the mass within $\delta$, which the optimum maximises.

# %% tags=["hide-input"]
SIDE = 50
DOTS = [("mode", (0.84, 0.37, 0.0)), ("mean", (0.0, 0.62, 0.45)), ("best", (0.0, 0.45, 0.70))]


def picture(values, marks):
    """An RGB image (3, SIDE, SIDE) of a density, with points."""
    shade = torch.nn.functional.adaptive_avg_pool2d(values[None], SIDE)[0]
    shade = (shade / shade.max()).T.flip(0)
    image = (1 - 0.55 * shade)[None].repeat(3, 1, 1)
    for (x, y), color in marks:
        column, row = int(x * SIDE), SIDE - 1 - int(y * SIDE)
        at = image[:, max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
        at[:] = torch.tensor(color)[:, None, None]
    return image.clamp(0, 1)


def strip(prior, scale, reach):
    """One position of the slider."""
    plane = believed(scale, prior)
    at = {"mode": plane.mode, "mean": plane.mean, "best": plane.best(reach)}
    marks = [(point[0], (0.0, 0.0, 0.0)), *((at[name], color) for name, color in DOTS)]
    pictures = torch.stack([picture(plane.density, marks), picture(plane.mass(reach), marks)])
    chances = [100 * plane.within(at[name], reach) for name in ("mode", "best")]
    return gl.figures.Frame(f"{scale:g}", [gl.figures.Row("density | mass", pictures, chances)])


frames = {
    f"{name}, δ = {r}": [strip(prior, s, r) for s in (0.03, 0.1, 0.2, 0.5, 1.0, 2.0)]
    for name, prior in (("uniform", uniform), ("needle and hill", prior_peaks))
    for r in (0.05, 0.1, 0.2)
}
gl.figures.strength(frames, choose="prior", unit="%")

# %% [markdown]
# Under the left picture stands the chance of a success of MAP, under the right one that of the
# optimum, in per cent.
#
# ## Older attacks are beliefs
#
# Maximising $\log p(g \mid x, y) + \log p(x)$ is the optimum for a vanishing ball. Older attacks do
# the same with other densities, which is Table 1 of the paper; here, what each preset holds:

# %%
test = gl.data.load(dataset, "test")
model = NETWORKS[gl.names.choose("network", network, NETWORKS)](test.shape, test.classes, seed=seed)
model = model.to(gl.device.named(device))
client = gl.Client(model, gl.LaplaceNoise(0.1))
presets = {
    "Bayes": gl.bayes(client, gl.TotalVariation(3.0)),
    "DLG": gl.dlg(client),
    "L1": gl.l1(client),
    "Inverting Gradients": gl.inverting_gradients(client),
}
pd.DataFrame({k: [repr(a.belief), repr(a.prior)] for k, a in presets.items()},
             index=["belief p(g | x, y)", "prior p(x)"]).T  # fmt: skip

# %% [markdown]
# The constants say how the belief and the prior are weighed, no more: L2 loss with a prior of
# weight $\lambda$ is Gaussian noise of scale $\sigma$ with a prior of weight
# $\lambda / 2\sigma^2$. GradInversion {cite}`yin2021see` is DLG with total variation and a prior
# from batch statistics.
#
# ## When it can be checked: a linear client
#
# Let the gradient be $x$ itself, the noise Gaussian with scale $\sigma$ and the prior Gaussian with
# mean $\mu$ and spread $\tau$. Then everything is a closed form: the posterior is Gaussian with
# precision $\sigma^{-2} + \tau^{-2}$, and its mean, its mode and the optimum are one point. No
# estimate whatever has a smaller mean squared error in each coordinate than
# $(\sigma^{-2} + \tau^{-2})^{-1}$: the Bayesian Cramér-Rao bound {cite}`vantrees1968detection`, met
# here with equality. The attack, which knows none of this, against it:

# %%
spread, middle = 0.2, 0.5


class GaussianPrior:
    """N(middle, spread^2) for each coordinate."""

    def log_prob(self, x):
        return -(x - middle).square().flatten(1).sum(1) / (2 * spread**2)

    def project(self, x):
        return x


line = nn.Linear(16, 1, bias=False).double()
rows = {}
for scale in (0.05, 0.2, 0.8):
    linear = gl.Client(line, gl.GaussianNoise(scale), loss=lambda out, y: out.mean())
    truth = middle + spread * torch.randn(200, 16, generator=torch.manual_seed(seed)).double()
    seen = linear.release(truth, torch.zeros(200, dtype=torch.long), seed=seed)
    search = gl.Adam(steps=1500, lr=0.05, decay=0.99)
    found = gl.bayes(linear, GaussianPrior(), optimizer=search).attack(seen).x
    precision = scale**-2 + spread**-2
    closed = (seen.g["weight"][:, 0] / scale**2 + middle / spread**2) / precision
    rows[scale] = {
        "farthest from the closed form": f"{(found - closed).abs().max():.0e}",
        "mean squared error": f"{(found - truth).square().mean():.5f}",
        "bound": f"{1 / precision:.5f}",
    }
pd.DataFrame(rows).T.rename_axis("noise", axis=1)

# %% [markdown]
# ## Exact risk on a finite prior
#
# Let the client's example be one of $N$ images that the attacker can list: a public data set, say.
# The posterior is then a sum of $N$ terms,
#
# $$
# p(x_j \mid g, y) = \frac{p_j\, p(g \mid x_j, y)}{\sum_k p_k\, p(g \mid x_k, y)},
# $$ (eq-finite)
#
# and the optimum over those images an argmax. So the risk of {prf:ref}`def-risk` can be computed,
# for any network, any defense with a density, and any belief. For Gaussian noise it is cheap. What
# a quadratic belief asks of $g = \nabla(x_i) + \sigma \varepsilon$ are the inner products
# $\langle g, \nabla(x_j) \rangle$, and these are jointly Gaussian:
#
# $$
# \langle g, \nabla(x_j) \rangle \sim \mathcal N\bigl( K_{ij},\; \sigma^2 K_{jk} \bigr), \qquad
# K_{jk} = \langle \nabla(x_j), \nabla(x_k) \rangle .
# $$ (eq-gram)
#
# The Gram matrix $K$ holds everything; no noise of the gradient's size is ever drawn.

# %%
listed = test.take(range(size.examples))
prior = gl.attacks.exact.FinitePrior(listed.x, listed.y)
bare = gl.Client(model)
gradients = prior.gradients(bare)
law = gl.attacks.exact.GaussianLaw.between(gradients)
one = law.products(2.0, law.noise(seed))  # each image releases once
truth = gl.attacks.exact.posterior(law.gaussian(one, 2.0), prior.log_prob(prior.y))
best = gl.attacks.exact.answer(truth, prior.near(0.0))
risk = gl.attacks.exact.risk(best, truth, prior.near(0.0)).mean()
f"risk {risk:.2f} at noise 2 among {len(prior)} images"

# %% [markdown]
# ## The figure
#
# The exact risk of the best adversary and of others that believe something else, as the noise
# grows. All know the label and the list; they differ in what they believe about the defense, a mask
# over half of the entries with Gaussian noise.

# %% tags=["hide-input"]
SCALES = np.geomspace(0.05, 20, size.scales).round(4).tolist()
mask = gl.RandomMask(0.5, then=gl.GaussianNoise(1.0))
other = replace(mask, seed=1)
kept = gradients.masked(mask.mask(gradients))
masked = gl.attacks.exact.GaussianLaw.between(
    kept, gradients, gradients.masked(other.mask(gradients))
)
BELIEFS = {
    "Bayes": masked.gaussian,
    "noise ten times too small": lambda p, s: masked.gaussian(p, s / 10),
    "L2: no mask": lambda p, s: masked.gaussian(p, s, kind=1),
    "another mask": lambda p, s: masked.gaussian(p, s, kind=2),
    "cosine": lambda p, _: masked.cosine(p, kind=1),
}


def curves(law, beliefs, near):
    """{belief: {scale: risk with its interval}}."""
    found = gl.attacks.exact.risks(law, beliefs, prior, SCALES, near, size.rounds)
    return {name: {s: gl.interval(v) for s, v in line.items()} for name, line in found.items()}


exactly = curves(masked, BELIEFS, prior.near(0.0))
guess = 1 - len(prior.y.unique()) / len(prior)
display(gl.figures.curves(exactly, across="noise scale", unit="risk (0-1 loss)"))
Markdown(
    f"{len(prior)} images of {dataset}, {size.rounds} rounds of noise; network `{network}`, "
    f"untrained. A blind guess among the images of the right label has risk {guess:.2f}."
)

# %% [markdown]
# A wrong scale changes nothing here: the same image is the most probable one whatever the scale, so
# long as all were equally probable before. A wrong mask costs much. The curves are estimates only
# in the noise: the examples are enumerated, and each answer is judged by the exact posterior.
#
# ## How far are real attacks?
#
# Now the attack of the other chapters, which has no list and only knows that neighbouring pixels
# are alike. Both face Gaussian noise without a mask, and the same $\delta$. The exact adversary
# still answers with a listed image; one that may answer anything can only do better.

# %% tags=["hide-input"]
search = gl.Adam(steps=size.steps, lr=0.1, decay=0.05 ** (1 / size.steps), signed=True)
attacked = listed.take(range(size.images))
ATTACKED = [0.01, 0.03, 0.1, 0.3, 1.0, 3.0]


def trial(scale, radius=0.0, attack_seed=seed):
    """The Bayes attack with total variation, and a ball around x if its radius is not zero."""
    noisy = gl.Client(model, gl.GaussianNoise(scale))
    around = gl.Ball(radius) if radius else None
    held = gl.bayes(noisy, gl.TotalVariation(3.0), optimizer=search, ball=around)
    labels = {
        "scale": scale,
        "radius": radius,
        "model": network,
        "model_seed": seed,
        "train_step": 0,
    }
    return gl.Trial(noisy, held, attacked, labels, seed=attack_seed, keep=list(attacked.index))


def snapped(rows):
    """Whether the listed image of the right label that is nearest to the answer is far off."""
    who = rows["index"].tolist()
    far = torch.cdist(gl.experiment.records.images(records, rows.id).flatten(1), prior.x.flatten(1))
    nearest = far.where(prior.y[who][:, None] == prior.y, torch.inf).argmin(1)
    return 1 - near[nearest, who]


near = prior.near(delta)
found = gl.experiment.run([trial(s) for s in ATTACKED], records, command)
pixels = test.x[0].numel()
lines = curves(law, {"exact: knows the list": law.gaussian}, near)
lines |= {"attack: total variation": {}, "attack, then the list": {}}
for scale, rows in found.groupby("scale"):
    missed = (rows.mse * pixels) ** 0.5 > delta
    lines["attack: total variation"][scale] = gl.interval(missed.astype(float))
    lines["attack, then the list"][scale] = gl.interval(snapped(rows).tolist())
display(gl.figures.curves(lines, across="noise scale", unit=f"risk (δ = {delta:g} pixels)"))
psnr = {s: gl.interval(rows.psnr) for s, rows in found.groupby("scale")}
Markdown(
    f"Exact: {len(prior)} images of {dataset}, {size.rounds} rounds. Attack: {len(attacked)} of "
    f"them, {search.steps} iterations, {gl.experiment.records.facts(records)['hardware']}; mean PSNR "
    + ", ".join(f"{v.mean:.1f} dB at {s:g}" for s, v in psnr.items())
    + ". The third line answers with the listed image nearest to what the attack found."
)


# %% tags=["hide-input"]
def reaches(line, level=0.5):
    """The first noise scale at which a risk passes a level, by interpolation of the logarithm."""
    at, risk = np.log(list(line)), [v.mean for v in line.values()]
    above = next((k for k, r in enumerate(risk) if r >= level), None)
    if not above:
        return None
    share = (level - risk[above - 1]) / (risk[above] - risk[above - 1])
    return float(np.exp(at[above - 1] + share * (at[above] - at[above - 1])))


half = {name: reaches(line) for name, line in lines.items()}
knows, climbs = half["exact: knows the list"], half["attack: total variation"]
text = "One of the two never fails half of the time on these scales."
if knows and climbs:
    text = (
        f"The attack fails half of the time from noise {climbs:.2g} on, the exact adversary from "
        f"{knows:.2g} on: **{knows / climbs:.0f} times as much**."
    )
Markdown(f"**The gap.** {text}")

# %% [markdown]
# So a noise scale at which this attack fails is no safe one. What separates the two is what they
# know about images, not about the defense, and not the climb alone: the third line gives the same
# attack the list afterwards. Whoever chooses a noise scale should ask how much an attacker may know
# about the data, and look at the exact line for the worst answer.
#
# ## Entry by entry
#
# Laplace noise has no Gram matrix, and neither has an L1 belief about Gaussian noise: both ask
# about every entry. So real noise is drawn, and every listed image tried.

# %% tags=["hide-input"]
few = gl.attacks.exact.FinitePrior(listed.x[:100], listed.y[:100])
few_gradients, one_of = few.gradients(bare), few.near(0.0)


def drawn(defense, other):
    """The risks of the true belief and of another, one value for each release."""
    hiding, found = gl.Client(model, defense), {"Bayes": [], "other": []}
    for begin in range(0, size.draws, 20):
        key = range(begin, min(begin + 20, size.draws))
        who = torch.tensor(key) % len(few)
        g = hiding.release(few.x[who], few.y[who], seed=seed, key=key).g
        log_prior = few.log_prob(few.y[who])
        truth, held = (
            gl.attacks.exact.posterior(
                gl.attacks.exact.log_likelihoods(b, few_gradients, g), log_prior
            )
            for b in (defense, other)
        )
        for name, belief in (("Bayes", truth), ("other", held)):
            answers = gl.attacks.exact.answer(belief, one_of)
            found[name] += gl.attacks.exact.risk(answers, truth, one_of).tolist()
    return {name: gl.interval(v) for name, v in found.items()}


rows = {}
for scale in (1.0, 3.0, 6.0):
    laplace, gaussian = gl.LaplaceNoise(scale), gl.GaussianNoise(scale)
    rows[f"Laplace {scale:g}; the other believes L2"] = drawn(laplace, gaussian)
    rows[f"Gaussian {scale:g}; the other believes L1"] = drawn(gaussian, laplace)
display(gl.figures.table(rows, digits=2))
Markdown(f"Risk (0-1 loss) among {len(few)} images of {dataset}, {size.draws} releases each.")

# %% [markdown]
# ## The delta-ball algorithm
#
# The paper proposes to climb the ball's mass itself. Its logarithm is bounded from below by
# Jensen's inequality, with $|B|$ the ball's volume:
#
# $$
# \log \int_{B(x_0)} p(g \mid x)\, p(x)\, dx \;\ge\;
# \log |B| + \frac{1}{|B|} \int_{B(x_0)} \log p(g \mid x) + \log p(x) \; dx,
# $$ (eq-jensen)
#
# and the mean on the right is estimated by points drawn in the ball.
#
# :::{prf:algorithm} The Monte Carlo attack
# :label: alg-ball
#
# **Inputs** $g$, a belief, a prior, a radius $r$, $k$ samples, $T$ steps
#
# **Output** $\hat x$
#
# 1. Start at noise, $x_0$.
# 2. For $t = 0, \dots, T - 1$: draw $u_1, \dots, u_k$ uniformly in the ball of radius
#    $r\,(1 - t / T)$; climb $\tfrac{1}{k} \sum_i \log p(g \mid x_0 + u_i) + \log p(x_0 + u_i)$.
# 3. Answer $\hat x = x_0$.
# :::
#
# Uniformly means in volume, so the length of $u$ is $r\, U^{1/d}$ with $U$ uniform on $[0, 1]$: in
# many dimensions nearly all points lie near the surface. In code it is one word more,
# `gl.bayes(client, prior, ball=gl.Ball(radius, samples=4))`. Does it help?

# %% tags=["hide-input"]
RADII = [0.0, 0.5, 2.0, 5.0]
balls = gl.experiment.grid(scale=[0.01, 0.1, 0.3], radius=RADII)
table = gl.experiment.run([trial(**cell) for cell in balls], records, command)
groups = table.groupby(["scale", "radius"]).psnr
means = {f"noise {s:g}": {f"r = {r:g}": gl.interval(groups.get_group((s, r))) for r in RADII}
         for s in (0.01, 0.1, 0.3)}  # fmt: skip
gains = {
    f"noise {s:g}": {
        f"r = {r:g} − r = 0": gl.paired(groups.get_group((s, r)), groups.get_group((s, 0.0)))
        for r in RADII[1:]
    }
    for s in (0.01, 0.1, 0.3)
}
display(gl.figures.table(means), gl.figures.differences(gains))
every = [pair.difference for row in gains.values() for pair in row.values()]
ahead, behind = sum(v.low > 0 for v in every), sum(v.high < 0 for v in every)
Markdown(
    f"Mean PSNR in dB over {len(attacked)} images of {dataset}, Gaussian noise, {search.steps} "
    "iterations, 4 samples; below, paired differences from no ball. Of these "
    f"{len(every)} differences, **{ahead}** are clear of zero in favour of the ball and "
    f"**{behind}** against it."
)

# %% [markdown]
# A quadratic log-posterior keeps its maximum when it is averaged over a ball: near the top the ball
# changes nothing but adds noise to the climb, at several times the cost. Farther away it could
# smooth the way.
#
# ## Exercises
#
# 1. Run `gradleak run theory -p examples=50`. Why does the exact risk fall, and what does that say
#    about a list that grows to all images there are?
# 2. Let the attacker not know the label: replace `prior.log_prob(prior.y)` by `prior.log_prob()`.
#    How much noise is a label worth?
# 3. Find a prior on the square for which the posterior mean lies where the posterior has no mass.
#
# Cited works are on the page [References](../book/references.md).
