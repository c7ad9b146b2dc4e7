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
# # Cost: many attacks in one computation
#
# ```{admonition} In short
# :class: tip
# - **Claim.** Thousands of attacks fit into one computation, whose cost comes near the arithmetic
#   that it needs; one image at a time, an attack waits for everything else.
# - **Paper.** None: this page is about the engine behind the other pages.
# - **Smaller than it could be.** Every speed was measured on CPU cores; the tables say which.
# ```

# %% tags=["parameters"]
profile = "smoke"  # smoke (digits), quick (MNIST, minutes) or paper (100 images)
device = "auto"  # auto, cpu or cuda
seed = 0  # of the noise, the starts and the network
results = ""  # folder of the records; empty: one below _build/results
dataset = ""  # one of digits, mnist, fashion_mnist or cifar10; empty: the profile's
scale = 0.01  # of the Gaussian noise in the table of precisions, above 0
images = 0  # attacked images; 0: the profile's
steps = 0  # iterations of each attack; 0: the profile's

# %% tags=["hide-input"]
from dataclasses import replace

import matplotlib.pyplot as plt
import pandas as pd
import torch
from IPython.display import HTML, Markdown, display

import gradleak as gl

PROFILES = {
    "smoke": dict(dataset="digits", images=6, steps=60),
    "quick": dict(dataset="mnist", images=20, steps=200),
    "paper": dict(dataset="mnist", images=100, steps=400),
}
page = gl.experiment.page("cost", PROFILES, globals())
size = page.size

# %% [markdown]
# ## The question
#
# A fair comparison wants the same tuning for every attack, a hundred images for an interval, and
# several starts. That is millions of attack iterations. Written the usual way, each iteration asks
# for the gradient of one image and differentiates it, and most of its time goes into everything
# around the arithmetic. How much is left when all attacks run together?
#
# ## The equation
#
# A linear layer with input $a$ and output $z$ has the weight gradient
#
# $$
# \nabla_W \ell = \delta\, a^\top, \qquad \delta = \frac{\partial \ell}{\partial z}.
# $$ (eq-outer)
#
# So one run of the network with shared weights holds the gradients of all attacks: each is made of
# its own $a$ and $\delta$. What compares it with a released gradient $G$ never needs the matrix:
#
# $$
# \langle \delta a^\top, G \rangle = \delta^\top (G a), \qquad
# \lVert \delta a^\top \rVert^2 = \lVert \delta \rVert^2 \, \lVert a \rVert^2 .
# $$ (eq-factors)
#
# A convolution is a linear layer that sees many patches; its gradient is the product of the
# patches with their $\delta$, and small enough to be made. An entrywise distance (L1, Laplace) does
# need the matrix; it is made for a few attacks at a time, while it fits the processor's cache.
#
# ## Ten lines

# %%
delta, a = torch.randn(64, 1, 100), torch.randn(64, 1, 4096)  # 64 attacks
g = torch.randn(64, 100, 4096)
factors = gl.gradients.Outer(delta, a)
with gl.device.LiveMemory() as factored:
    fast = factors.moments(g)
with gl.device.LiveMemory() as dense:
    whole = delta.mT * a
    slow = (whole * g).sum((1, 2)), whole.square().sum((1, 2))
error = (fast[1] / slow[1] - 1).abs().max()
small, large = factored.peak / 2**20, dense.peak / 2**20
f"{small:.2f} MiB, not {large:.0f} MiB; relative error {error:.0e}"

# %% [markdown]
# ## Is it the same attack?
#
# The same attacks, together and one at a time, from the same starts. Members of a batch never mix,
# so the reconstructions agree up to rounding.

# %%
model = gl.models.cnn(page.test.shape, page.test.classes, seed=seed).to(page.device)
client = gl.Client(model, gl.GaussianNoise(scale))
view = client.release(page.evaluated.x, page.evaluated.y, seed=seed)
short = gl.bayes(client, gl.TotalVariation(3.0), optimizer=gl.Adam(steps=10))

short.attack(view[:1])  # the first attack on a network also checks its gradients
together = short.attack(view, seed=seed)
alone = [short.attack(view[[n]], seed=seed) for n in range(len(view))]
apart = (together.x - torch.cat([one.x for one in alone])).abs().max()
faster = sum(one.seconds for one in alone) / together.seconds
f"largest difference of a pixel {apart:.0e}; {faster:.1f} times as fast here"

# %% [markdown]
# ## The figure
#
# $N$ cosine attacks on the CIFAR-10 network, measured by `gradleak bench`: the time of whole
# attacks over their steps. The dashed line is the floor: the least arithmetic of a step, at the
# speed that this machine reached in plain matrix products in the same minutes.


# %%
def measured(what):
    """What `gradleak bench` wrote: (table, facts) of each machine."""
    paths = sorted(page.records.committed.glob(f"{what}-*.csv"))
    return [(e.read(), e.facts()) for e in map(gl.experiment.Exported, paths)]


def scaling(bench):
    """Seconds of one step against the number of attacks, log-log."""
    rows = bench.query(
        "network == 'cnn' and shape == '3x32x32' and belief == 'cosine' "
        "and precision == 'float32' and batch == 1"
    ).sort_values("attacks")
    figure, axis = plt.subplots(figsize=(7.2, 3.4), layout="constrained")
    for label, column, style, color in (
        ("one at a time", "loop_ms", "o-", gl.figures.COLORS[1]),
        ("together", "engine_ms", "o-", gl.figures.COLORS[0]),
        ("floor", "floor_ms", "--", "0.4"),
    ):
        y = rows[column] * rows.attacks / 1e3
        axis.loglog(rows.attacks, y, style, color=color, label=label, ms=4)
    axis.set(xlabel="number of attacks", ylabel="seconds per step")
    axis.grid(color="0.9")
    axis.legend(frameon=False)
    plt.close(figure)
    return figure


for bench, _ in measured("bench"):
    display(scaling(bench))

# %% [markdown]
# Few attacks leave the machine idle; from some dozens on, the time grows with their number and
# stays within a small factor of the floor. Memory does not grow with it: attacks are held in
# chunks, whose size is chosen from the free memory and halved where that was not enough.
#
# ## The table

# %% tags=["hide-input"]
WHAT = {"what": "network, images", "how": "attack", "attacks": "attacks"}
TIMES = WHAT | {
    "engine_ms": "here, ms",
    "loop_ms": "usual loop",
    "loop_best_ms": "its best threads",
    "shipped_ms": "as shipped",
    "breaching_ms": "breaching",
    "times": "times as fast",
    "ratio_best": "both at best",
}
SHARES = WHAT | {
    "floor_share": "share of the floor",
    "copy_share": "of the copy speed",
    "mib_per_attack": "MiB each",
}


def shown(table, columns):
    """Some columns of a table, by the names they have for readers."""
    html = (
        table[list(columns)]
        .rename(columns=columns)
        .to_html(index=False, float_format="{:.2f}".format, na_rep="")
    )
    display(HTML(html))


def described(bench):
    """The same, with what was attacked and how in words."""
    low, middle, high = (
        bench[k].map("{:.1f}".format) for k in ("ratio_low", "ratio", "ratio_high")
    )
    rounded = ("; " + bench.precision).where(bench.precision != "float32", "")
    several = bench.batch.map("; {} images a client".format).where(
        bench.batch > 1, ""
    )
    on = bench.released.map("; on {} gradients".format).where(
        bench.released != bench.attacks, ""
    )
    return bench.assign(
        what=bench.network + " " + bench["shape"],
        how=bench.belief + on + several + rounded,
        times=middle + " (" + low + " – " + high + ")",
    )


for bench, facts in measured("bench"):
    display(Markdown(f"""{facts["hardware"]}, PyTorch {facts["torch"]},
{facts["date"]}: `{facts["command"]}`, medians of {bench.rounds.iloc[0]} rounds, all
in turns. Milliseconds for one step of one attack, of whole attacks of
{bench.steps.min()} to {bench.steps.max()} steps, set-up and scores included."""))  # fmt: skip
    shown(described(bench), TIMES)

# %% [markdown]
# The *usual loop* attacks one client with `torch.autograd.grad` twice. It runs with the threads
# that PyTorch takes by itself, with those that are *best* for it, and *as shipped*: in a process
# that gives memory back to the system, as processes do by themselves and experiments here do not.
# *breaching* is the attack "Inverting gradients" of the package of that name, where it was
# installed. *Times as fast* compares the first two columns, with quartiles over rounds.
#
# One attack of a small network waits for Python more than for arithmetic, so its step is recorded
# and replayed. Where arithmetic dominates already (`convnet`, the network of ATS), little is to be
# gained. Where many attacks share one released gradient (restarts, settings), it is stored and read
# once, and the gain is largest.
#
# ## Seconds to a picture

# %% tags=["hide-input"]
for reach, facts in measured("reach"):
    first = {}
    for target in (20, 24):
        enough = (
            reach[reach.psnr >= target].sort_values("steps").groupby("way").first()
        )
        first[target] = {
            way: f"{row.seconds:.1f} s ({row.steps} steps)"
            for way, row in enough.iterrows()
        }
    one, lengths = reach.iloc[0], sorted(set(reach.steps))
    display(Markdown(f"""{facts["hardware"]}, {facts["date"]}: `{facts["command"]}`.
{one.images} test images of {one.dataset}, untrained `{one.network}`, no defense, cosine
with signed steps, until their mean PSNR is at least, of {lengths} steps:"""))  # fmt: skip
    ways = {"engine": "together", "loop": "usual loop, one by one"}
    reached = (
        pd.DataFrame(first).reindex(list(ways)).rename(ways).fillna("not reached")
    )
    display(HTML(reached.rename(columns="{} dB".format).to_html()))

# %% [markdown]
# Both climb the same way from the same starts and come as near in as many steps; a test holds them
# to it.
#
# ## What limits it

# %% tags=["hide-input"]
for bench, _ in measured("bench"):
    shown(described(bench.query("precision == 'float32'")), SHARES)

# %% [markdown]
# *MiB each* is the peak of what lives during an attack, divided by the attacks, without the
# released gradients. *Of the copy speed* is how fast the operations of a step read and write
# memory, as a share of what a plain copy reached in the same minutes. Products are in float32, in
# which the floor was measured.
#
# ## Fewer bits
#
# Graphics cards multiply faster with rounded inputs, and `gl.device.products("tf32")` around an
# attack asks for it. What does that do to the attack? Here the inputs of every matrix product and
# convolution are rounded in software; the image, Adam's state and the released gradient stay in
# float32.

# %%
adam = gl.Adam(steps=size.steps, lr=0.1, decay=0.98, signed=True)
prior = gl.Sum((gl.TotalVariation(1.0), gl.Box()))
bare = replace(client, defense=gl.NoDefense())
held = {
    "no defense": gl.inverting_gradients(bare, prior, 3000 / scale, optimizer=adam),
    f"gaussian {scale:g}": gl.bayes(client, prior, optimizer=adam),
}


def score(defense, precision, draw=seed):
    """PSNR of each image, with the inputs of matrix products in this precision."""
    truth = bare if defense == "no defense" else client
    labels = dict(defense=defense, precision=precision, model="cnn", model_seed=seed,
                  train_step=0)  # fmt: skip
    trial = gl.Trial(truth, held[defense], page.evaluated, labels, seed=draw)
    with gl.device.MatrixInputs(precision):
        return page.run([trial]).psnr


psnr = {d: {p: score(d, p) for p in gl.device.PRECISIONS} for d in held}
for defense, row in psnr.items():
    row["other seed"] = score(defense, "float32", seed + 1)

# %% tags=["hide-input"]
means = {d: {p: gl.interval(v) for p, v in row.items()} for d, row in psnr.items()}
changes = {
    d: {f"{p} − float32": gl.paired(v, row["float32"]).difference
        for p, v in row.items() if p != "float32"}
    for d, row in psnr.items()
}  # fmt: skip
display(gl.figures.table(means, changes))
Markdown(f"""Mean PSNR in dB and 95 % bootstrap interval over **{size.images}
images** of {size.dataset}; network `cnn`, untrained; {size.steps} iterations;
{page.records.facts()["hardware"]}. On the right, paired differences over the same
images. *Other seed* is float32 from other starts: the size of mere luck.""")

# %% [markdown]
# ## What did not help
#
# Compiling the step (`torch.compile`) promises to fuse what lies between the matrix products, and
# rounded inputs (`gl.device.products`) to make those faster. The engine compiles only where that
# was measured to gain:


# %%
def verdict(gain):
    """How much faster, in words."""
    return f"**{'A gain' if gain > 1 else 'No gain'}**, {gain:.2f} times the speed."


said = []
for table, facts in measured("compiled"):
    middle = table[["eager_ms", "compiled_ms", "first_s"]].median()
    said.append(f"""- {facts["hardware"]}, PyTorch {facts["torch"]},
  {table.attacks.iloc[0]} cosine attacks, {len(table)} rounds: eager
  {middle.eager_ms:.2f} ms, compiled {middle.compiled_ms:.2f} ms for each attack and
  step, {middle.first_s:.0f} s for the first call.
  {verdict(middle.eager_ms / middle.compiled_ms)}""")
for bench, facts in measured("bench"):
    what = ["network", "shape", "belief", "attacks", "released"]
    exact = bench[bench.precision == "float32"].set_index(what).engine_ms
    for _, row in bench[bench.precision != "float32"].iterrows():
        said.append(f"""- {facts["hardware"]}, {row.attacks} {row.belief} attacks on
  `{row.network}`, products in {row.precision}:
  {verdict(exact[tuple(row[what])] / row.engine_ms)}""")
Markdown("\n".join(said))

# %% [markdown]
# So the engine runs eagerly, and gains by doing less instead: channels innermost in memory, no
# derivative of the shared weights, a convolution's gradients of all attacks as one convolution with
# a group for each, and both products with a released layer, $G a$ and $\delta^\top G$, while it is
# in the cache.
#
# ## Exercises
#
# 1. `gradleak bench` repeats the measurement on your machine. Where does the curve bend, and why
#    earlier for the larger network?
# 2. Give the search some patience: `gl.Adam(steps=1000, patience=50)` lets an attack leave the
#    batch when fifty steps brought nothing. How much time does it save, and what does it cost?
# 3. Put a `torch.nn.Conv1d` into your own network. `gl.gradients.path` tells that the general path
#    runs; how much slower is it?
