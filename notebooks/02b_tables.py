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
# # Comparison: all other tables
#
# ```{admonition} In short
# :class: tip
# - **Claim.** An attacker who knows the mask stays ahead of those who do not, by other measures,
#   on other images, with stronger priors and less noise. Where there is hardly any noise the
#   climb decides, after long training the prior.
# - **Paper.** Section 5, Tables 2 and 5 of {cite}`balunovic2022bayesian`. Question, equation and
#   the first table are in the [comparison](02_comparison.ipynb), whose attacks these are.
# - **Smaller than the paper's run.** A shorter attack and a smaller search for its settings; every
#   table says on how many images it stands.
# ```

# %% tags=["parameters"]
profile = "smoke"  # smoke (digits, seconds), quick (MNIST, minutes) or paper
device = "auto"  # auto, cpu or cuda
seed = 0  # of the noise, the starts and the network
results = ""  # folder of the records; empty: one below _build/results
dataset = ""  # one of digits, mnist, fashion_mnist or cifar10; empty: the profile's
network = "cnn"  # one of cnn, cnn2 or mlp
train_steps: list[int] = []  # of the networks, under defense; empty: the profile's
strength = 0.1  # scale of the noise, above 0
mask_rate = 0.5  # share of gradient entries that a mask sets to zero, in (0, 1)
images = 0  # evaluated images; 0: the profile's
steps = 0  # iterations of each attack; 0: the profile's
restarts = 0  # starts of each attack, of which the best is kept; 0: the profile's

# %% tags=["hide-input"]
import pandas as pd
from IPython.display import Markdown, display

import gradleak as gl

PROFILES = gl.experiment.Comparison.PROFILES
page = gl.experiment.page("tables", PROFILES, globals(), part_of="comparison")
size, few = page.size, page.few

# %% [markdown]
# ## The same attacks
#
# The attacks of the [comparison](02_comparison.ipynb), with the settings that they chose there.
# Both pages share their records, so nothing is computed twice.

# %%
paper = gl.experiment.Comparison(page)  # the network, the defenses, who attacks them
cells = [cell for t in size.train_steps for cell in paper.cells(train_step=t)]
chosen = page.tuned(paper.trial, cells, weight=size.weights)
table = page.run([paper.trial(page.evaluated, **c, keep=few.index) for c in chosen])
first, last = size.train_steps[0], size.train_steps[-1]
untrained = table[table.train_step == first]
alone = gl.figures.arms(page.run(paper.controls()))["prior alone"]
floors = page.floors(prior_alone=alone.psnr)
floor = max(v.mean for v in floors.values())


def means(rows, value="psnr"):
    """{adversary: {defense: mean with its interval}}."""
    return gl.figures.means(rows, "adversary", "defense", value)


def by_defense(rows):
    """{defense in words: its rows}."""
    parts = gl.figures.arms(rows, "defense")
    return {defense.replace("_", " "): part for defense, part in parts.items()}


what = f"`{network}` after {first} training steps, noise scale {strength:g}"
Markdown(page.caption(what + ", unless said", floors, len(size.weights)))

# %% [markdown]
# ## By other measures
#
# The first table by structural similarity, and by the paper's own measure: the share of
# reconstructions within $\delta$ of the private image, in normalised pixels.

# %%
DELTA = {"digits": 20 * 8 / 28, "cifar10": 35.0}
delta, channels = DELTA.get(size.dataset, 20.0), page.test.shape[0]
std = sum(gl.models.NORMALIZATION[channels][1]) / channels
distance = (untrained.mse * page.test.x[0].numel()) ** 0.5 / std
inside = untrained.assign(inside=distance <= delta)
display(Markdown("**SSIM**"), gl.figures.table(means(untrained, "ssim"), digits=2))
display(Markdown(f"**Within δ = {delta:.3g}**"))
gl.figures.table(means(inside, "inside"), digits=2)

# %% [markdown]
# ## Networks that have been trained
#
# The paper attacks networks that were trained with the defense active. Gradients shrink as training
# goes on, and the noise does not. What is below the floor is no reconstruction any more.

# %%
stepwise = table.assign(step=table.train_step.astype(str))
parts = by_defense(stepwise).items()
lines = {d: gl.figures.means(rows, "adversary", "step") for d, rows in parts}
across = "training steps under the defense"
gl.figures.panels(lines, across=across, floor=floor, log=False)

# %% [markdown]
# Test accuracy of the attacked networks, by training step:

# %%
DEFENSES = list(paper.defenses(strength))
paid = [s for s in size.scales if s >= 0.03]  # those that cost accuracy
grid = gl.experiment.grid
networks = grid(defense=DEFENSES, scale=[strength], train_step=size.train_steps)
networks += grid(defense=DEFENSES, scale=paid, train_step=[paper.early])
accuracy = page.accuracies(
    [(net, paper.network(**net)) for net in networks], model=network, model_seed=seed
)
accuracy = accuracy.set_index(["defense", "scale", "train_step"]).accuracy
pd.DataFrame(
    {d: {t: f"{accuracy[d, strength, t]:.3f}" for t in size.train_steps}
     for d in DEFENSES}
)  # fmt: skip

# %% [markdown]
# Their tables, and below each how far Bayes is ahead of every other attack:

# %% tags=["hide-output"]
ORDER = list(means(untrained))


def show(rows, floor=None):
    """Means, and Bayes minus every other attack, image by image."""
    rows = rows.iloc[rows.adversary.map(ORDER.index).argsort(kind="stable")]
    pairs = gl.figures.ahead(rows, "adversary", "defense", first="Bayes")
    table = gl.figures.table(means(rows), floor=floor)
    display(table, gl.figures.differences(pairs))


for t in size.train_steps[1:]:
    display(Markdown(f"**After {t} training steps**"))
    show(table[table.train_step == t], floor)

# %% [markdown]
# ## Other data sets
#
# The same procedure on other images, or on more, from the records that are committed beside this
# page.

# %%
page.elsewhere(show, scale=strength, train_step=0, p_x="TV", layers="equal")

# %% [markdown]
# ## What a stronger prior adds
#
# Table 5 of the paper adds what everyone knows about pixels: they lie in a box. Here as a hard
# limit, and as a soft penalty as in the paper's code, tuned again by the same trials.

# %%
some = ["Bayes", "L2"]
boxed = [
    cell for prior in ("TV + box", "TV + soft box")
    for cell in paper.cells(some, train_step=first, prior=prior)
]  # fmt: skip
boxed = page.tuned(paper.trial, boxed, weight=size.weights)
boxed = page.run([paper.trial(page.evaluated, **c) for c in boxed])
both = pd.concat([untrained[untrained.adversary.isin(some)], boxed])
both = both.assign(adversary=both.adversary + ", " + both.p_x)
gl.figures.table(means(both.sort_values("adversary", kind="stable")), floor=floor)

# %% [markdown]
# ## What layer weights add
#
# The published attacks may also trust early layers more than late ones, with weights
# $1, e^{-1}, e^{-2}, \dots$ on the squared error. That is one more belief: later layers carry more
# noise.

# %%
older = ["L2", "L1", "cosine"]
falling = paper.cells(older, train_step=first, layers="falling")
falling = page.tuned(paper.trial, falling, weight=size.weights)
falling = page.run([paper.trial(page.evaluated, **c) for c in falling])
both = gl.figures.arms(pd.concat([untrained, falling]))
gain = {
    f"{a}: weighted − equal":
        gl.figures.compared(both[a], "layers", "defense", "equal")["falling − equal"]
    for a in older
}  # fmt: skip
gl.figures.differences(gain)

# %% [markdown]
# ## The noise scale
#
# The same attacks as the noise grows, with the settings chosen at one scale: knowledge about images
# does not depend on the noise.

# %%
swept = page.test.take(range(size.swept))
ON_CURVE = ["Bayes", "L2", "L1", "cosine"]
on_curve = [c for c in chosen
            if c["train_step"] == first and c["adversary"] in ON_CURVE]  # fmt: skip


def at_scale(scale, images=swept, cells=on_curve):
    """The attacks at another noise scale."""
    trials = [paper.trial(images, **c, scale=scale, keep=few.index) for c in cells]
    return page.run(trials)


sweep = pd.concat([at_scale(scale) for scale in size.scales])
parts = by_defense(sweep).items()
curves = {d: gl.figures.means(rows, "adversary", "scale") for d, rows in parts}
display(gl.figures.panels(curves, across="noise scale", floor=floor))
Markdown(f"Mean PSNR over {len(swept)} images; networks after {first} steps.")

# %% [markdown]
# The true belief does not always end up nearest: not where there is hardly any noise, and not on
# trained networks, where there is hardly any gradient. Is it the belief that fails, the climb, or
# the prior? Ask Bayes' own posterior about both answers:

# %% tags=["hide-input"]
key = ["train_step", "defense", "adversary"]
weights = pd.DataFrame(chosen).set_index(key).weight.to_dict()


def outdone(rival, step, scale, d="gaussian"):
    """For how many shown images Bayes' own posterior prefers a rival's answer."""
    bayes, other = (paper.trial(few, d, a, weights[step, d, a], step, scale)
                    for a in ("Bayes", rival))  # fmt: skip
    view = bayes.client.release(few.x, few.y, seed=seed)
    posterior = gl.attacks.log_posterior(bayes.attack, view.g, view.y)
    own, its = (posterior(t.attack.attack(view, seed).x) for t in (bayes, other))
    return int((its > own).sum())


least = size.scales[0]
quiet, loud = outdone("L1", first, least), outdone("cosine", last, strength)
Markdown(
    f"- Noise {least:g}, {first} training steps: for **{quiet} of {len(few)}** "
    "images L1's answer is more probable under Bayes' own posterior than what Bayes "
    "found. Where that is so, the climb failed: a sharp likelihood is a narrow "
    "ridge, and L1's slope does not fade near the top.\n"
    f"- Noise {strength:g}, {last} training steps: for **{loud} of {len(few)}** "
    "images cosine's answer is. Where it is not, Bayes did find what it looked for, "
    "and is yet farther from the image: the prior fails. The most probable image "
    "under total variation is not the nearest guess once the gradient says next to "
    "nothing, and a bolder guess is punished more."
)

# %% [markdown]
# ## What the noise costs
#
# A defense is worth what it hides for the accuracy that it leaves. Across, what the best of these
# attacks reads off the untrained network, where gradients leak most; upwards, the test accuracy of
# a network trained with that noise.

# %%
cost = {
    name: {s: (max((line[s] for line in lines.values()), key=lambda v: v.mean),
               accuracy[name.replace(" ", "_"), s, paper.early]) for s in paid}
    for name, lines in curves.items()
}  # fmt: skip
display(gl.figures.tradeoff(cost, floor=floor))
Markdown(f"""Accuracy on {len(page.test)} test images after {paper.early} training
steps of 32 clients each.""")

# %% [markdown]
# ## The strength slider

# %%
shown = few.take(range(min(4, len(few))))


def frame(scale, rows):
    """The slider's pictures at one noise scale."""
    rows = rows[rows.adversary.isin(["Bayes", "L2", "cosine"])]
    arms = gl.figures.arms(rows, scale=scale)
    return gl.figures.frame(f"{scale:g}", shown, arms, page.records)


def live(defense, scale):
    """The same at a scale of the reader's own."""
    own = [c for c in on_curve if c["defense"] == defense.replace(" ", "_")]
    return frame(scale, at_scale(scale, few, own))


parts = by_defense(sweep).items()
frames = {d: [frame(s, rows) for s in size.scales] for d, rows in parts}
gl.figures.strength(frames, live=live)

# %% [markdown]
# ## Exercises
#
# 1. At small noise the curves show L1 ahead. Give Bayes more time: `gradleak run tables -p
#    steps=400`. Does it catch
#    up?
# 2. Run `gradleak run tables -p network=cnn2`. Which defense costs more accuracy on a larger
#    network, and does it hide more?
#
# Cited works are on the page [References](../book/references.md).
