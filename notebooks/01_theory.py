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
profile = "smoke"  # smoke (digits), quick (MNIST, minutes) or paper (1000 images)
device = "auto"  # auto, cpu or cuda
seed = 0  # of the noise, the starts and the network
results = ""  # folder of the records; empty: one below _build/results
dataset = ""  # one of digits, mnist, fashion_mnist or cifar10; empty: the profile's
network = "cnn"  # one of cnn, cnn2 or mlp
examples = 0  # images that the finite prior holds; 0: the profile's
images = 0  # attacked images, among those; 0: the profile's
steps = 0  # iterations of each attack; 0: the profile's
delta = 0.0  # radius of a success, in pixels; 0: the data set's

# %% tags=["hide-input"]
from functools import cache

import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown, display
from torch import nn

import gradleak as gl

pd.set_option("display.max_colwidth", None)
PROFILES = {
    "smoke": dict(dataset="digits", examples=200, scales=8, rounds=3, images=6,
                  steps=40, draws=20),
    "quick": dict(dataset="mnist", examples=1000, scales=20, rounds=5, images=20,
                  steps=100, draws=800),
    "paper": dict(dataset="mnist", examples=1000, scales=20, rounds=10, images=100,
                  steps=150, draws=800),
}  # fmt: skip
page = gl.experiment.page("theory", PROFILES, globals())
size, exact = page.size, gl.attacks.exact
delta = delta or {"digits": 2.0, "cifar10": 6.0}.get(size.dataset, 4.0)

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
torch.manual_seed(4)
flat = nn.Sequential(nn.Linear(2, 12), nn.Tanh(), nn.Linear(12, 2)).double()
with torch.no_grad():
    flat[0].weight.mul_(6)
    flat[0].bias.mul_(3)
point = torch.tensor([[0.3, 0.6]], dtype=torch.double)  # private
label, reach = torch.tensor([1]), 0.1


@cache
def believed(scale, log_prior=gl.Flat().log_prob, n=120):
    """p(x | g, y) after one release, on the square."""
    hidden = gl.Client(flat, gl.GaussianNoise(scale))  # p(g | x, y)
    g = hidden.release(point, label, seed=3).g  # all that the server sees
    return gl.attacks.grid.on_plane(
        lambda x: hidden.log_prob(g, x, label.expand(len(x))) + log_prior(x), n=n
    )


posterior = believed(0.2, n=200)
answers = {"MAP": posterior.mode, "optimum": posterior.best(reach)}
{name: round(posterior.within(at, reach), 3) for name, at in answers.items()}

# %% [markdown]
# These are the chances of a success, by the posterior itself, of two answers: the most probable
# point (maximum a posteriori, MAP), and the optimum of {prf:ref}`thm-optimal`.
#
# Now under two priors, at several
# noise scales, with the way that an attack climbs:


# %%
def needle_and_hill(x):
    """A needle that holds a twentieth of the prior's mass, and a hill."""
    needle = -(x - 0.25).square().sum(1) / (2 * 0.02**2) - 2 * np.log(0.02)
    hill = -(x - 0.65).square().sum(1) / (2 * 0.15**2) - 2 * np.log(0.15)
    return torch.logaddexp(needle + np.log(0.05), hill + np.log(0.95))


level = {f"noise {s}": believed(s) for s in (0.03, 0.1, 0.2, 0.5)}
peaked = {f"noise {s}": believed(s, needle_and_hill) for s in (0.1, 0.5, 1.0, 2.0)}
panels = {"prior: uniform": level, "prior: needle and hill": peaked}
gl.figures.planes(panels, point[0], torch.tensor([0.9, 0.95]), reach)

# %% [markdown]
# With little noise all answers agree. As it grows they part. The attack climbs to a most probable
# point, the nearest on its way. Is that the best answer?

# %%
chances = {name: plane.chances(reach) for name, plane in peaked.items()}
pd.DataFrame(chances).T.round(2)

# %% [markdown]
# The chance to be within 0.1, by the posterior itself. **The most probable point is not the best
# answer** once the needle is the mode but the hill has the mass.
#
# The same at more noise scales, to be moved. Black is the private point, red MAP, green the mean,
# blue the optimum. Darker is more probable, and each picture has its own greys. On the right stands
# the mass within $\delta$, which the optimum maximises.

# %% tags=["hide-input"]
priors = {"uniform": gl.Flat().log_prob, "needle and hill": needle_and_hill}
frames = {
    f"{k}, δ = {r}": [gl.figures.plane_frame(f"{s:g}", believed(s, p), point[0], r)
                      for s in (0.03, 0.1, 0.2, 0.5, 1.0, 2.0)]
    for k, p in priors.items() for r in (0.05, 0.1, 0.2)
}  # fmt: skip
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
model = page.network("cnn", "cnn2", "mlp")
client = gl.Client(model, gl.LaplaceNoise(0.1))
presets = {
    "Bayes": gl.bayes(client, gl.TotalVariation(3.0)),
    "DLG": gl.dlg(client),
    "L1": gl.l1(client),
    "Inverting Gradients": gl.inverting_gradients(client),
}
held = {name: (repr(a.belief), repr(a.prior)) for name, a in presets.items()}
pd.DataFrame(held, ["belief p(g | x, y)", "prior p(x)"]).T

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


class GaussianPrior(gl.Prior):
    """N(middle, spread^2) for each coordinate."""

    def log_prob(self, x):
        return -(x - middle).square().flatten(1).sum(1) / (2 * spread**2)


line, private = nn.Linear(16, 1, bias=False).double(), torch.manual_seed(seed)
truth = middle + spread * torch.randn(200, 16, generator=private).double()
search = gl.Adam(steps=1500, lr=0.05, decay=0.99)
rows = {}
for scale in (0.05, 0.2, 0.8):
    linear = gl.Client(line, gl.GaussianNoise(scale), loss=lambda out, y: out.mean())
    seen = linear.release(truth, torch.zeros(200, dtype=torch.long), seed=seed)
    found = gl.bayes(linear, GaussianPrior(), optimizer=search).attack(seen).x
    precision = scale**-2 + spread**-2
    closed = (seen.g["weight"][:, 0] / scale**2 + middle / spread**2) / precision
    error, mse = (found - closed).abs().max(), (found - truth).square().mean()
    rows[scale] = f"{error:.0e}", f"{mse:.5f}", f"{1 / precision:.5f}"
names = ["farthest from the closed form", "mean squared error", "bound"]
pd.DataFrame(rows, names).T.rename_axis("noise", axis=1)

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
listed = page.test.take(range(size.examples))
prior = exact.FinitePrior(listed.x, listed.y)
bare = gl.Client(model)
gradients = prior.gradients(bare)
law = exact.GaussianLaw.between(gradients)
one = law.products(2.0, law.noise(seed))  # each image releases once
truth = exact.posterior(law.gaussian(one, 2.0), prior.log_prob(prior.y))
best = exact.answer(truth, prior.near(0.0))
risk = exact.risk(best, truth, prior.near(0.0)).mean()
f"risk {risk:.2f} at noise 2 among {len(prior)} images"

# %% [markdown]
# ## The figure
#
# The exact risk of the best adversary and of others that believe something else, as the noise
# grows. All know the label and the list; they differ in what they believe about the defense, a mask
# over half of the entries with Gaussian noise.

# %%
SCALES = np.geomspace(0.05, 20, size.scales).round(4).tolist()
masks = [gl.RandomMask(0.5, gl.NoDefense(), seed=s).mask(gradients) for s in (0, 1)]
kept, otherwise = (gradients.masked(mask) for mask in masks)
masked = exact.GaussianLaw.between(kept, gradients, otherwise)
BELIEFS = {
    "Bayes": masked.gaussian,
    "noise ten times too small": lambda p, s: masked.gaussian(p, s / 10),
    "L2: no mask": lambda p, s: masked.gaussian(p, s, kind=1),
    "another mask": lambda p, s: masked.gaussian(p, s, kind=2),
    "cosine": lambda p, _: masked.cosine(p, kind=1),
}


def curves(law, beliefs, near):
    """{belief: {scale: risk with its interval}}."""
    risks = exact.risks(law, beliefs, prior, SCALES, near, size.rounds).items()
    return {k: {s: gl.interval(v) for s, v in line.items()} for k, line in risks}


exactly = curves(masked, BELIEFS, prior.near(0.0))
guess = 1 - len(prior.y.unique()) / len(prior)
display(gl.figures.curves(exactly, across="noise scale", unit="risk (0-1 loss)"))
Markdown(f"""{len(prior)} images of {size.dataset}, {size.rounds} rounds of noise;
network `{network}`, untrained. A blind guess among the images of the right label has
risk {guess:.2f}.""")

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
attacked = listed.take(range(min(size.images, size.examples)))


def trial(scale, radius=0.0):
    """The Bayes attack with total variation; a radius puts a ball around x."""
    noisy = gl.Client(model, gl.GaussianNoise(scale))
    ball = gl.Ball(radius) if radius else None
    held = gl.bayes(noisy, gl.TotalVariation(3.0), optimizer=page.search, ball=ball)
    labels = dict(scale=scale, radius=radius, model=network, model_seed=seed,
                  train_step=0)  # fmt: skip
    return gl.Trial(noisy, held, attacked, labels, seed, keep=attacked.index)


near, names = prior.near(delta), ["attack: total variation", "attack, then the list"]
found = page.run([trial(s) for s in (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)])
who = found["index"].tolist()
far = (found.mse * page.test.x[0].numel()) ** 0.5 > delta
answers = prior.nearest(page.records.images(found.id), prior.y[who])
lines = curves(law, {"exact: knows the list": law.gaussian}, near)
for k, risk in zip(names, (far, 1 - near[answers, who].numpy()), strict=True):
    lines |= gl.figures.means(found.assign(of=k, risk=risk), "of", "scale", "risk")
unit = f"risk (δ = {delta:g} pixels)"
display(gl.figures.curves(lines, across="noise scale", unit=unit))
dbs = [f"{v:.1f} dB at {s:g}" for s, v in found.groupby("scale").psnr.mean().items()]
Markdown(f"""Exact: {len(prior)} images of {size.dataset}, {size.rounds} rounds.
Attack: {len(attacked)} of them, {size.steps} iterations,
{page.records.facts()["hardware"]}; mean PSNR {", ".join(dbs)}. The third line
answers with the listed image nearest to what the attack found.""")


# %% tags=["hide-input"]
def reaches(line):
    """The noise scale at which a risk passes one half, by interpolation."""
    risk = np.maximum.accumulate([v.mean for v in line.values()])
    return np.exp(np.interp(0.5, risk, np.log(list(line)), np.nan, np.nan))


knows, climbs = reaches(lines["exact: knows the list"]), reaches(lines[names[0]])
said = f"""The attack fails half of the time from noise {climbs:.2g} on, the exact
adversary from {knows:.2g} on: **{knows / climbs:.0f} times as much**."""
if np.isnan(knows * climbs):
    said = "One of the two does not pass one half on these scales."
Markdown(f"**The gap.** {said}")

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

# %%
few = exact.FinitePrior(listed.x[:100], listed.y[:100])
slopes, same = few.gradients(bare), few.near(0.0)


def drawn(true, other):
    """The risks of the true belief and of another, over drawn releases."""
    risks = []
    for keys in torch.arange(size.draws).split(len(few)):
        x, y = few.x[: len(keys)], few.y[: len(keys)]
        g = gl.Client(model, true).release(x, y, seed=seed, key=keys).g
        log_p = [exact.log_likelihoods(b, slopes, g) for b in (true, other)]
        truth, held = (exact.posterior(p, few.log_prob(y)) for p in log_p)
        each = [exact.answer(belief, same) for belief in (truth, held)]
        risks.append(torch.stack([exact.risk(a, truth, same) for a in each]))
    right, wrong = torch.cat(risks, 1)
    return {"Bayes": gl.interval(right), "other": gl.interval(wrong)}


rows = {}
for scale in (1.0, 3.0, 6.0):
    laplace, gaussian = gl.LaplaceNoise(scale), gl.GaussianNoise(scale)
    rows[f"Laplace {scale:g}; the other believes L2"] = drawn(laplace, gaussian)
    rows[f"Gaussian {scale:g}; the other believes L1"] = drawn(gaussian, laplace)
display(gl.figures.table(rows, digits=2))
Markdown(f"""Risk (0-1 loss) among {len(few)} images of {size.dataset}, {size.draws}
releases each.""")

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
cells = gl.experiment.grid(scale=[0.01, 0.1, 0.3], radius=[0.0, 0.5, 2.0, 5.0])
balls = page.run([trial(**cell) for cell in cells])
shown = balls.assign(noise="noise " + balls.scale.map("{:g}".format),
                     ball="r = " + balls.radius.map("{:g}".format))  # fmt: skip
gains = gl.figures.tables(shown, "ball", "noise", against="r = 0")
every = [pair.difference for row in gains.values() for pair in row.values()]
ahead, behind = sum(v.low > 0 for v in every), sum(v.high < 0 for v in every)
Markdown(f"""Mean PSNR in dB over {len(attacked)} images of {size.dataset}, Gaussian
noise, {size.steps} iterations, 4 samples; below, paired differences from no ball. Of
these {len(every)} differences, **{ahead}** are clear of zero in favour of the ball
and **{behind}** against it.""")

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
