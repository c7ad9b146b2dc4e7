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
# # Soteria: leave one layer out
#
# ```{admonition} In short
# :class: tip
# - **Claim.** Soteria hides part of the gradient of one layer. An attacker who leaves that layer
#   out of the likelihood sees as much as if there were no defense.
# - **Paper.** Section 6, Figure 2 of {cite}`balunovic2022bayesian`; the defense is
#   {cite}`sun2021soteria`'s.
# - **Smaller than the paper's run.** Fewer images, iterations and checkpoints, unless the profile
#   is `paper`; every table says how many.
# ```

# %% tags=["parameters"]
profile = "smoke"  # smoke (digits, seconds), quick (CIFAR-10, minutes) or paper
device = "auto"  # auto, cpu or cuda
seed = 0  # of the starts and the network
results = ""  # folder of the records; empty: one below _build/results
dataset = ""  # one of digits, mnist, fashion_mnist or cifar10; empty: the profile's
network = "convbig"  # one of convbig, lenet or cnn
rate = 0.8  # share of the representation's features that is hidden, in [0, 1)
train_steps: list[int] = []  # of networks, at rate 0.1; empty: the profile's
slow_steps: list[int] = []  # of those trained at 0.0001; empty: the profile's
images = 0  # evaluated images; 0: the profile's
steps = 0  # iterations of each attack; 0: the profile's
restarts = 0  # starts of each attack; the most probable is kept; 0: the profile's

# %% tags=["hide-input"]
from dataclasses import replace
from functools import cache

import pandas as pd
from IPython.display import Markdown, display

import gradleak as gl

PROFILES = {
    "smoke": dict(dataset="digits", images=6, tuning=2, shown=4, swept=4, steps=30,
                  restarts=1, train_steps=[0, 50], slow_steps=[],
                  weights=[0.3, 3.0], rates=[0.0, 0.8, 0.95]),
    "quick": dict(dataset="cifar10", images=16, tuning=3, shown=6, swept=6,
                  steps=100, restarts=1, train_steps=[0, 10, 100, 1000],
                  slow_steps=[1000], weights=[0.01, 0.1, 1.0],
                  rates=[0.0, 0.5, 0.8, 0.95]),
    "paper": dict(dataset="cifar10", images=100, tuning=8, shown=8, swept=20,
                  steps=4000, restarts=1,
                  train_steps=[0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000,
                               5000, 10000],
                  slow_steps=[10, 100, 1000, 10000],
                  weights=[0.003, 0.03, 0.1, 0.3, 1.0],
                  rates=[0.0, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95]),
}  # fmt: skip
page = gl.experiment.page("soteria", PROFILES, globals())
size, few = page.size, page.few
LAYERS = {"convbig": "dense2", "lenet": "dense", "cnn": "dense2"}

# %% [markdown]
# ## The question
#
# Deep in the network, an image has become a vector of features, its representation $r(x)$. The
# weight behind it has a gradient with one column for each feature. Some features tell more about
# the image than others, for what they add to the prediction; Soteria sets columns to zero until
# inverting the representation should fail. Everything else is released as it is.

# %%
model, layer = page.network(*LAYERS), LAYERS[network]  # whose gradient is masked
soteria = gl.Soteria(layer, rate)
score = soteria.score(model, few.x.to(page.device)).cpu()
hidden = soteria.hidden(model, few.x.to(page.device)).cpu()
live = score > 0
Markdown(
    f"The representation of `{network}` in front of `{layer}` has "
    f"**{score.shape[1]} features**. On {len(few)} images of {size.dataset}, "
    f"{100 * live.float().mean():.0f} % of them depend on the image at all; the "
    f"others are dead. Soteria at rate {rate:g} hides "
    f"{100 * hidden.float().mean():.1f} % of all features: the dead ones first, "
    f"then {100 * hidden[live].float().mean():.1f} % of those that live."
)

# %% [markdown]
# ## The equation
#
# The score of a feature is how fast it changes with the image, relative to its size. Those with the
# smallest scores are hidden: with $q$ the quantile at the pruning rate,
#
# $$
# s_f(x) = \frac{\norm{\partial r_f / \partial x}_2}{|r_f + 0.1|}, \qquad
# M_f(x) = \mathbf 1\bigl[\, s_f(x) \ge q \,\bigr].
# $$ (eq-score)
#
# Let $W$ be the masked weight and $\nabla_{\setminus W}$ the gradient of everything else. What is
# released has no noise, so its density is a point mass, one factor for each part:
#
# $$
# p(g \mid x) = \delta\bigl(g_{\setminus W} - \nabla_{\setminus W}(x)\bigr) \;
#               \delta\bigl(g_W - \nabla_W(x)\, M(x)\bigr).
# $$ (eq-soteria)
#
# An attacker who compares $g_W$ with the whole $\nabla_W(x)$ believes something false: no image
# explains the columns of zeros. The first factor is untouched. Leaving out the second throws away
# what survived of one layer, and nothing else.
#
# A climb needs a slope and a point mass has none. As published, the attack believes in the
# direction of what it compares: $\log p(g \mid x) = c \cos(g, \nabla(x))$, with a large $c$.
#
# ## Ten lines

# %%
client = gl.Client(model, soteria)
view = client.release(few.x[:1], few.y[:1])  # all that the server sees
weight, cosine = f"{layer}.weight", gl.Direction(1e4)
prior = gl.Sum((gl.TotalVariation(size.weights[1], power=2), gl.Box()))  # p(x)
belief = gl.Ignore(weight, then=cosine)  # p(g | x), without the layer
adversary = gl.Adversary(replace(client, defense=belief), prior, page.search)
attack = adversary.attack(view, seed=seed)
f"PSNR {gl.psnr(attack.x.cpu(), few.x[:1]).item():.1f} dB"

# %% [markdown]
# ## Five arms
#
# Undefended is the ceiling. The plain attack does not know of the defense. One adaptive attack
# drops the layer; another matches what survived of it, as the columns of zeros are there for the
# server to see. The last arm is the control: magnitude pruning at the same rate, in all layers,
# attacked by an adversary that matches what survived.


# %%
def arms(rate):
    """{name: (what the client does, what the adversary believes)}."""
    soteria, pruning = gl.Soteria(layer, rate), gl.MagnitudePruning(rate)
    return {
        "undefended": (gl.NoDefense(), cosine),
        "plain": (soteria, cosine),
        "drop the layer": (soteria, gl.Ignore(weight, cosine)),
        "mask-aware": (soteria, gl.Survivors(weight, cosine)),
        "pruning, mask-aware": (pruning, gl.Survivors(tuple(view.g.layers), cosine)),
    }


held = {name: [*map(repr, pair)] for name, pair in arms(rate).items()}
pd.DataFrame(held, ["client", "belief"]).T

# %% [markdown]
# ## The same chances for all
#
# Every arm chooses the weight of its prior by the same trials, on training images that are never
# evaluated, at every checkpoint. Networks are trained without the defense, as in the paper, with
# plain SGD and batches of 32: at learning rate 0.1, and at 0.0001, which is what the published code
# really used.

# %%
NETS = [dict(lr=0.1, train_step=t) for t in size.train_steps]
NETS += [dict(lr=1e-4, train_step=t) for t in size.slow_steps if t]


@cache
def trained(lr):
    """{training steps: network}, trained without a defense; once."""
    wanted = [net["train_step"] for net in NETS if net["lr"] == lr]
    return page.networks(gl.Client(model), wanted, lr=lr, seed=seed)


def trial(images, arm, weight, lr, train_step, rate=rate, keep=()):
    """One arm against one network."""
    truth, belief = arms(rate)[arm]
    client = gl.Client(trained(lr)[train_step], truth)
    prior = gl.Sum((gl.TotalVariation(weight, power=2), gl.Box()))
    believed, starts = replace(client, defense=belief), size.restarts
    held = gl.Adversary(believed, prior, page.search, restarts=starts)
    labels = dict(defense=type(truth).__name__, adversary=arm, rate=rate,
                  weight=weight, model=network, lr=lr,
                  train_step=train_step)  # fmt: skip
    return gl.Trial(client, held, images, labels, seed, keep)


chosen = page.tuned(trial, [{"arm": a, **net} for net in NETS for a in arms(rate)],
                    weight=size.weights)  # fmt: skip
table = page.run([trial(page.evaluated, **c, keep=few.index) for c in chosen])

# %% tags=["hide-input"]
alone = gl.prior_only(client, prior, optimizer=page.search, restarts=size.restarts)
labels = dict(defense="any", adversary="prior alone", rate=rate,
              weight=size.weights[1], model=network, lr=0.1,
              train_step=0)  # fmt: skip
alone = page.run([gl.Trial(gl.Client(model), alone, page.evaluated, labels, seed)])
public = page.train.take(range(min(5000, len(page.train))))
floors = page.floors(public, prior_alone=alone.psnr)
floor = max(v.mean for v in floors.values())


def called(rows):
    """The rows, with what tables call their network."""
    names = [f"{t} steps" if t else "untrained" for t in rows.train_step]
    pairs = zip(names, rows.lr, strict=True)
    names = [n if lr == 0.1 else f"{n}, lr {lr:g}" for n, lr in pairs]
    return rows.assign(network=names)


table = called(table)
fast = table[table.lr == 0.1].assign(step=lambda t: t.train_step.astype(str))

# %% [markdown]
# ## The figure

# %%
frames = gl.figures.frames(few, fast, page.records, "train_step")
frames = {"learning rate 0.1": frames}
gl.figures.strength(frames, name="training steps", choose="trained at")

# %% [markdown]
# Fixed test images, and what each arm reads off the network; under each picture its PSNR in dB.
#
# ## Across training

# %%
across = "training steps at learning rate 0.1"
lines = gl.figures.means(fast, "adversary", "step")
gl.figures.curves(lines, across=across, floor=floor, log=False)

# %%
ssim = gl.metrics.floors(page.evaluated.x, public.x, gl.ssim)
low = max(v.mean for v in ssim.values())
lines = gl.figures.means(fast, "adversary", "step", "ssim")
gl.figures.curves(lines, across=across, unit="SSIM", floor=low, log=False)

# %% [markdown]
# And as a table, with the test accuracy of each network beside it. Soteria is applied to released
# gradients only, so it leaves the accuracy as it is; what it leaves of the privacy is what counts.

# %%
means = gl.figures.means(table, "network", "adversary")
networks = [(net, trained(net["lr"])[net["train_step"]]) for net in NETS]
accuracy = page.accuracies(networks, model=network, model_seed=seed)
accuracy = dict(zip(means, accuracy.accuracy, strict=True))
display(gl.figures.table(means, floor=floor))
words = {name: f"{value:.3f}" for name, value in accuracy.items()}
display(pd.DataFrame({"test accuracy": words}).T)
Markdown(page.caption(
    f"`{network}` by training steps (lr 0.1 unless said), rate {rate:g}", floors,
    len(size.weights),
))  # fmt: skip

# %% [markdown]
# ## Is dropping the layer as good as no defense?
#
# The same images under both, one by one: each arm minus the undefended attack.

# %%
differences = gl.figures.compared(table, "adversary", "network", "undefended")
gl.figures.differences(differences)

# %% [markdown]
# A star marks what differs from zero after Holm's correction for the whole table.
#
# ### On more images
#
# The same procedure in the profile `paper`, as far as it was run: from the records that are
# committed beside this page.


# %%
def show(rows):
    """Means and differences."""
    rows = called(rows)
    display(gl.figures.table(gl.figures.means(rows, "network", "adversary")))
    pairs = gl.figures.compared(rows, "adversary", "network", "undefended")
    display(gl.figures.differences(pairs))


page.elsewhere(show, rate=rate, adversary=list(arms(rate)))

# %% [markdown]
# ## The pruning rate
#
# The first network again, at other rates. Each arm keeps the prior that it chose at the table's
# rate, so the plain attack brings one that is too strong for a small rate. As long as the rate is
# below the share of dead features, nothing that was there is hidden.

# %%
swept = page.test.take(range(size.swept))
first = [c for c in chosen if NETS[0].items() <= c.items()]


def at_rate(some):
    """Every arm at one pruning rate, on the swept images."""
    own = [{**c, "rate": some} for c in first if c["arm"] != "undefended"]
    bare = [c for c in first if c["arm"] == "undefended"]
    return page.run([trial(swept, **c, keep=swept.index) for c in bare + own])


sweep = pd.concat([at_rate(some).assign(rate=some) for some in size.rates])
lines = gl.figures.means(sweep, "adversary", "rate")
display(gl.figures.curves(lines, across="pruning rate", floor=floor, log=False))
Markdown(f"Mean PSNR over {len(swept)} images; the network is {next(iter(means))}.")

# %% [markdown]
# ## The strength slider


# %%
def strength(some):
    """The slider's pictures at one rate."""
    shown = page.test.take(range(min(4, len(swept))))
    arms = gl.figures.arms(at_rate(some))
    return gl.figures.frame(f"{some:g}", shown, arms, page.records)


frames = {"Soteria and pruning": [strength(some) for some in size.rates]}
gl.figures.strength(frames, name="pruning rate", live=lambda _, some: strength(some))

# %% [markdown]
# ## What to read off it

# %% tags=["hide-input"]
fast_ones = list(means)[: len(size.train_steps)]
start, end = fast_ones[0], fast_ones[-1]
slow = [
    f"{name}: accuracy {accuracy[name]:.3f}, undefended {row['undefended']:.1f} dB"
    for name, row in means.items() if "lr" in name
]  # fmt: skip
failed = [name for name, row in means.items() if row["undefended"].mean < floor]


def gap(arm, name):
    """One arm minus the undefended attack, in words."""
    return gl.experiment.said(differences, f"{arm} − undefended", name)


Markdown(f"""
Minus the undefended attack, in dB with 95 % intervals:

- **Dropping the layer.** {gap("drop the layer", start)} ({start}) and
  {gap("drop the layer", end)} ({end}).
- **Matching what survived.** {gap("mask-aware", start)} ({start}) and
  {gap("mask-aware", end)} ({end}).
- **Not knowing.** {gap("plain", start)} ({start}) and {gap("plain", end)} ({end}).
  That is all the protection there is: the attacker's ignorance.
- **Pruning all layers instead.** {gap("pruning, mask-aware", start)} ({start}).

Training hides too: the undefended attack goes from
{means[start]["undefended"].mean:.1f} to {means[end]["undefended"].mean:.1f} dB, with
the floor at {floor:.1f} ({", ".join(failed) or "no network"} below it). At the
published code's learning rate hardly anything is trained:
{"; ".join(slow) or "not run here"}; untrained,
{accuracy[start]:.3f} and {means[start]["undefended"]:.1f} dB.

All attacks of this page took {page.minutes}.
""")

# %% [markdown]
# ## What did not reproduce, and why
#
# - **Learning rates.** The published scripts mean to train at 0.1. A scheduler that divides it
#   before the first step leaves 0.0001, so their networks "after $k$ steps" have hardly moved. Both
#   are shown above.
# - **Ties.** Where more features are dead than are to be hidden, the published threshold is zero
#   and nothing at all is masked. Here the share is kept, though hiding the dead hides nothing.
# - **Iterations.** The published attack takes 4000 iterations, as in the profile `paper`; here
#   {eq}`eq-soteria` is climbed for as many as the table says.
# - **Which columns are zero depends on the image too**, by {eq}`eq-score`. No attack here uses
#   that: a mask that is a step function has no slope.
#
# ## Exercises
#
# 1. Run `gradleak run soteria -p rate=0.99`. Does the mask-aware attack still gain over dropping?
# 2. Soteria could mask the first layer instead. Which arm would suffer, and what would be left to
#    match?
# 3. Believe in `gl.Ignore("dense2", ...)`, bias and all. How much was the bias worth?
#
# Cited works are on the page [References](../book/references.md).
