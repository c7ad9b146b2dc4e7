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
# # The prior: what knowing images is worth
#
# ```{admonition} In short
# :class: tip
# - **Claim.** An attack is as strong as its two beliefs. Who has seen images like these reads the
#   same gradient better than total variation does, and a noise scale that was chosen against total
#   variation is too small.
# - **Paper.** Section 4 of {cite}`balunovic2022bayesian` has $p(x)$ in its equation and total
#   variation in its code. What follows goes beyond it.
# - **Small.** Denoisers trained for minutes, few images; every table says how many.
# ```

# %% tags=["parameters"]
profile = "smoke"  # smoke (digits, seconds), quick (MNIST, minutes) or paper (a GPU)
device = "auto"  # auto, cpu or cuda
seed = 0  # of the noise, the starts and the networks
results = ""  # folder of the records; empty: one below _build/results
dataset = ""  # one of digits, mnist, fashion_mnist or cifar10; empty: the profile's
network = "cnn"  # untrained; one of cnn, cnn2 or mlp
scales: list[float] = []  # noise scales; empty: the profile's
images = 0  # evaluated images; 0: the profile's
steps = 0  # iterations of each attack; 0: the profile's
learning = 0  # training steps of each denoiser; 0: the profile's
width = 0  # of each denoiser: channels at full resolution; 0: the profile's
fitted = 0  # images that the mixture is fitted to; 0: the profile's
components = 0  # Gaussians of the mixture; 0: the profile's
missing = 7  # the class that one denoiser never sees

# %% tags=["hide-input"]
from dataclasses import replace
from functools import cache, partial

import pandas as pd
from IPython.display import Markdown, display

import gradleak as gl

SCALES = [0.03, 0.1, 0.3, 1.0, 3.0]
PROFILES = {
    "smoke": dict(dataset="digits", images=6, tuning=2, shown=4, steps=40,
                  learning=150, width=8, scales=[0.03, 0.3], components=5,
                  fitted=1000, weights=[1.0, 5.0], restarts=1),
    "quick": dict(dataset="mnist", images=20, tuning=5, shown=6, steps=150,
                  learning=1500, width=16, scales=SCALES, components=10, restarts=1,
                  fitted=10000, weights=[0.25, 1.0, 2.0, 4.0, 8.0]),
    "paper": dict(dataset="mnist", images=100, tuning=10, shown=6, steps=300,
                  learning=8000, width=32, scales=SCALES, components=20, restarts=1,
                  fitted=20000, weights=[0.25, 0.5, 1.0, 2.0, 4.0, 8.0]),
}  # fmt: skip
page = gl.experiment.page("prior", PROFILES, globals())
size, few, dataset = page.size, page.few, page.size.dataset
model = page.network("cnn", "cnn2", "mlp")
if missing not in range(page.test.classes):
    raise ValueError(f"missing={missing} is none of {page.test.classes} classes")

# %% [markdown]
# ## The question
#
# A client adds Gaussian noise to its gradient. The best attack is
#
# $$
# \hat x = \operatorname*{arg\,max}_x \; \log p(g \mid x) + \log p(x),
# $$ (eq-two)
#
# and the first term is known exactly. Everyone has put total variation in the second place: images
# are smooth. What if the attacker has seen images like these?
#
# ## The equation
#
# Nobody can write $p(x)$ down, but an attack needs its slope only, and a slope can be learnt. Let
# $D$ be the network that best removes noise of deviation $s$ from images. Then
# {cite}`vincent2011connection`
#
# $$
# \nabla_x \log p_s(x) = \frac{D(x; s) - x}{s^2},
# $$ (eq-slope)
#
# where $p_s$ is the density of images with that noise. The attack climbs {eq}`eq-two` with
# {eq}`eq-slope` as the slope of the prior, and $s$ falls from coarse to fine on the way
# {cite}`song2019generative,mardani2024variational`.

# %%
public = page.train.take(range(size.tuning, len(page.train)))  # nobody attacks these
without = f"{dataset} without {missing}"
SEEN = {
    dataset: lambda: public,
    "photographs": lambda: gl.data.photographs(page.test.shape, 10000, seed),
    without: lambda: public.take((public.y != missing).nonzero().flatten()),
}


@cache
def denoiser(seen):
    """D: a small U-Net, trained once on the images that the attacker has seen."""
    return gl.priors.trained_denoiser(
        SEEN[seen](), page.records.folder / "models", steps=size.learning,
        width=size.width, seed=seed, device=page.device,
    )  # fmt: skip


# %% [markdown]
# ## Ten lines

# %%
denoise = denoiser(dataset)  # what removes noise from images like these
client = gl.Client(model, gl.GaussianNoise(size.scales[0]))
view = client.release(few.x[:1], few.y[:1], seed=seed)  # all that the server sees
prior = gl.Sum((gl.Learned(denoise, dataset), gl.Box()))  # p(x)
attack = gl.bayes(client, prior, optimizer=page.search).attack(view, seed=seed)
f"PSNR {gl.psnr(attack.x.cpu(), few.x[:1]).item():.1f} dB"

# %% [markdown]
# ## The same chances for all
#
# Total variation, with and without the knowledge that pixels lie in a box, as the paper has it; a
# Gaussian mixture of whole images {cite}`zoran2011learning`, the classical midpoint, and the
# learned prior, both with the box. Three more learned priors are controls for later. Each chooses
# its strength by the same number of trials at each noise scale, on training images that are neither
# evaluated nor known to any prior.


# %%
@cache
def mixture():
    """Fitted once by scikit-learn."""
    pupils = public.take(range(min(size.fitted, len(public))))
    found = gl.GaussianMixture.fit(pupils, size.components, seed=seed)
    found.mixture.to(page.device)
    return found


def boxed(part):
    """A prior that knows that pixels lie in [0, 1], too."""
    return gl.Sum((part, gl.Box()))


def learned(seen, weight):
    """What a denoiser knows that has seen these images."""
    return boxed(gl.Learned(denoiser(seen), seen, weight=weight))


PRIORS = {  # p(x) by its strength
    "TV": lambda weight: boxed(gl.TotalVariation(weight)),
    "TV, no box": gl.TotalVariation,
    "mixture": lambda weight: boxed(replace(mixture(), weight=weight)),
    "learned": partial(learned, dataset),
    "learned, no gradient": partial(learned, dataset),
    "learned, photographs": partial(learned, "photographs"),
    f"learned, {without}": partial(learned, without),
}
DEFENSES = {
    "Gaussian": gl.GaussianNoise,
    "Laplace": gl.LaplaceNoise,
    "half masked": lambda scale: gl.RandomMask(0.5, gl.GaussianNoise(scale)),
}


# %%
def trial(images, adversary, scale, weight, defense="Gaussian", keep=()):
    """One prior against one defense."""
    client = gl.Client(model, DEFENSES[defense](scale))
    make = gl.prior_only if "no gradient" in adversary else gl.bayes
    held = make(client, PRIORS[adversary](weight), optimizer=page.search)
    labels = dict(defense=defense, adversary=adversary, scale=scale, weight=weight,
                  model=network, train_step=0)  # fmt: skip
    return gl.Trial(client, held, images, labels, seed, keep)


def measured(page, images, adversaries, scales, keep=(), **same):
    """Each with the strength that is best at each noise scale, image by image."""
    chosen, count = [], len(size.weights)
    for name in adversaries:
        doubled = [2.0 ** (k - count // 2) for k in range(count)]
        tried = size.weights if name.startswith("TV") else doubled
        cells = [dict(adversary=name, scale=scale, **same) for scale in scales]
        chosen += page.tuned(trial, cells, weight=tried)
    return page.run([trial(images, **c, keep=keep) for c in chosen])


four = ["TV", "TV, no box", "mixture", "learned"]
table = measured(page, page.evaluated, four, size.scales, page.evaluated.index)

# %% [markdown]
# ## The figure

# %%
frames = gl.figures.frames(few, table, page.records, "scale")
gl.figures.strength({"Gaussian noise": frames}, name="noise scale")

# %% [markdown]
# The same released gradients, read by four priors; PSNR in dB under each picture.
#
# ## Across noise scales

# %%
floors = page.floors(public.take(range(min(5000, len(public)))))
floor = max(v.mean for v in floors.values())
lines = gl.figures.means(table, "adversary", "scale")
ssim = gl.figures.means(table, "adversary", "scale", "ssim")
display(gl.figures.curves(lines, across="noise scale", floor=floor))
display(gl.figures.curves(ssim, across="noise scale", unit="SSIM"))
compare = partial(gl.figures.tables, by="adversary", across="scale")
differences = compare(table, against="TV", floor=floor)
Markdown(page.caption(
    f"`{network}` untrained, by scale of the Gaussian noise; denoisers of "
    f"{sum(p.numel() for p in denoise.parameters()):,} parameters, {size.learning} "
    "training steps", floors, len(size.weights),
))  # fmt: skip

# %% [markdown]
# Below the means: image by image, each minus total variation. A star marks what differs from zero
# after Holm's correction for the whole table.
#
# ### On other images
#
# The same procedure, from the records that are committed beside this page. On colour images the
# mixture is one Gaussian; there are more digits with the profile `paper`, its climbs and denoisers
# shortened for a CPU, as the commands say.


# %%
page.elsewhere(partial(compare, against="TV", ssim=True), defense="Gaussian",
               adversary=four)  # fmt: skip

# %% [markdown]
# ## Is it the gradient, or is it the prior?
#
# Four controls. The learned prior alone, with the gradient ignored. A prior that knows the wrong
# images, patches of photographs. A prior that has never seen one of the classes, on images of that
# class. The nearest of all images that the prior has seen. A fifth, whether the reconstruction
# tells the private image from others, is on the page [Learning to
# climb](06b_learning_to_climb.ipynb).

# %%
middle = [s for s in size.scales if 0.1 <= s <= 0.3] or size.scales
wrong = ["learned, no gradient", "learned, photographs"]
own = table[(table.adversary == "learned") & table.scale.isin(middle)]
rows = pd.concat([own, measured(page, page.evaluated, wrong, middle)])
against = compare(rows, against="learned", floor=floor)

# %%
page.elsewhere(partial(compare, against="learned"), defense="Gaussian", scale=middle,
               adversary=["learned", *wrong])  # fmt: skip

# %% [markdown]
# The unseen class: the same images under a prior that knows their class and one that does not.

# %%
mine = (page.test.y == missing).nonzero().flatten()[: size.images]
strangers, apart = page.test.take(mine), page.beside("unseen")
adversaries = ["TV", "learned", f"learned, {without}"]
unseen = compare(measured(apart, strangers, adversaries, middle), against="TV")
display(Markdown(f"{len(strangers)} test images of class {missing}."))
apart.elsewhere(partial(compare, against="TV"))

# %% [markdown]
# Memory or inversion? For each reconstruction, the PSNR of the nearest of the prior's training
# images to the private one: what an attacker could reach who only looks up.

# %%
learnt, truth = table[table.adversary == "learned"], page.evaluated.x
nearby = public.x[gl.metrics.nearest(truth, public.x)]
display(gl.figures.memory(learnt, page.evaluated, public, page.records, "scale"))
Markdown(
    "PSNR to the private image of the learned prior's reconstruction and of the "
    "training image nearest to it, and the share that is nearer to the private "
    f"image than to any of the {len(public)} training images. The best training "
    f"image for each private one has {gl.psnr(nearby, truth).mean():.1f} dB."
)

# %% [markdown]
# ## Other noise
#
# Nothing in the prior knows the defense. Laplace noise, and a mask over half of the entries with
# Gaussian noise on the rest, both believed truly:


# %%
def by_noise(rows):
    """Means and differences from total variation for each noise."""
    rows = rows.assign(noise=rows.defense + " " + rows.scale.map("{:g}".format))
    return gl.figures.tables(rows, "adversary", "noise", against="TV")


others, two = ["Laplace", "half masked"], ["TV", "learned"]
runs = [measured(page, page.evaluated, two, middle, defense=d) for d in others]
other = by_noise(pd.concat(runs))
page.elsewhere(by_noise, defense=others, adversary=two)

# %% [markdown]
# ## What to read off it

# %% tags=["hide-input"]
first, said, row = middle[0], gl.experiment.said, "learned − TV"
blind = lines["TV"][first].mean
enough = gl.metrics.crossing(lines["learned"], blind)
times = f"{enough:.2g}, {enough / first:.1f} times it" if enough else "none here"
worth = "; ".join(f"{said(differences, row, s)} at {s:g}" for s in size.scales)
noises = "; ".join(f"{noise}: {said(other, row, noise)}" for noise in other[row])
Markdown(f"""
- **What it is worth.** A learned prior minus total variation, in dB with 95 %
  intervals: {worth}.
- **Choosing a scale.** A scale of {first:g} leaves total variation {blind:.1f} dB;
  the scale that leaves the learned prior as little: {times}.
- **It is the gradient.** Without it the prior makes up images of some class:
  {said(against, "learned, no gradient − learned", first)} against the attack at
  {first:g}. A prior that knows photographs:
  {said(against, "learned, photographs − learned", first)}.
- **Other noise.** Learned prior minus total variation: {noises}.
- **An unseen class.** Minus total variation at {first:g}, with the class:
  {said(unseen, row, first)}; without:
  {said(unseen, f"learned, {without} − TV", first)}.

All climbs of this page took {page.minutes}, without the training.
""")

# %% [markdown]
# ## Where it falls short
#
# - **A climb is not the best answer.** It looks for the most probable image; least squared error
#   wants the mean over all that the gradient allows. And it follows slopes that jump. Both are
#   taken up by what is [learnt instead](06b_learning_to_climb.ipynb) and by
#   [samples](06c_samples.ipynb).
# - **Things are harder than digits.** On CIFAR-10 a denoiser of this size, trained for minutes, is
#   worth no more than one Gaussian with full covariance.
# - **The prior ignores the label**, which is known. A denoiser that was told the class removed no
#   more noise at the levels that matter here, so it was left out.
#
# ## Exercises
#
# 1. Run `gradleak run prior -p learning=1000`. What is a better denoiser worth?
# 2. Give the attack the wrong label. Does the prior notice?
# 3. Put `gl.LayerWeights` around the belief. Which layer does the learned prior make superfluous?
#
# Cited works are on the page [References](../book/references.md).
