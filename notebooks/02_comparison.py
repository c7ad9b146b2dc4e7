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
# # Comparison: believe the true defense
#
# ```{admonition} In short
# :class: tip
# - **Claim.** An attacker who knows how the client hides its gradient should use exactly that
#   knowledge: maximise $\log p(g \mid x) + \log p(x)$ with the true $p(g \mid x)$.
# - **Paper.** Section 5 and Table 2 of {cite}`balunovic2022bayesian`.
# - **Smaller than the paper's run.** Fewer images, a shorter attack and a smaller search for its
#   settings; every table says how many images it stands on.
# ```

# %% tags=["parameters"]
profile = "smoke"  # smoke (digits, seconds), quick (MNIST, minutes) or paper (100 images)
device = "auto"  # auto, cpu or cuda
seed = 0  # of the noise, the starts and the network
results = ""  # folder of the records; empty: one below _build/results
dataset = ""  # digits, mnist, fashion_mnist or cifar10; empty: the profile's
network = "cnn"  # cnn, cnn2 or mlp
train_step = 0  # training steps of the attacked network, with the defense active
defense = "masked_gaussian"  # shown in pictures: gaussian, laplace, masked_gaussian, masked_laplace
strength = 0.1  # scale of the noise
mask_rate = 0.5  # share of gradient entries that a mask sets to zero
images = 0  # evaluated images; 0: the profile's
steps = 0  # iterations of each attack; 0: the profile's
restarts = 0  # starts of each attack, of which the most probable is kept; 0: the profile's

# %% tags=["hide-input"]
from dataclasses import replace
from pathlib import Path

import torch
from IPython.display import Markdown, display

import gradleak as gl

PROFILES = {
    "smoke": dict(dataset="digits", images=8, tuning=3, shown=5, steps=80, restarts=1),
    "quick": dict(dataset="mnist", images=20, tuning=4, shown=8, steps=100, restarts=2),
    "paper": dict(dataset="mnist", images=100, tuning=20, shown=8, steps=200, restarts=4),
}
NETWORKS = {"cnn": gl.models.cnn, "cnn2": gl.models.cnn2, "mlp": gl.models.mlp}
size = gl.profile(profile, PROFILES, dataset=dataset, images=images, steps=steps, restarts=restarts)
dataset = gl.choose("dataset", size.dataset, gl.data.NAMES)
results = Path(results or f"../_build/results/{profile}")
records = results / f"comparison-{profile}-{dataset}.csv"
command = f"gradleak run comparison --profile {profile}"

# %% [markdown]
# ## The question
#
# A client holds an image $x$ with label $y$ and releases a gradient $g$. Four published defenses
# hide it: Gaussian noise, Laplace noise, and a random mask followed by either. The mask is public:
# server and clients need it to train.


# %%
def defenses(scale):
    """The four defenses at one noise scale."""
    gaussian, laplace = gl.GaussianNoise(scale), gl.LaplaceNoise(scale)
    return {
        "gaussian": gaussian,
        "laplace": laplace,
        "masked_gaussian": gl.RandomMask(mask_rate, then=gaussian),
        "masked_laplace": gl.RandomMask(mask_rate, then=laplace),
    }


DEFENSES = list(defenses(strength))
defense = gl.choose("defense", defense, DEFENSES)

# %% [markdown]
# ## The equation
#
# With $\nabla(x) = \nabla_\theta\, \ell(f_\theta(x), y)$ the true gradient and $m$ the mask (all
# ones where there is none), each defense is a density of what is released:
#
# $$
# \begin{aligned}
# \text{Gaussian:}\quad p(g \mid x)
#   &= \prod_i \mathcal N\bigl(g_i;\, m_i \nabla_i(x),\, \sigma^2\bigr), \\
# \text{Laplace:}\quad p(g \mid x)
#   &= \prod_i \tfrac{1}{2b} \exp\bigl(-|g_i - m_i \nabla_i(x)| / b\bigr).
# \end{aligned}
# $$ (eq-densities)
#
# Bayes' rule turns it into the attack:
#
# $$
# \hat x = \operatorname*{arg\,max}_x \; \log p(g \mid x) + \log p(x).
# $$ (eq-map)
#
# The older attacks maximise the same sum with another belief in the place of $p(g \mid x)$. L2
# believes Gaussian noise and no mask. L1 believes Laplace noise and no mask. Cosine believes that
# only the direction of $g$ tells anything.
#
# ## Ten lines

# %%
test = gl.data.load(dataset, "test")
model = NETWORKS[gl.choose("network", network, NETWORKS)](test.shape, test.classes, seed=seed)
model = model.to(gl.device(device))
client = gl.Client(model, defense=defenses(strength)[defense])  # p(g | x, y)
one = test.take([0])
view = client.release(one.x, one.y, seed=seed)  # all that the server sees
search = gl.Adam(steps=size.steps, lr=0.1, decay=0.97, signed=True)
prior = gl.TotalVariation(3.0)  # p(x)
attack = gl.bayes(client, prior, optimizer=search).attack(view, seed=seed)  # argmax over x
f"PSNR {gl.psnr(attack.x.cpu(), one.x).item():.1f} dB"

# %% [markdown]
# ## Does the attack work at all?
#
# First without a defense. What is released is then the gradient itself, a point mass without a
# density, so we let the adversary believe in the direction alone. What it reaches is the ceiling:
# below it, differences measure the defenses and not a broken attack.

# %%
few = test.take(range(min(size.shown, size.images)))
bare = replace(client, defense=gl.NoDefense())
clean = gl.inverting_gradients(bare, optimizer=replace(search, decay=0.98))
clean_view = bare.release(few.x, few.y)
clean_x = clean.attack(clean_view, seed=seed).x.cpu()
clean_psnr = gl.psnr(clean_x, few.x)
gl.plot.images(few.x, clean_x, labels=["private $x$", "no defense"], scores=[clean_psnr])

# %% [markdown]
# ## Four attacks, tuned alike
#
# Each adversary may choose how strongly it trusts its prior. All get the same number of trials, on
# training images that are never evaluated, and the same climb. A cosine has no noise scale; its
# concentration, $3000 / \sigma$, is of the order at which Gaussian noise would put it,
# $\sqrt{n}\, \norm{\nabla} / \sigma$ for $n$ parameters.


# %%
def adversaries(client, scale, weight):
    """The four attacks with the same prior and the same climb."""
    tv = gl.TotalVariation(float(weight))
    return {
        "Bayes": gl.bayes(client, tv, optimizer=search),
        "L2": gl.dlg(client, tv, scale, optimizer=search),
        "L1": gl.l1(client, tv, scale, optimizer=search),
        "Cosine": gl.inverting_gradients(client, tv, 3000 / scale, optimizer=search),
    }


WEIGHTS = [0.3, 1.0, 3.0, 10.0, 30.0]
ATTACKS = ["Bayes", "L2", "L1", "Cosine"]

# %% tags=["hide-input"]
train_images = gl.data.load(dataset, "train")
models = dict.fromkeys(DEFENSES, model)
if train_step:
    for name, each in defenses(strength).items():
        client = gl.Client(model, each)
        (checkpoint,) = gl.train.checkpoints(client, train_images, [train_step], seed=seed)
        models[name] = checkpoint.model
        print(f"{name}: test accuracy {gl.train.accuracy(checkpoint.model, test):.3f}")


def trial(images, weight, defense, adversary, scale=strength, keep=()):
    """One adversary against one defense."""
    attacked = gl.Client(models[defense], defenses(scale)[defense])
    return gl.Trial(
        attacked,
        adversaries(attacked, scale, weight)[adversary],
        images,
        {"defense": defense, "adversary": adversary, "scale": scale, "weight": weight,
         "model": network, "train_step": train_step},
        size.restarts,
        seed,
        keep,
    )  # fmt: skip


# %%
cells = gl.experiment.grid(defense=DEFENSES, adversary=ATTACKS)
tuned_on = train_images.take(range(size.tuning))
tuning = [trial(tuned_on, weight, **cell) for cell in cells for weight in WEIGHTS]
tuning = gl.experiment.run(tuning, records, command)
score = tuning.groupby(["defense", "adversary", "weight"])["psnr"].mean()
best = score.unstack().idxmax(axis=1)  # the weight that each adversary chose
best.unstack()[ATTACKS].loc[DEFENSES].rename_axis(index=None, columns=None)

# %% [markdown]
# Now the evaluation: test images, fixed indices, each adversary with the weight that it chose.

# %%
evaluated, shown = test.take(range(size.images)), list(few.index)
cells_best = [(best[cell["defense"], cell["adversary"]], cell) for cell in cells]
table = [trial(evaluated, weight, **cell, keep=shown) for weight, cell in cells_best]
table = gl.experiment.run(table, records, command)

# %% [markdown]
# ## The figure

# %% tags=["picture", "hide-input"]
in_figure = table[(table.defense == defense) & table["index"].isin(shown)].groupby("adversary")
picked = [in_figure.get_group(attack) for attack in ATTACKS]
gl.plot.images(
    few.x,
    clean_x,
    *(gl.records.images(records, rows.id) for rows in picked),
    labels=["private $x$", "no defense", *ATTACKS],
    scores=[clean_psnr, *(torch.tensor(rows.psnr.to_numpy()) for rows in picked)],
)

# %% [markdown]
# The four attacks see the same released gradients, have the same kind of prior, tuned alike, and
# climb equally long. Only the belief differs. Under each picture stands its PSNR in dB.
#
# ## The table


# %% tags=["hide-input"]
def means(table):
    """{defense: {attack: mean PSNR with its interval}}."""
    groups = table.groupby(["defense", "adversary"]).psnr
    return {d: {a: gl.interval(groups.get_group((d, a))) for a in ATTACKS} for d in DEFENSES}


def differences(table):
    """Bayes minus every other attack, image by image."""
    scores = table.set_index(["defense", "adversary", "index"]).psnr.sort_index()
    return {
        d: {f"Bayes − {a}": gl.paired(scores[d, "Bayes"], scores[d, a]).difference
            for a in ATTACKS[1:]}
        for d in DEFENSES
    }  # fmt: skip


floor = gl.psnr(train_images.x.mean(0).expand_as(evaluated.x), evaluated.x).mean().item()
gl.plot.intervals(means(table), floor=floor)
# %% tags=["hide-input"]
display(gl.plot.table(means(table), differences(table), floor=floor))
Markdown(
    f"Mean PSNR in dB and 95 % bootstrap interval over **{len(evaluated)} images** of {dataset}; "
    f"network `{network}` after {train_step} training steps; noise scale {strength}; "
    f"{size.restarts} restart(s) of {search.steps} iterations; "
    f"{gl.records.facts(records)['hardware']}. On the right, paired differences over the same "
    f"images. The data-free floor, the mean training image, is at {floor:.1f} dB; a dagger marks "
    "what is below it."
)

# %% [markdown]
# ## The strength slider
#
# Move the noise scale. The prior stays what it was: knowledge about images does not depend on the
# noise.

# %% tags=["hide-input"]
SCALES = [0.01, 0.03, 0.1, 0.3, 1.0]
ON_SLIDER = ["Bayes", "L2", "Cosine"]


def frame(defense, scale):
    """The slider's pictures at one defense and noise scale."""
    rows = [gl.widgets.Row("private x", few.x)]
    cells = [trial(few, best[defense, a], defense, a, scale, keep=shown) for a in ON_SLIDER]
    run = gl.experiment.run(cells, records, command).groupby("adversary")
    for attack in ON_SLIDER:
        part = run.get_group(attack)
        pictures = gl.records.images(records, part.id)
        rows.append(gl.widgets.Row(attack, pictures, part.psnr.tolist()))
    return gl.widgets.Frame(f"{scale:g}", tuple(rows))


sweep = gl.experiment.grid(defense=DEFENSES, adversary=ON_SLIDER, scale=SCALES)
strip = [trial(few, best[c["defense"], c["adversary"]], **c, keep=shown) for c in sweep]
strip = gl.experiment.run(strip, records, command)
frames = {d.replace("_", " "): [frame(d, scale) for scale in SCALES] for d in DEFENSES}
gl.widgets.strength(frames, live=lambda d, scale: frame(d.replace(" ", "_"), scale))

# %% [markdown]
# The same for print, as mean PSNR over these pictures:

# %% tags=["hide-input"]
at = strip[strip.defense == defense].groupby(["adversary", "scale"]).psnr
lines = {a: {s: gl.interval(at.get_group((a, s))) for s in SCALES} for a in ON_SLIDER}
gl.plot.curves(lines, across=f"noise scale ({defense.replace('_', ' ')})", floor=floor)

# %% [markdown]
# ## What to read off it

# %% tags=["hide-input"]
compared = differences(table)


def clear(d, a):
    """The sentence's verdict on one pair: is its interval clear of zero?"""
    pair = compared[d][f"Bayes − {a}"]
    verdict = "clear of zero" if pair.low > 0 or pair.high < 0 else "not clear of zero"
    return f"{pair:.1f} dB, {verdict}"


Markdown(f"""
- **The mask decides most.** Against masked Gaussian noise, Bayes minus L2 is
  {clear("masked_gaussian", "L2")}. L2 tries to explain entries that were never sent.
- **The shape of the noise decides the rest.** Against Laplace noise, Bayes minus L2 is
  {clear("laplace", "L2")}; against Gaussian noise, Bayes minus L1 is {clear("gaussian", "L1")}.
- **Where the belief is true, the old attack is the Bayes attack.** L2 under Gaussian noise and L1
  under Laplace noise are the same computation, so those differences are exactly zero.
- **A cosine is a reasonable belief about Gaussian noise.** Bayes minus cosine is
  {clear("gaussian", "Cosine")}. Under a mask it is {clear("masked_gaussian", "Cosine")}.
""")

# %% [markdown]
# ## What did not reproduce, and why
#
# - **Absolute numbers.** The paper attacks networks trained under the defense; their training is
#   not published. Here the network is untrained unless `train_step` says otherwise. Its prior is a
#   squared variation that wraps around the border; ours is the absolute one and does not.
# - **Cosine far behind under Gaussian noise.** We do not see that once cosine is tuned like the
#   others. In the published code it also couples ten images through common norms; here each image
#   is attacked on its own.
# - **"Optimal" speaks of averages under the true prior, and of the maximum.** Total variation is
#   not that prior, and a climb finds a local maximum. So a wrong belief may win: at small noise the
#   slider shows cosine ahead, whose landscape is easier to climb.
#
# ## Exercises
#
# 1. Run `gradleak run comparison -p mask_rate=0.9`. Which attack suffers most, and why not Bayes?
# 2. Give L2 the mask: `gl.RandomMask(mask_rate, then=gl.GaussianNoise(s))` as the belief against
#    masked Laplace noise. How much of the gap closes?
# 3. Train first: `-p train_step=100`. Which defense protects a trained network better than an
#    untrained one?
#
# Cited works are on the page [References](../book/references.md).
