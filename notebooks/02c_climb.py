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
# # The climb: find the maximum, or say by how much it was missed
#
# ```{admonition} In short
# :class: tip
# - **Claim.** An attack that is called optimal has to find the maximum of its posterior, and
#   whether it does can be measured. Signed Adam, with which this field climbs, is measured here,
#   beside a climb on the same posterior with its corners rounded off.
# - **Paper.** None: the search is taken for granted.
# - **Smaller than it could be.** One start on untrained networks, some on trained ones; one
#   architecture. The other pages climb with signed Adam.
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
steps = 0  # evaluations of a rounded climb, 6 or more; 0: the profile's
restarts = 0  # starts on trained networks; 0: the profile's

# %% tags=["hide-input"]
from functools import partial

from IPython.display import Markdown, display

import gradleak as gl
from gradleak.attacks import LBFGS, Rounded
from gradleak.experiment.limits import FROM_PRIVATE, PRIVATE, limits

PROFILES = {
    "smoke": dict(dataset="digits", images=6, tuning=2, first=100, steps=60,
                  restarts=2, shown=4, train_steps=[0, 10], weights=[1.0, 5.0]),
    "quick": dict(dataset="mnist", images=20, tuning=4, first=1000, steps=100,
                  restarts=2, shown=8, train_steps=[0, 100],
                  weights=[1.0, 3.0, 6.0, 20.0]),
    "paper": dict(dataset="mnist", images=100, tuning=8, first=1000, steps=100,
                  restarts=4, shown=8, train_steps=[0, 10, 100, 1000],
                  weights=[0.5, 1.5, 3.0, 6.0, 20.0]),
}  # fmt: skip
page = gl.experiment.page("climb", PROFILES, globals())
size, few = page.size, page.few
size.steps = max(6, size.steps)  # two for each of three stages
paper = gl.experiment.Comparison(page)  # the network, the defenses, who attacks them

# %% [markdown]
# ## The question
#
# All tables of this book are headed
#
# $$
# \hat x = \operatorname*{arg\,max}_x \; \log p(g \mid x) + \log p(x),
# $$ (eq-climb-map)
#
# and a climb finds some $\hat x$. Is it the maximum? The private image is a point that the
# evaluation knows. Where *it* is more probable than $\hat x$, by the attacker's own posterior, the
# climb has failed, and its error tells nothing about the posterior. So it is with a climb that
# starts at the private image and ends above $\hat x$.
#
# ## Why climbs fail
#
# A ReLU network is linear in pieces. Its output is continuous, but its gradient in the weights
# *jumps* where a unit switches, and autograd's slope sees no jump. Total variation has a corner
# wherever two neighbours are equal. So round them off, in the attacker's copy alone:
#
# $$
# \max(z, 0) \;\to\; \eta \log\bigl(1 + e^{z / \eta}\bigr), \qquad
# |d| \;\to\; \sqrt{d^2 + c^2} - c .
# $$ (eq-rounded)
#
# $\eta$ is a share of the spread that a layer's input has over smooth noise. It falls in stages,
# each of which starts where the last one ended, and within a stage L-BFGS follows the curvature,
# with a history and a step length for each attack. What is found is judged by {eq}`eq-climb-map`
# itself.
#
# ## Ten lines

# %%
client = gl.Client(paper.model, paper.defenses(strength)["gaussian"])
one = page.evaluated.take([0])
view = client.release(one.x, one.y, seed=seed)
attacks = {
    "signed Adam": gl.bayes(client, gl.TotalVariation(6.0), optimizer=page.search),
    "rounded L-BFGS": gl.bayes(
        client, gl.TotalVariation(6.0), optimizer=Rounded(LBFGS(size.steps))
    ),
}
found = {name: attack.attack(view, seed=seed) for name, attack in attacks.items()}
(private,) = gl.attacks.score_all(
    [(attacks["signed Adam"], view)], [one.x.to(page.device)]
)
nats = {
    name: f"{(f.log_posterior - private).item():+.0f} nats"
    for name, f in found.items()
}
nats | {"against": "the private image"}

# %% [markdown]
# ## Every defense, untrained
#
# Bayes, one start. Signed Adam takes half as many evaluations more. Each climb tunes the prior's
# weight by the same procedure, on training images.


# %%
def climb(way, evaluations):
    """How an attack climbs in so many evaluations."""
    signed = way == "signed Adam"
    return page.signed(evaluations) if signed else Rounded(LBFGS(evaluations))


def trial(images, way, evaluations, **what):
    """Bayes against one defense, by one climb."""
    return paper.trial(
        images, adversary="Bayes", climb=climb(way, evaluations), **what
    )


LENGTHS = {"signed Adam": size.steps * 3 // 2, "rounded L-BFGS": size.steps}
cells = [
    dict(defense=d, way=way, evaluations=n)
    for d in paper.defenses(strength)
    for way, n in LENGTHS.items()
]
chosen = page.tuned(trial, cells, weight=size.weights)
table = page.run([trial(page.evaluated, **c, keep=few.index) for c in chosen])
table["reached"] = table.log_posterior >= table[PRIVATE] - 1
weight = {(c["defense"], c["way"]): c["weight"] for c in chosen}

# %% [markdown]
# The share of images whose $\hat x$ is at least as probable as the private image, to a nat:

# %%
floor = max(v.mean for v in page.floors().values())
what = (
    f"`{network}` untrained, noise scale {strength:g}, images from {size.first} on"
)
display(
    gl.figures.table(gl.figures.means(table, "way", "defense", "reached"), digits=2)
)
pairs = gl.figures.tables(table, "way", "defense", "signed Adam", floor=floor)
told = ", ".join(f"{name} {n} evaluations" for name, n in LENGTHS.items())
line, tried = limits(table, ["way", "defense"]), len(size.weights)
Markdown(f"{line} {page.caption(what, tried=tried, how=f'{told}, one start')}")

# %%
shown = gl.figures.arms(table, "way", defense="masked_gaussian")
gl.figures.gallery(few, shown, page.records)

# %% [markdown]
# ## How many evaluations

# %%
SHARES = {"signed Adam": (0.5, 1.0, 1.5), "rounded L-BFGS": (0.35, 0.5, 1.0)}
tried = [
    dict(defense=d, way=way, evaluations=max(6, round(share * size.steps)))
    for d in ("gaussian", "masked_gaussian")
    for way, shares in SHARES.items()
    for share in shares
]
lengths = page.run([
    trial(page.evaluated, **c, weight=weight[c["defense"], c["way"]]) for c in tried
])  # fmt: skip
lengths["name"] = lengths.way + ", " + lengths.defense.str.replace("_", " ")
lengths["nats"] = lengths.log_posterior - lengths[PRIVATE]
lines = gl.figures.means(lengths, "name", "evaluations")
display(gl.figures.curves(lines, across="evaluations", floor=floor, log=False))
higher = gl.figures.means(lengths, "name", "evaluations", "nats")
unit = "nats above the private image"
display(gl.figures.curves(higher, across="evaluations", unit=unit, log=False))

# %% [markdown]
# Bands are 95 % intervals over images. Above zero in the second figure the climb has found what is
# more probable than the private image; what is still wrong there is the prior.
#
# ## Trained networks: evaluations and starts
#
# The share of images in which the rounded climb ends at least as high, to a nat, as the private
# image and as the best of all climbs that started there, in as many evaluations as above, in three
# times as many, and with several starts:

# %%
BUDGETS = [(1, 1), (3, 1), (3, size.restarts)]  # times the evaluations, starts
trained = [
    dict(defense=d, way="rounded L-BFGS", train_step=t)
    for t in size.train_steps[1:]
    for d in ("gaussian", "masked_gaussian")
]
best = (
    page.tuned(partial(trial, evaluations=size.steps), trained, weight=size.weights)
    if trained
    else []
)
runs = [
    trial(page.evaluated, **c, evaluations=times * size.steps, restarts=starts)
    for c in best
    for times, starts in dict.fromkeys(BUDGETS)
]

# %% tags=["hide-input"]
if runs:
    after = page.run(runs)
    known = after.groupby(["defense", "train_step", "index"])[
        FROM_PRIVATE
    ].transform("max")
    after["arrived"] = after.log_posterior >= known.clip(lower=after[PRIVATE]) - 1
    after["row"] = [
        f"{n} evaluations, {r} start(s)"
        for n, r in zip(after.evaluations, after.restarts, strict=True)
    ]
    after["column"] = after.defense.str.replace("_", " ") + after.train_step.map(
        ", {} steps".format
    )
    display(
        gl.figures.table(
            gl.figures.means(after, "row", "column", "arrived"), digits=2
        )
    )
    display(gl.figures.table(gl.figures.means(after, "row", "column"), floor=floor))
    display(Markdown(limits(after, ["row", "column"])))

# %% [markdown]
# ## Other runs

# %%
page.elsewhere(
    lambda rows: display(
        gl.figures.table(gl.figures.means(rows, "way", "defense")),
        Markdown(limits(rows, ["way", "defense"])),
    ),
    evaluations=[150, 100],
    train_step=0,
)

# %% [markdown]
# ## What it does not do
#
# - Other architectures are not on this page. Where no climb is best everywhere, `gl.attacks.Race`
#   gives each a share of the steps and goes on, for each attack, with the one that is ahead.
# - A more probable image is not always a nearer one. Where the posterior is the limit, a better
#   climb goes farther from the private image, and only a better [prior](06_prior.ipynb) helps.
#
# ## Exercises
#
# 1. Run `gradleak run climb -p strength=0.01`. Which climb suffers from the sharper posterior?
# 2. Which of the two roundings matters more? Give `Rounded` one stage with a tiny `width`, or a
#    tiny `corner`.
