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
# # PRECODE: a random bottleneck, read off exactly
#
# ```{admonition} In short
# :class: tip
# - **Claim.** A variational bottleneck makes gradients random. Where the first layer is linear with
#   a bias, the image is still a ratio of two gradients. Where it is convolutional, the random
#   numbers are: they can be read off, and are no secret any more.
# - **Paper.** Section 6, Figure 2 of {cite}`balunovic2022bayesian`; the defense is
#   {cite}`scheliga2022precode`'s. The latent's ratio and the beliefs about it go beyond both.
# - **Smaller than the paper's run.** Fewer images, iterations and checkpoints, unless the profile
#   is `paper`; every table says how many.
# ```

# %% tags=["parameters"]
profile = "smoke"  # smoke (digits), quick (CIFAR-10, minutes) or paper (a GPU)
device = "auto"  # auto, cpu or cuda
seed = 0  # of the latents, the starts and the networks
results = ""  # folder of the records; empty: one below _build/results
dataset = ""  # one of digits, mnist, fashion_mnist or cifar10; empty: the profile's
bottleneck = 256  # dimensions of the latent, at least 1
activation = "tanh"  # of the convolutional variant; one of ReLU, tanh or sigmoid
kl_weight = 0.003  # of the KL term in training
train_steps: list[int] = []  # of the dense networks; empty: the profile's
later: list[int] = []  # of the convolutional one; empty: the profile's
images = 0  # evaluated images; 0: the profile's
steps = 0  # iterations of each search; 0: the profile's
restarts = 0  # starts of each search, of which the best is kept; 0: the profile's

# %% tags=["hide-input"]
from dataclasses import replace
from functools import cache, partial

import pandas as pd
import torch
from IPython.display import Markdown, display
from torch import nn

import gradleak as gl
from gradleak.attacks import FreshLatents, Joint, Known, ReadOff, StandardNormal
from gradleak.defenses import Latent, VariationalLoss, precode_ffn, precode_lenet

pd.options.display.float_format = "{:.3g}".format
PROFILES = {
    "smoke": dict(dataset="digits", images=6, tuning=2, shown=4, swept=4, steps=40,
                  restarts=1, train_steps=[0, 20], later=[0, 20],
                  weights=[0.01, 0.1], sizes=[8, 64], kl_weights=[0.003, 1.0]),
    "quick": dict(dataset="cifar10", images=20, tuning=3, shown=6, swept=6,
                  steps=200, restarts=1, train_steps=[0, 100, 500, 1000, 2000],
                  later=[0, 10, 100], weights=[0.001, 0.01, 0.1],
                  sizes=[16, 64, 256, 1024], kl_weights=[0.0, 0.003, 0.1, 1.0]),
    "paper": dict(dataset="cifar10", images=100, tuning=8, shown=8, swept=20,
                  steps=1000, restarts=1, train_steps=[0, *range(100, 5001, 100)],
                  later=[0, 10, 100, 500, 1000, 5000],
                  weights=[0.0003, 0.001, 0.01, 0.1], sizes=[16, 64, 256, 1024],
                  kl_weights=[0.0, 0.003, 0.1, 1.0]),
}  # fmt: skip
page = gl.experiment.page("precode", PROFILES, globals())
size, few, evaluated, shape = page.size, page.few, page.evaluated, page.test.shape
ACTIVATIONS = {"ReLU": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid}
activation = gl.names.choose("activation", activation, ACTIVATIONS)

# %% [markdown]
# ## The question
#
# An encoder turns the image into features $h$. The bottleneck draws
#
# $$
# v = \mu(h) + s(h) \odot z, \qquad z \sim \mathcal N(0, I),
# $$ (eq-bottleneck)
#
# with linear layers for $\mu$ and $\log s^2$, and a decoder classifies $v$. The client draws a
# fresh $z$ for each gradient and keeps it. Gradients of the bottleneck and of all that comes after
# it are random, and through the chain rule so is the slope that reaches the layers before.
#
# ## The equation
#
# What is released depends on the image and on the latent, so there is one more unknown:
#
# $$
# p(g \mid x) = \int p(g \mid x, z)\, p(z)\, dz.
# $$ (eq-precode)
#
# But a linear layer with weight $W$, bias $c$ and input $a$ has, for one example, the gradients
# $\nabla_W = \delta a^\top$ and $\nabla_c = \delta$. Whatever $\delta$ is, and however random,
#
# $$
# a = \frac{(\nabla_W)_k}{(\nabla_c)_k} \quad \text{for any unit } k \text{ with } \delta_k \ne 0.
# $$ (eq-ratio)
#
# ## Ten lines


# %%
def built(build, activation="ReLU", width=bottleneck):
    """A network with a bottleneck, untrained."""
    kind = ACTIVATIONS[activation]
    net = build(shape, page.test.classes, kind, size=width, seed=seed)
    return net.to(page.device)


hides = Latent(bottleneck, shape)  # draws z
client = gl.Client(built(precode_ffn), transform=hides)
view = client.release(few.x, few.y, seed=seed, key=few.index)  # all a server sees
x_hat = gl.attacks.FirstLayer().attack(view).x.cpu()  # the ratio, no search
f"largest error of a pixel: {(x_hat - few.x).abs().max():.1e}"

# %% [markdown]
# ## The dense network: exact at every step of training
#
# The network that the paper attacks begins with a dense layer of 500 units. It is trained as
# published, by Adam at 0.005 with weight decay, batches of 32 and a fresh latent for each image;
# the loss is cross-entropy plus the KL term.

# %%
adam = partial(torch.optim.Adam, weight_decay=1e-5)
middle = size.train_steps[len(size.train_steps) // 2]


@cache
def trained(build, activation, steps, loss=VariationalLoss(kl_weight)):
    """{training steps: network}, trained with its bottleneck; once."""
    client = gl.Client(built(build, activation), loss=loss, transform=hides)
    return page.networks(client, steps, optimizer=adam, lr=0.005, seed=seed)


def read_off(network, images=evaluated, defense=gl.NoDefense()):
    """What the ratio finds, its largest errors, and whether any unit is active."""
    client = gl.Client(network, defense, transform=Latent(network.size, shape))
    view = client.release(images.x, images.y, seed=seed, key=images.index)
    x_hat = gl.attacks.FirstLayer(torch.inf).attack(view).x.cpu()
    error = (x_hat - images.x).abs().amax((1, 2, 3))
    return x_hat, error, view.g["encoder.dense1.bias"].any(1).cpu()


def exactness(network):
    """What the tables say of a dense network."""
    _, error, active = read_off(network)
    some = page.test.take(range(len(page.test))[:2000])
    seen = hides(some.x, [(seed, i) for i in some.index])
    return {
        "images below 1e-4": (error < 1e-4).sum().item(),
        "images without an active unit": (~active).sum().item(),
        "largest error of the others": error.where(active, 0).max().item(),
        "median error": error.median().item(),
        "accuracy": gl.train.accuracy(network, replace(some, x=seen)),
    }


networks = {(name, step): network for name in ACTIVATIONS for step, network in
            trained(precode_ffn, name, tuple(size.train_steps)).items()}  # fmt: skip
exact = pd.DataFrame({at: exactness(network) for at, network in networks.items()}).T
exact = exact.rename_axis(["activation", "steps"])
errors = exact["largest error of the others"].unstack(0)[list(ACTIVATIONS)]
axis = errors.plot(marker="o", logy=True, figsize=(7.2, 2.8), ylabel="largest error",
                   color=gl.figures.COLORS[:3])  # fmt: skip
_ = axis.axhline(1e-4, color="0.4", linestyle="--", linewidth=1)

# %%
wanted = [size.train_steps[0], middle, size.train_steps[-1]]
display(exact.query("steps in @wanted"))
all_of = (exact["images below 1e-4"] == size.images).sum()
Markdown(f"{all_of} of {len(exact)} networks: all {size.images} images below 1e-4.")

# %% [markdown]
# An error is that of an image's worst pixel in [0, 1], in float32; the figure shows the largest of
# the images with an active unit, by training steps, and 1e-4 as a dashed line. Accuracy is on up to
# 2000 test images, a latent drawn for each. The table leaves out checkpoints in between.

# %% [markdown]
# The random bottleneck comes after the layer that gives the image away. The exceptions are images
# for which some later layer of ReLUs is closed altogether: then no gradient at all reaches the
# first layer, and nothing that was sent depends on the image. Ten images, as the server
# reads them off one gradient each, from the ReLU network in the middle of the table:

# %%
network = networks["ReLU", middle]
x_hat, error, _ = read_off(network)
display(gl.figures.images(evaluated.x[:10], x_hat[:10], labels=["$x$", "read off"]))
Markdown(f"Largest errors: {', '.join(f'{e:.0e}' for e in error[:10].tolist())}.")

# %% [markdown]
# ## More than one example, and noise
#
# The ratio needs one example and no noise. A client that averages over several releases a mixture
# of its images, and the rows of the gradient disagree about it: their residual says so.

# %%
seen = hides(evaluated.x, [(seed, i) for i in evaluated.index])
mixed, noised = {}, {}
for batch in [b for b in (1, 2, 4, 8) if b <= size.images]:
    count = size.images // batch
    joined, x, y = (v[: count * batch].unflatten(0, (count, batch)).to(page.device)
                    for v in (seen, evaluated.x, evaluated.y))  # fmt: skip
    g = gl.gradient(network, joined, y)
    who = g["encoder.dense1.bias"].any(1).nonzero().flatten()
    found = gl.attacks.layer_input(g.rows(who), "encoder.dense1")
    x_hat = network.encoder.normalize.inverse(found.a.view(-1, *shape))
    scores = torch.stack([gl.psnr(x_hat, x[who, b]) for b in range(batch)])
    mixed[f"batch of {batch}"] = {
        "PSNR to the nearest (median, dB)": scores.amax(0).median().item(),
        "residual (median)": found.residual.median().item(),
        "clients without an active unit": count - len(who),
    }
for sigma in (0.0, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2):
    defense = gl.GaussianNoise(sigma) if sigma else gl.NoDefense()
    scores = gl.psnr(read_off(network, defense=defense)[0], evaluated.x)
    noised[f"noise {sigma:g}"] = {"PSNR": gl.interval(scores.clamp(max=99.0))}
floors = page.floors(page.train.take(range(len(page.train))[:2000]))
floor = max(v.mean for v in floors.values())
display(pd.DataFrame(mixed), gl.figures.table(noised, floor=floor))

# %% [markdown]
# Above, clients that average over several examples; below, Gaussian noise on every entry of the
# gradient of one example: PSNR in dB, 99 standing for all above. The ratio is no match for noise: a
# dagger marks what is below the better of mid-grey and the mean training image.

# %% [markdown]
# ## The convolutional variant: the latent is no secret
#
# A convolution shares its weight between places, so {eq}`eq-ratio` does not hold for the first
# layer. It does for the later ones. The decoder's first layer gives $v$, the bottleneck's own
# layers give $h$, and {eq}`eq-bottleneck` solves for the latent:
#
# $$
# z = \bigl(v - \mu(h)\bigr) / s(h).
# $$ (eq-latent)

# %%
convs = trained(precode_lenet, activation, tuple(size.later))
begin, end = size.later[0], size.later[-1]
client = gl.Client(convs[begin], transform=hides)
view = client.release(few.x, few.y, seed=seed, key=few.index)
z = gl.attacks.latent(view.g, client.model).cpu()
drawn = client.transformed(few.x, seed=seed, key=few.index)[:, -bottleneck:]
f"largest error of a latent: {(z - drawn).abs().max():.1e}"

# %% [markdown]
# What is left is a search for the image. Five beliefs about the latent, with the same search, prior
# and budget:
#
# | belief | about the latent |
# | --- | --- |
# | plain | there is none: $z = 0$ |
# | ignore | $z = 0$, and the bottleneck and all behind it are left out of the comparison |
# | joint | unknown, searched for together with the image under $\mathcal N(0, I)$ |
# | marginal | averaged over, with fresh samples at every step |
# | read off | known, by {eq}`eq-latent` |
#
# and, as a ceiling, the same network without the random part: its clients draw $z = 0$. All of them
# compare the direction of each parameter's gradient by itself, since the last layers' gradients
# would drown the others.

# %%
cosine = gl.LayerDirections(1000.0)
search = dict(optimizer=page.search, restarts=size.restarts)
MIDDLE = ("bottleneck.mean", "bottleneck.log_variance")
BEHIND = ("decoder.dense", "decoder.last")
BELIEFS = {  # the latent, the belief about g, and what the search averages over
    "plain": (Known(0.0), cosine, None),
    "ignore": (Known(0.0), gl.Ignore(MIDDLE + BEHIND, cosine), None),
    "joint": (StandardNormal(), cosine, None),
    "marginal": (Known(0.0), cosine, FreshLatents(4, bottleneck)),
    "read off": (ReadOff(), cosine, None),
    "no randomness": (Known(0.0), cosine, None),
}


def trial(images, arm, weight, train_step, network=None, noise=0.0, keep=()):
    """One belief against the convolutional variant."""
    (latent, belief, ball), network = BELIEFS[arm], network or convs[train_step]
    defense = gl.GaussianNoise(noise) if noise else gl.NoDefense()
    drawn = Latent(network.size, shape, scale=0.0 if arm == "no randomness" else 1.0)
    client = gl.Client(network, defense, transform=drawn)
    prior = Joint(gl.Sum((gl.TotalVariation(weight), gl.Box())), latent, shape)
    held = gl.Adversary(replace(client, defense=belief), prior, **search, ball=ball)
    labels = dict(defense=f"noise {noise:g}" if noise else "PRECODE", adversary=arm,
                  weight=weight, model="precode_lenet", activation=activation,
                  width=network.size, train_step=train_step)  # fmt: skip
    return gl.Trial(client, held, images, labels, seed, keep)


cells = [dict(arm=arm, train_step=t) for t in size.later for arm in BELIEFS]
chosen = page.tuned(trial, cells, weight=size.weights)
keep = range(max(size.shown, size.swept))
table = page.run([trial(evaluated, **cell, keep=keep) for cell in chosen])
gl.figures.gallery(few, gl.figures.arms(table, train_step=begin), page.records)


# %%
show = partial(gl.figures.tables, by="adversary", across="train_step",
               against="plain")  # fmt: skip
differences = show(table, floor=floor)
Markdown(page.caption(f"bottleneck {bottleneck}", floors, len(size.weights)))

# %% [markdown]
# Above, means by training steps; below, each belief minus the plain one, image by image: a star
# where that differs from zero after Holm's correction.
#
# ### On more images
#
# The same procedure in the profile `paper`, as far as it was run: from the records that are
# committed beside this page.

# %%
page.elsewhere(show, defense="PRECODE", width=bottleneck, activation=activation)

# %% [markdown]
# ## The strength slider
#
# The width of the bottleneck: how many random numbers stand between the image and the decoder.
# Above, the dense network, read off; below, the convolutional one, searched with the latent read
# off. Both are untrained.

# %%
swept, frames = page.test.take(range(size.swept)), []
weight = chosen[list(BELIEFS).index("read off")]["weight"]  # of the first network
for width in size.sizes:
    ratio = read_off(built(precode_ffn, width=width), swept)[0].clamp(0, 1)
    scores = gl.psnr(ratio, swept.x).clamp(max=99.0).tolist()
    conv = built(precode_lenet, activation, width)
    rows = page.run([trial(swept, "read off", weight, 0, conv, keep=swept.index)])
    frames.append(gl.figures.Frame(str(width), [
        gl.figures.Row("private x", swept.x),
        gl.figures.Row("dense: ratio", ratio, scores),
        gl.figures.found("convolutional: search", rows, page.records)]))  # fmt: skip
gl.figures.strength({"PRECODE": frames}, name="bottleneck width", choose="defense")

# %% [markdown]
# ## The weight of the KL term, and a slip in the published code
#
# The KL term keeps the latent's distribution near $\mathcal N(0, I)$: the heavier it is, the more
# the decoder is drowned in noise. The published code puts the log-variance in the mean's place, so
# that the mean is not regularised. Dense ReLU networks after the same training:

# %%
kinds = {"": gl.defenses.kl, ", slipped": gl.defenses.slipped_kl}
losses = {
    f"KL weight {share:g}{slip}": VariationalLoss(share, kl)
    for slip, kl in kinds.items() for share in size.kl_weights if share or not slip
}  # fmt: skip
dense = partial(trained, precode_ffn, "ReLU", (middle,))
rows = {name: exactness(dense(loss)[middle]) for name, loss in losses.items()}
pd.DataFrame(rows).T.sort_index().rename_axis(f"after {middle} training steps")

# %% [markdown]
# ## What would hold?
#
# Randomness that is drawn once and read off once protects nothing: every linear layer around the
# bottleneck tells its own input. Moving the bottleneck to the front makes it worse, as the layer
# for $\mu$ then reads the image itself. What the ratio cannot stand is noise on the gradient, as
# above, and a mean over many examples. The convolutional variant with a little Gaussian noise on
# every entry, attacked with the noise known and the latent joint (the ratio is gone):

# %%
noisy = [trial(swept, arm, weight, begin, noise=sigma)
         for sigma in (1e-4, 1e-3, 1e-2) for arm in ("plain", "joint")]  # fmt: skip
rows = gl.figures.means(page.run(noisy), "adversary", "defense")
display(gl.figures.table(rows, floor=floor))
Markdown(f"PSNR in dB over {len(swept)} images, after {begin} training steps.")

# %% [markdown]
# ## What to read off it


# %% tags=["hide-input"]
def gaps(t, said=partial(gl.experiment.said, differences)):
    """Each belief minus the plain one, in words."""
    return "; ".join(f"{row} {said(row, t)}" for row in differences)


relu = exact.loc["ReLU", "images below 1e-4"] >= 0.95 * size.images
Markdown(f"""
- **The dense network hides nothing.** At {relu.sum()} of {len(relu)} checkpoints
  with ReLU 95 % of the images are exact to 1e-4: no search, no label, no latent.
- **The latent can be read off**, so a belief that knows it is no oracle. PSNR after
  {begin} training steps: {gaps(begin)}.
- **After {end} training steps**: {gaps(end)}.

All searches of this page took {page.minutes}.
""")

# %% [markdown]
# ## What did not reproduce, and why
#
# - **Ignoring the stochastic layers.** Published evidence conflicts on it. The gradients of the
#   layers before the bottleneck are computed through the random sample, so leaving out the others
#   does not make them true for $z = 0$; the table shows what that costs here.
# - **The KL term.** The published code's slip is not reproduced, and shown above.
# - **The learning rate** falls by 5 % after each epoch as published; the runs here end in the
#   fourth epoch, and leave that out.
#
# ## Exercises
#
# 1. Run `gradleak run precode -p activation=ReLU`. The search fails, and so it does without
#    randomness: is that a defense?
# 2. Take the bias off the first layer. What can still be read off, up to what factor?
# 3. Read $h$ off the convolutional variant, and search for the image whose features are $h$. Is
#    that better than a search by cosine?
#
# Cited works are on the page [References](../book/references.md).
