# ---
# jupyter:
#   jupytext:
#     cell_metadata_filter: tags,mystnb,-papermill,-all
#     formats: ipynb,py:percent
#     notebook_metadata_filter: kernelspec,jupytext,-language_info,-widgets,-papermill
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
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
profile = "smoke"  # smoke (digits, seconds), quick (MNIST, minutes) or paper (100 images, a GPU)
device = "auto"  # auto, cpu or cuda
seed = 0  # of the noise, the starts and the networks
results = ""  # folder of the records; empty: one below _build/results
dataset = ""  # one of digits, mnist, fashion_mnist or cifar10; empty: the profile's
network = "cnn"  # one of cnn, cnn2 or mlp; untrained
scales: list[float] = []  # noise scales, above 0; empty: the profile's
images = 0  # evaluated images; 0: the profile's
steps = 0  # iterations of each attack; 0: the profile's
learning = 0  # training steps of each denoiser; 0: the profile's
width = 0  # of each denoiser: channels at full resolution; 0: the profile's
teaching = 0  # training steps of each stage of the unrolled attack; 0: the profile's
fitted = (
    0  # images that the mixture and the learnt attacks learn from; 0: the profile's
)
components = 0  # Gaussians of the mixture; 0: the profile's
missing = 7  # the class that one denoiser never sees, in [0, 9]

# %% tags=["hide-input"]
from dataclasses import replace
from functools import cache, partial
from itertools import pairwise
from pathlib import Path

import pandas as pd
import torch
from IPython.display import Markdown, display
from torch import nn

import gradleak as gl

pd.set_option("display.max_colwidth", None)
PROFILES = {
    "smoke": dict(dataset="digits", images=6, tuning=2, shown=4, steps=40, learning=150, width=8,
                  scales=[0.03, 0.3], weights=[1.0, 5.0], components=5, fitted=1000, candidates=100,
                  rank=40, answering=200, stages=2, teaching=100,
                  samples=4, moves=40, wrong=["photographs"]),
    "quick": dict(dataset="mnist", images=20, tuning=5, shown=6, steps=150, learning=1500, width=16,
                  scales=[0.03, 0.1, 0.3, 1.0, 3.0], weights=[0.25, 1.0, 2.0, 4.0, 8.0],
                  components=10, fitted=10000, candidates=1000, rank=384, answering=1500,
                  stages=6, teaching=600, samples=8, moves=300, wrong=[]),
    "paper": dict(dataset="mnist", images=100, tuning=10, shown=6, steps=300, learning=8000,
                  width=32, scales=[0.03, 0.1, 0.3, 1.0, 3.0],
                  weights=[0.25, 0.5, 1.0, 2.0, 4.0, 8.0], components=20, fitted=20000,
                  candidates=1000, rank=512, answering=4000, stages=6, teaching=1500, samples=16,
                  moves=500, wrong=["photographs"]),
}  # fmt: skip
NETWORKS = {"cnn": gl.models.cnn, "cnn2": gl.models.cnn2, "mlp": gl.models.mlp}
given = dict(dataset=dataset, images=images, steps=steps, learning=learning, width=width,
             teaching=teaching, fitted=fitted, components=components,
             scales=sorted(scales))  # fmt: skip
size = gl.experiment.profile(profile, PROFILES, **given)
dataset = gl.names.choose("dataset", size.dataset, gl.data.NAMES)
results = Path(results or f"../_build/results/{profile}")
records = results / f"prior-{profile}-{dataset}.csv"
answered = results / f"prior-{profile}-{dataset}-answers.csv"
command = f"gradleak run prior --profile {profile} -p dataset={dataset}"


def changed(**parameters):
    """The parameters that are not the profile's, for the names of what was trained with them."""
    return "".join(
        f", {name} {value}" for name, value in parameters.items() if value
    )


TRAINED = changed(learning=learning, width=width)

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

# %%
train_images, test = (gl.data.load(dataset, split) for split in ("train", "test"))
if missing not in range(test.classes):
    raise ValueError(f"missing is a class, 0 to {test.classes - 1}, got {missing}")
build = NETWORKS[gl.names.choose("network", network, NETWORKS)]
model = build(test.shape, test.classes, seed=seed).to(gl.device.named(device))
tuned_on, evaluated = (
    train_images.take(range(size.tuning)),
    test.take(range(size.images)),
)
public = train_images.take(
    range(size.tuning, len(train_images))
)  # what the attacker has seen
few = test.take(range(size.shown))

# %% tags=["hide-input"]
SEEN = {
    dataset: lambda: public,
    "photographs": lambda: gl.data.photographs(test.shape, 10000, seed),
    f"{dataset} without {missing}": lambda: public.take(
        (public.y != missing).nonzero().flatten()
    ),
}


@cache
def denoiser(seen):
    """A small U-Net, trained once on images that nobody attacks."""
    return gl.priors.trained_denoiser(
        SEEN[seen](), results / "models", steps=size.learning, width=size.width, seed=seed,
        device=gl.device.named(device),
    )  # fmt: skip


# %% [markdown]
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
#
# ## Ten lines

# %%
denoise = denoiser(dataset)  # what removes noise from images like these
client = gl.Client(model, gl.GaussianNoise(size.scales[0]))
view = client.release(few.x[:1], few.y[:1], seed=seed)  # all that the server sees
search = gl.Adam(
    steps=size.steps, lr=0.1, decay=0.05 ** (1 / size.steps), signed=True
)
prior = gl.Sum((gl.Learned(denoise, dataset + TRAINED), gl.Box()))  # p(x)
attack = gl.bayes(client, prior, optimizer=search).attack(view, seed=seed)
f"PSNR {gl.psnr(attack.x.cpu(), few.x[:1]).item():.1f} dB"

# %% [markdown]
# ## The same chances for all
#
# Total variation, with and without the knowledge that pixels lie in a box, as the paper has it; a
# Gaussian mixture of whole images {cite}`zoran2011learning`, the classical midpoint, and the
# learned prior, both with the box. Each chooses its strength by the same number of trials at each
# noise scale, on training images that are neither evaluated nor known to any prior.

# %% tags=["hide-input"]
COUNT = len(size.weights)
TRIED = {  # the settings that a prior may choose from
    "TV": size.weights,
    "TV, no box": size.weights,
    "mixture": [2.0 ** (k - COUNT // 2) for k in range(COUNT)],
    "learned": [2.0 ** (k - COUNT // 2) for k in range(COUNT)],
}


@cache
def pupils():
    """What the mixture and the learnt attacks learn from."""
    return public.take(range(min(size.fitted, len(public))))


@cache
def mixture():
    """Fitted once by scikit-learn."""
    found = gl.GaussianMixture.fit(pupils(), size.components, seed=seed)
    found.mixture.to(gl.device.named(device))
    return replace(found, name=found.name + changed(fitted=fitted))


def prior_of(kind, weight, seen=dataset):
    """p(x) of one strength."""
    if kind == "TV, no box":
        return gl.TotalVariation(weight)
    if kind == "TV":
        part = gl.TotalVariation(weight)
    elif kind == "mixture":
        part = replace(mixture(), weight=weight)
    else:
        part = gl.Learned(denoiser(seen), seen + TRAINED, weight=weight)
    return gl.Sum((part, gl.Box()))


DEFENSES = {
    "Gaussian": gl.GaussianNoise,
    "Laplace": gl.LaplaceNoise,
    "half masked": lambda scale: gl.RandomMask(0.5, then=gl.GaussianNoise(scale)),
}


def trial(
    some, prior, scale, weight, defense="Gaussian", seen=dataset, look=True, keep=()
):
    """One prior against one defense; without a look, the gradient is ignored."""
    truth = gl.Client(model, DEFENSES[defense](scale))
    make = gl.bayes if look else gl.prior_only
    held = make(truth, prior_of(prior, weight, seen), optimizer=search)
    name = prior if look else f"{prior}, no gradient"
    name = name if seen == dataset else f"{name}, {seen}"
    labels = dict(defense=defense, adversary=name, scale=scale, weight=weight, model=network,
                  train_step=0)  # fmt: skip
    return gl.Trial(truth, held, some, labels, 1, seed, keep)


def measured(some, cells, keep=(), path=records):
    """Each cell with the strength that it chose: one row for each image."""
    trials = []
    for kind in dict.fromkeys(cell["prior"] for cell in cells):
        own = [cell for cell in cells if cell["prior"] == kind]
        space = gl.experiment.grid(weight=TRIED[kind])
        best = gl.experiment.tune(
            partial(trial, tuned_on), own, space, some, path, command
        )
        trials += [
            trial(some, **c, **s, keep=keep) for c, s in zip(own, best, strict=True)
        ]
    return gl.experiment.run(trials, path, command)


cells = [dict(prior=p, scale=s) for p in TRIED for s in size.scales]
climbed = measured(evaluated, cells, keep=list(evaluated.index))
floors = gl.figures.floors(evaluated.x, public.x[:5000])
floor = max(v.mean for v in floors.values())


# %% [markdown]
# ## Learning the answer instead
#
# An attacker who knows the defense can make up training data: images, their gradients, noise. A
# network that is trained by least squares to answer a noised gradient with its image learns the
# posterior mean $\E[x \mid g, y]$, and images become its prior without being asked. Two of them:
#
# - **amortised** looks once, at the gradient along the directions in which gradients of images
#   differ most;
# - **unrolled** looks again. It begins with the mean image of the class and takes a few stages,
#
# $$
# x_{k+1} = f_k\bigl(x_k, \nabla_x \log p(g \mid x_k, y)\bigr),
# $$ (eq-stage)
#
# each a small network trained to bring $x$ as near as it can
# {cite}`putzky2017recurrent,adler2017solving`. It sees what a climb sees, but has learnt what to
# make of it: a ReLU network's gradient jumps where a unit switches, and its slope misleads a climb.

# %% tags=["hide-input"]
lowest, highest = min(size.scales), max(size.scales)


def hiding(scale):
    """The client, by its noise scale."""
    return gl.Client(model, gl.GaussianNoise(scale))


@cache
def amortised():
    """Trained once for all noise scales."""
    return gl.Amortised.fit(gl.Client(model), pupils(), lowest, highest, rank=size.rank,
                            steps=size.answering, seed=seed)  # fmt: skip


@cache
def unrolled(known=dataset):
    """The same, in stages; with the wrong images, their labels tell nothing."""
    some = pupils()
    if known != dataset:
        some = SEEN[known]()
        some = replace(some, y=torch.arange(len(some)) % test.classes).take(
            range(min(size.fitted, len(some)))
        )
    return gl.Unrolled.fit(hiding, some, lowest, highest, stages=size.stages,
                           steps=size.teaching, seed=seed)  # fmt: skip


def looks_again(seen, scale, known=dataset):
    """What the unrolled attack answers."""
    return unrolled(known).attack(seen, scale)


ANSWER = {
    "amortised": lambda seen, scale: amortised().attack(seen),
    "unrolled": looks_again,
}
CONTROL = {
    f"unrolled, {name}": partial(looks_again, known=name) for name in size.wrong
}
STAGES = f"{size.stages} stages of {size.teaching} steps, {size.fitted} images"
HOW = {
    "amortised": f"{size.answering} steps, {size.fitted} images, rank {size.rank}",
    "unrolled": STAGES,
    **{name: STAGES for name in CONTROL},
}
HOW = {name: how + changed(scales=scales, seed=seed) for name, how in HOW.items()}


def asked(name, scale):
    """What one of them answers, by its name."""
    seen = hiding(scale).release(
        evaluated.x, evaluated.y, seed=seed, key=evaluated.index
    )
    return {name: {**ANSWER, **CONTROL}[name](seen, scale).cpu()}


learnt = gl.experiment.answers(
    [(dict(how=HOW[name], defense="Gaussian", model=network, scale=s), [name],
      partial(asked, name, s)) for name in HOW for s in size.scales],
    evaluated, answered, command, list(evaluated.index), [public.source],
)  # fmt: skip
table = pd.concat([climbed, learnt[learnt.adversary.isin(list(ANSWER))]])
took = learnt.groupby("adversary", sort=False).seconds.sum()
means = torch.stack([public.x[public.y == c].mean(0) for c in range(public.classes)])
Markdown(
    "Training and asking: "
    + "; ".join(f"{name} ({HOW[name]}) {took[name]:.0f} seconds" for name in ANSWER)
    + f". Where the unrolled attack begins, the mean of the class without any gradient: "
    f"{gl.psnr(means[evaluated.y], evaluated.x).mean():.1f} dB."
)

# %% [markdown]
# ## The figure

# %% tags=["hide-input"]
both = [records, answered]  # the files that keep the pictures


def of(scale):
    """The rows at one noise scale, by attack."""
    return dict(tuple(table[table.scale == scale].groupby("adversary", sort=False)))


frames = [
    gl.figures.frame(f"{scale:g}", few, of(scale), both) for scale in size.scales
]
gl.figures.strength({"Gaussian noise": frames}, name="noise scale", choose="defense")

# %% [markdown]
# The same released gradients, read by four priors and by two networks; PSNR in dB under each
# picture.
#
# ## Across noise scales

# %% tags=["hide-input"]
lines = gl.figures.means(table, "adversary", "scale")
display(gl.figures.curves(lines, across="noise scale", floor=floor))
ssim = gl.figures.means(table, "adversary", "scale", "ssim")
display(gl.figures.curves(ssim, across="noise scale", unit="SSIM"))
display(gl.figures.table(lines, floor=floor))
facts = gl.experiment.records.facts(records)
Markdown(
    f"Mean PSNR in dB and 95 % bootstrap interval over **{len(evaluated)} images** of {dataset}, "
    f"`{network}` untrained, by scale of the Gaussian noise; {search.steps} iterations, one start, "
    f"{COUNT} tuning trials for each climb on {len(tuned_on)} other images; {facts['hardware']}. "
    f"Denoisers: {size.learning} training steps, "
    f"{sum(p.numel() for p in denoiser(dataset).parameters()):,} parameters. Data-free floors: "
    + ", ".join(f"{name} {v.mean:.1f}" for name, v in floors.items())
    + "; a dagger marks what is below the higher."
)

# %% [markdown]
# Image by image, each minus total variation:

# %% tags=["hide-input"]
differences = gl.figures.compared(table, "adversary", "scale", against="TV")
gl.figures.differences(differences)

# %% [markdown]
# A star marks what differs from zero after Holm's correction for the whole table.
#
# ### On other images
#
# The same procedure, from the records that are committed beside this page. On colour images the
# mixture is one Gaussian (`-p components=1`); there are more digits with the profile `paper`, its
# climbs and denoisers shortened for a CPU (`-p steps=150 -p learning=1500 -p width=16
# -p components=10 -p teaching=600`).

# %% tags=["hide-input"]
for caption, rows in gl.figures.committed(records, Path("../book/results")):
    rows = rows[
        (rows.defense == "Gaussian") & rows.adversary.isin([*TRIED, *ANSWER])
    ]
    rows = rows.sort_values("scale", kind="stable")
    display(Markdown(caption))
    display(gl.figures.table(gl.figures.means(rows, "adversary", "scale")))
    shown = gl.figures.means(rows, "adversary", "scale", "ssim")
    display(
        gl.figures.table(
            {f"{name}, SSIM": line for name, line in shown.items()}, digits=2
        )
    )
    pairs = gl.figures.compared(rows, "adversary", "scale", against="TV")
    display(gl.figures.differences(pairs))

# %% [markdown]
# ## Is it the gradient, or is it the prior?
#
# Five controls. The learned prior alone, with the gradient ignored. Attacks that know the wrong
# images, patches of photographs; the unrolled one in the profiles that have the time. A prior that
# has never seen one of the classes, on images of that class. The nearest of all images that the
# prior has seen. And whether the reconstruction tells the private image from others, below.

# %% tags=["hide-input"]
CONTROLLED = [s for s in size.scales if 0.1 <= s <= 0.3] or size.scales


def controlled(rows, name, **options):
    """An attack and its controls: a table of means, and differences from it."""
    display(
        gl.figures.table(gl.figures.means(rows, "adversary", "scale"), **options)
    )
    pairs = gl.figures.compared(rows, "adversary", "scale", against=name)
    display(gl.figures.differences(pairs))
    return pairs


def same_scales(rows, name):
    """The rows of an attack and of its controls, at scales where there are any."""
    rows = rows[rows.adversary.str.startswith(name)]
    return rows[rows.scale.isin(rows[rows.adversary != name].scale)]


cells = [dict(prior="learned", scale=s, seen="photographs") for s in CONTROLLED]
cells += [dict(prior="learned", scale=s, look=False) for s in CONTROLLED]
rows = pd.concat([climbed, measured(evaluated, cells)])
against = controlled(same_scales(rows, "learned"), "learned", floor=floor)
if CONTROL:
    controlled(same_scales(learnt, "unrolled"), "unrolled", floor=floor)

# %% tags=["hide-input"]
for caption, rows in gl.figures.committed(records, Path("../book/results")):
    for name in ("learned", "unrolled"):
        part = same_scales(rows[rows.defense == "Gaussian"], name)
        if len(part):
            display(Markdown(caption))
            controlled(part, name)

# %% [markdown]
# The unseen class: the same images under a prior that knows their class and one that does not.

# %% tags=["hide-input"]
strangers = test.take(
    (test.y == missing).nonzero().flatten()[: size.images].tolist()
)
cells = [dict(prior=p, scale=s) for p in ("TV", "learned") for s in CONTROLLED]
cells += [
    dict(prior="learned", scale=s, seen=f"{dataset} without {missing}")
    for s in CONTROLLED
]
unseen = measured(
    strangers, cells, path=records.with_name(f"{records.stem}-unseen.csv")
)


def against_tv(rows, columns="scale"):
    """A table of means, and differences from total variation."""
    display(gl.figures.table(gl.figures.means(rows, "adversary", columns)))
    pairs = gl.figures.compared(rows, "adversary", columns, against="TV")
    display(gl.figures.differences(pairs))
    return pairs


display(Markdown(f"{len(strangers)} test images of class {missing}."))
unseen = against_tv(unseen)

# %% tags=["hide-input"]


def other_records(kind):
    """Committed records of the same kind that are of other images: caption, rows."""
    for path in sorted(Path("../book/results").glob(f"prior-*-{kind}.csv")):
        if path.name != f"{records.stem}-{kind}.csv":
            facts = gl.experiment.records.facts(path)
            yield (
                f"{facts['dataset']}, `{facts['command']}`",
                gl.experiment.records.read(path),
            )


for caption, rows in other_records("unseen"):
    rows = rows[rows.split == "test"]
    display(Markdown(f"**{rows['index'].nunique()} images** of {caption}"))
    against_tv(rows)

# %% [markdown]
# Memory or inversion? For each reconstruction, the PSNR of the nearest of the prior's training
# images to the private one: what an attacker could reach who only looks up.


# %% tags=["hide-input"]
def nearest(x, among):
    """The image of `among` nearest to each x."""
    return among[torch.cdist(x.flatten(1), among.flatten(1)).argmin(1)]


looked_up = []
for scale in size.scales:
    for name in ("learned", "unrolled"):
        found = gl.experiment.records.images(both, of(scale)[name].id)
        memory = nearest(found, public.x)
        closer = (
            (gl.mse(found, evaluated.x) < gl.mse(found, memory))
            .float()
            .mean()
            .item()
        )
        looked_up.append({
            "noise scale": f"{scale:g}",
            "attack": name,
            "reconstruction": f"{gl.psnr(found, evaluated.x).mean():.1f}",
            "nearest training image": f"{gl.psnr(memory, evaluated.x).mean():.1f}",
            "nearer to the private image": f"{closer:.2f}",
        })  # fmt: skip
nearby = nearest(evaluated.x, public.x)
display(pd.DataFrame(looked_up).set_index(["noise scale", "attack"]))
Markdown(
    f"PSNR to the private image of the reconstruction and of the training image nearest to it, and "
    f"the share of reconstructions that are nearer to the private image than to any of the "
    f"{len(public)} training images. The best training image for each private one has "
    f"{gl.psnr(nearby, evaluated.x).mean():.1f} dB."
)

# %% [markdown]
# ## Which image was it?
#
# The risk of the theory chapter, for attacks that know no list. Of 1000 test images, the private
# one among them, is the one nearest to the reconstruction the right one? The exact adversary is
# given the list, and answers by {eq}`eq-two`; nobody can do better.

# %% tags=["hide-input"]
listed = test.take(range(max(size.candidates, size.images)))


@cache
def exact_risks():
    """The exact risk at every scale, in one computation."""
    finite = gl.attacks.exact.FinitePrior(listed.x, listed.y)
    law = gl.attacks.exact.GaussianLaw.between(
        finite.gradients(gl.Client(model.cpu()))
    )
    found = gl.attacks.exact.risks(
        law, {"Bayes": law.gaussian}, finite, size.scales, finite.near(0.0), 5
    )
    model.to(gl.device.named(device))
    return {s: sum(v) / len(v) for s, v in found["Bayes"].items()}


def identified(name, scale):
    """The share of private images that an attack tells from the rest of the list."""
    if name == "exact":
        return dict(share=1 - exact_risks()[scale], images=len(listed))
    rows = of(scale)[name]
    found = gl.experiment.records.images(both, rows.id)
    answer = torch.cdist(found.flatten(1), listed.x.flatten(1)).argmin(1)
    right = answer == torch.tensor(rows["index"].to_numpy())
    return dict(share=right.double().mean().item(), images=len(rows))


def shares(rows):
    """Of each attack at each scale, with an interval; that of the exact adversary is no sample."""
    found = {}
    for row in rows.itertuples():
        right = round(row.share * row.images)
        counted = gl.interval([1.0] * right + [0.0] * (row.images - right))
        exactly = gl.metrics.Interval(row.share, row.share, row.share, row.images)
        found.setdefault(row.adversary, {})[row.scale] = (
            exactly if row.adversary == "exact" else counted
        )
    return found


def which(name, scale):
    """What the share is of: a digest of the rows whose pictures are looked at."""
    rows = [] if name == "exact" else list(of(scale)[name].id)
    return dict(adversary=name, scale=scale, dataset=dataset, candidates=len(listed), model=network,
                rows=gl.experiment.digest(rows))  # fmt: skip


known = gl.experiment.measured(
    [(which(name, s), partial(identified, name, s))
     for name in [*TRIED, *ANSWER, "exact"] for s in size.scales],
    dataset, records.with_name(f"{records.stem}-identified.csv"), command,
)  # fmt: skip
display(
    gl.figures.curves(shares(known), across="noise scale", unit="share identified")
)
Markdown(
    f"Share of {len(evaluated)} private images identified among {len(listed)} test images; the "
    f"exact adversary averaged over all {len(listed)}, who know the label, as all do."
)

# %% tags=["hide-input"]
for caption, rows in other_records("identified"):
    count = rows[rows.adversary != "exact"].images.iloc[0]
    display(
        Markdown(f"**{count} images** among {rows.candidates.iloc[0]} of {caption}")
    )
    display(gl.figures.table(shares(rows), digits=2))

# %% [markdown]
# ## Other noise
#
# Nothing in the prior knows the defense. Laplace noise, and a mask over half of the entries with
# Gaussian noise on the rest, both believed truly:


# %% tags=["hide-input"]
def by_noise(rows):
    """Means and differences from total variation for each noise."""
    return against_tv(
        rows.assign(noise=rows.defense + " " + rows.scale.map("{:g}".format)),
        "noise",
    )


cells = [dict(prior=p, scale=s, defense=d) for d in list(DEFENSES)[1:] for s in CONTROLLED
         for p in ("TV", "learned")]  # fmt: skip
elsewhere = by_noise(measured(evaluated, cells))

# %% tags=["hide-input"]
for caption, rows in gl.figures.committed(records, Path("../book/results")):
    rows = rows[rows.defense != "Gaussian"]
    if len(rows):
        display(Markdown(caption))
        by_noise(rows)

# %% [markdown]
# ## Samples of the posterior
#
# A climb finds one image. Langevin dynamics, the same slopes plus noise, wander among all that the
# gradient allows, and their mean is the answer with the least squared error. They follow the slope
# of the likelihood, so it had better tell the truth. In a ReLU network it does not: gradients jump
# where a unit switches, and a slope does not show a jump. A climb gets over that with its large
# steps, a sampler drifts into images that the gradient excludes. Here for both kinds of network.

# %% tags=["hide-input"]
SMOOTH = {"ReLU": nn.ReLU, "softplus": partial(nn.Softplus, 5)}
middle = CONTROLLED[-1]
how = gl.attacks.Langevin(size.moves, rate=0.3)


def drawn(name):
    """A climb and samples on one kind of network."""
    kind = gl.models.cnn(test.shape, test.classes, seed, SMOOTH[name]).to(
        gl.device.named(device)
    )
    client = gl.Client(kind, gl.GaussianNoise(middle))
    seen = client.release(few.x, few.y, seed=seed, key=few.index)
    learned = gl.Learned(denoiser(dataset), dataset, end=0.03)
    held = gl.bayes(client, gl.Sum((gl.Learned(denoiser(dataset), dataset), gl.Box())),
                    optimizer=search)  # fmt: skip
    found = gl.attacks.posterior_samples(
        client, seen, learned, size.samples, how, seed
    )
    return {
        "climb": held.attack(seen, seed=seed).x,
        **{f"sample {k + 1}": found[:, k] for k in range(2)},
        "mean of samples": found.mean(1),
        "most within 4": gl.attacks.most_within(found, 4.0),
    }


NAMES = ["climb", "sample 1", "sample 2", "mean of samples", "most within 4"]
sampled = gl.experiment.answers(
    [(dict(how=f"{size.samples} samples, {size.moves} moves" + TRAINED + changed(seed=seed),
           model=f"cnn, {name}", defense="Gaussian", scale=middle), NAMES, partial(drawn, name))
     for name in SMOOTH],
    few, answered, command, list(few.index),
)  # fmt: skip
display(gl.figures.table(gl.figures.means(sampled, "model", "adversary")))
Markdown(
    f"{len(few)} images, noise scale {middle:g}, {size.samples} samples of {size.moves} moves each."
)

# %% tags=["hide-input"]
smooth = sampled[sampled.model == "cnn, softplus"]
gl.figures.gallery(
    few, dict(tuple(smooth.groupby("adversary", sort=False))), answered
)

# %% [markdown]
# On the smooth network: the samples differ where the gradient leaves a choice.
#
# ## What to read off it

# %% tags=["hide-input"]


def gap(scale, name="learned", pairs=differences, other="TV"):
    """One attack minus another, in words."""
    pair = pairs[f"{name} − {other}"][scale].difference
    return f"{pair.mean:+.1f} dB [{pair.low:+.1f}, {pair.high:+.1f}]"


def gaps(name):
    """An attack minus total variation at every scale, in words."""
    return "; ".join(f"{gap(s, name)} at {s:g}" for s in size.scales)


def same_as(name, scale):
    """The scale at which an attack is as blind as TV at this one, or None."""
    target = lines["TV"][scale].mean
    pairs = [(s, lines[name][s].mean) for s in size.scales]
    for (s0, p0), (s1, p1) in pairwise(pairs):
        if p0 >= target >= p1 and p0 > p1:
            return s0 * (s1 / s0) ** ((p0 - target) / (p0 - p1))
    return None


first = CONTROLLED[0]
best = max(("learned", *ANSWER), key=lambda name: lines[name][first].mean)
enough = same_as(best, first)
instead = (
    "no attack that has seen images has more there"
    if lines[best][first].mean <= lines["TV"][first].mean
    else f"it takes a scale of {enough:.2g}, {enough / first:.1f} times as much, to leave the best "
    f"attack here ({best}) as little"
    if enough else f"no scale measured here leaves the best attack here ({best}) as little"
)  # fmt: skip
other = "; ".join(
    f"{noise}: {gap(noise, pairs=elsewhere)}" for noise in elsewhere["learned − TV"]
)
Markdown(f"""
- **What it is worth.** Minus total variation, in dB with 95 % intervals. A learned prior in the
  same climb: {gaps("learned")}. Learning to climb, too (unrolled): {gaps("unrolled")}. Looking
  only once (amortised): {gaps("amortised")}.
- **Choosing a scale.** A scale of {first:g} leaves total variation
  {lines["TV"][first].mean:.1f} dB; {instead}.
- **It is the gradient.** Without it the prior makes up images of some class:
  {gap(first, "learned, no gradient", against, "learned")} against the attack at {first:g}. A prior
  that knows photographs: {gap(first, "learned, photographs", against, "learned")}.
- **Other noise.** Learned prior minus total variation: {other}.
- **An unseen class.** Minus total variation at {first:g}, with the class:
  {gap(first, "learned", unseen)}; without:
  {gap(first, f"learned, {dataset} without {missing}", unseen)}.

All climbs of this page took {gl.experiment.records.facts(records)["seconds"] / 60:.0f} minutes, without the
training.
""")

# %% [markdown]
# ## Where it falls short
#
# - **A climb is not the best answer.** It looks for the most probable image; least squared error
#   wants the mean over all that the gradient allows. And it follows slopes that jump.
# - **Learnt attacks know one client and one kind of image.** The unrolled attack is trained for one
#   network and one kind of noise, and again for the next; a prior serves them all. What it learns
#   from photographs leaves digits below total variation: see the control with 100 digits.
# - **Things are harder than digits.** On CIFAR-10 a denoiser of this size, trained for minutes, is
#   worth no more than one Gaussian with full covariance. The unrolled attack is ahead of both, by
#   less than on digits.
# - **Samples** need a likelihood whose slope can be trusted. For ReLU networks that is open.
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
