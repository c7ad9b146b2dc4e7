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
# # Samples: all that the gradient allows
#
# ```{admonition} In short
# :class: tip
# - **Claim.** A climb finds one image, samples show which others the gradient allows; their mean is
#   the answer with the least squared error. That needs a likelihood whose slope tells the truth,
#   and in a ReLU network it does not.
# - **Paper.** Section 4 of {cite}`balunovic2022bayesian` defines the best answer by the posterior,
#   the most mass within a distance, and approximates it by a climb.
# - **Small.** A denoiser trained for minutes, a handful of images and samples of each.
# ```

# %% tags=["parameters"]
profile = "smoke"  # smoke (digits, seconds), quick (MNIST, minutes) or paper (a GPU)
device = "auto"  # auto, cpu or cuda
seed = 0  # of the noise, the starts, the samples and the networks
results = ""  # folder of the records; empty: one below _build/results
dataset = ""  # one of digits, mnist, fashion_mnist or cifar10; empty: the profile's
scale = 0.0  # of the Gaussian noise; 0: the profile's
images = 0  # evaluated images; 0: the profile's
steps = 0  # iterations of the climb; 0: the profile's
learning = 0  # training steps of the denoiser; 0: the profile's
width = 0  # of the denoiser: channels at full resolution; 0: the profile's
samples = 0  # of each image; 0: the profile's
moves = 0  # of each sample; 0: the profile's

# %% tags=["hide-input"]
from dataclasses import replace
from functools import partial

from IPython.display import Markdown
from torch import nn

import gradleak as gl

PROFILES = {
    "smoke": dict(dataset="digits", images=4, tuning=2, scale=0.3, steps=40,
                  learning=150, width=8, samples=4, moves=40),
    "quick": dict(dataset="mnist", images=6, tuning=5, scale=0.3, steps=150,
                  learning=1500, width=16, samples=8, moves=300),
    "paper": dict(dataset="mnist", images=6, tuning=10, scale=0.3, steps=300,
                  learning=8000, width=32, samples=16, moves=500),
}  # fmt: skip
page = gl.experiment.page("samples", PROFILES, globals(), part_of="prior")
size, dataset, every = page.size, page.size.dataset, page.evaluated

# %% [markdown]
# ## The question
#
# With noise on the gradient, many images explain it. A climb with a [learned prior](06_prior.ipynb)
# returns one of them, the most probable. How different are the others, and is there a better answer
# in between?
#
# ## The equation
#
# Langevin dynamics climb the same two slopes and add noise at every move,
#
# $$
# x_{k+1} = x_k + \epsilon \, \nabla_x \bigl[ \log p(g \mid x_k, y) + \log p_s(x_k) \bigr]
#           + \sqrt{2 \epsilon} \; z_k, \qquad z_k \sim \mathcal N(0, I),
# $$ (eq-langevin)
#
# and so wander among all images that the gradient allows, $x \sim p(x \mid g, y)$, while $s$ falls
# {cite}`song2019generative`. From samples come the answers that a climb cannot give: their mean,
# which has the least squared error, and the sample with most others within a distance, which is the
# paper's own definition of the best answer.
#
# ## Ten lines

# %%
public = page.train.take(range(size.tuning, len(page.train)))  # nobody attacks these
denoise = gl.priors.trained_denoiser(
    public, page.records.folder / "models", steps=size.learning, width=size.width,
    seed=seed, device=page.device,
)  # fmt: skip
prior = gl.Learned(denoise, dataset, end=0.03)  # p(x)
langevin = gl.attacks.Langevin(size.moves, rate=0.3)
model = gl.models.cnn(page.test.shape, page.test.classes, seed).to(page.device)
client = gl.Client(model, gl.GaussianNoise(size.scale))
view = client.release(every.x[:1], every.y[:1], seed=seed)  # the server's view
sampler = gl.attacks.PosteriorSamples(client, prior, size.samples, langevin)
attack = sampler.attack(view, seed=seed)
f"PSNR of the mean {gl.psnr(attack.x.cpu(), every.x[:1]).item():.1f} dB"

# %% [markdown]
# ## Two networks
#
# Samples follow the slope of the likelihood, so it had better tell the truth. In a ReLU network it
# does not: gradients jump where a unit switches, and a slope does not show a jump. A climb gets
# over that with its large steps, a sampler drifts into images that the gradient excludes. Here for
# both kinds of network.

# %%
ACTIVATIONS = {"ReLU": nn.ReLU, "softplus": partial(nn.Softplus, 5)}


def attacks(client):
    """A climb, and what can be made of samples."""
    climb = gl.Sum((gl.Learned(denoise, dataset), gl.Box()))
    drawn = [gl.attacks.Sample(k) for k in range(min(2, size.samples))]
    answers = {f"sample {k + 1}": answer for k, answer in enumerate(drawn)}
    answers["mean of samples"] = gl.attacks.Mean()
    answers["most within 4"] = gl.attacks.MostWithin(4.0)
    found = {"climb": gl.bayes(client, climb, optimizer=page.search)}
    for name, answer in answers.items():
        found[name] = replace(sampler, client=client, answer=answer)
    return found


def trials(name):
    """All of them against one kind of network."""
    build = partial(gl.models.cnn, page.test.shape, page.test.classes, seed)
    net = build(ACTIVATIONS[name]).to(page.device)
    client = gl.Client(net, gl.GaussianNoise(size.scale))
    same = dict(how=f"{size.samples} samples, {size.moves} moves", scale=size.scale,
                defense="Gaussian", model=f"cnn, {name}")  # fmt: skip
    return [gl.Trial(client, attack, every, same | {"adversary": name}, seed,
                     every.index) for name, attack in attacks(client).items()]  # fmt: skip


answered = page.beside("answers")
table = answered.run([trial for name in ACTIVATIONS for trial in trials(name)])
differences = gl.figures.tables(table, "adversary", "model", against="climb")
Markdown(
    f"{len(every)} images of {dataset}, noise scale {size.scale:g}, {size.samples} "
    f"samples of {size.moves} moves each; the climb has {size.steps} iterations."
)

# %% [markdown]
# Below the means: image by image, each minus the climb.
#
# ## The figure

# %%
smooth = gl.figures.arms(table, model="cnn, softplus")
gl.figures.gallery(every, smooth, page.records)

# %% [markdown]
# On the smooth network: the samples differ where the gradient leaves a choice. And on ReLU:

# %%
gl.figures.gallery(every, gl.figures.arms(table, model="cnn, ReLU"), page.records)

# %% [markdown]
# ### On other images
#
# The same procedure, from the records that are committed beside this page.

# %%
answered.elsewhere(
    partial(gl.figures.tables, by="adversary", across="model", against="climb"),
    adversary=list(smooth),
)

# %% [markdown]
# ## What to read off it

# %% tags=["hide-input"]
means = gl.figures.means(table, "adversary", "model")["mean of samples"]


def worth(answer):
    """An answer minus the climb on each network, in words."""
    said = partial(gl.experiment.said, differences, f"{answer} − climb")
    return "; ".join(f"{said(f'cnn, {name}')} ({name})" for name in ACTIVATIONS)


Markdown(f"""
Minus the climb, in dB with 95 % intervals:

- **One sample.** {worth("sample 1")}.
- **Their mean.** {worth("mean of samples")}.
- **The most within a distance.** {worth("most within 4")}.

The mean of samples has {means["cnn, softplus"]:.1f} dB on the smooth network and
{means["cnn, ReLU"]:.1f} dB with ReLU.
""")

# %% [markdown]
# ## Where it falls short
#
# - **Samples need a likelihood whose slope can be trusted.** For ReLU networks that is open. What
#   [learns to climb](06b_learning_to_climb.ipynb) gets near the posterior mean there.
# - **Few samples, few moves.** Nothing here shows that the dynamics have mixed; the mean of a
#   handful is noisy itself.
#
# ## Exercises
#
# 1. Run `gradleak run samples -p scale=1.0`. Do the samples differ more?
# 2. Run it with `-p samples=1`. What is one sample worth, and why is it below the climb?
# 3. Answer with the sample that is most probable. Is that the climb's image?
#
# Cited works are on the page [References](../book/references.md).
