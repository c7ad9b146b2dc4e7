"""What can be read off a gradient without a search.

A linear layer with a bias has the gradients W = delta a^T and b = delta for one example, so each
row of W over its entry of b is the layer's input a (Phong et al. 2018; Geiping et al. 2020,
proposition 3.1).
"""

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.linalg import vector_norm

from gradleak import look
from gradleak.attacks._running import Run, run
from gradleak.attacks.attack import Attack, Reconstruction, answered, check_view
from gradleak.client import ServerView
from gradleak.defenses import NoDefense
from gradleak.device import ordinary
from gradleak.gradients import Gradient
from gradleak.models import Normalize
from gradleak.scales import check_kind, check_number

BELIEVED = (
    "give the view labels that you believe in, dataclasses.replace(view, y=labels), such as each "
    "of them in turn, and keep the most probable answer"
)
ONE_EXAMPLE = 1e-3  # a larger residual is no rounding: several examples, or noise


@dataclass(frozen=True)
class FirstLayer(Attack):
    """The image as the input of the network's first layer with parameters: exact, without a search.

    Needs one example a client and a first layer that is linear with a bias, of whose gradient parts
    may be hidden (pruned, top-k, masked): what survived is read. tolerance: the largest residual
    (see `LayerInput`) that is believed; infinite to answer whatever the residual is.
    """

    tolerance: float = ONE_EXAMPLE

    def __post_init__(self) -> None:
        check_number("tolerance", self.tolerance, "[0, inf]")

    @ordinary
    def attack(self, view: ServerView, seed: int = 0) -> Reconstruction:
        """The images, (N, C, H, W), before any normalisation.

        Mid-grey where no unit is active, and where a mask hid all that tells a pixel; of a pixel
        that pruning hid, the middle of what its threshold leaves. Nothing is random; labels are not
        needed. Raises ValueError for another first layer to run, one that the image does not enter,
        several examples a client, a bias that was hidden whole, and where rows disagree by more
        than the tolerance.
        """
        begin = time.perf_counter()
        check_view(view, seed)
        check_one_example(view)
        layer, image, undo = _first(view)
        if not look.known(view.client.defense):
            _check_ratios(view, layer)
        of = [v for k, v in view.g.items() if k.rpartition(".")[0] == layer]
        own = [v.reshape(len(v), -1).any(1) for v in of]
        active = torch.stack(own).any(0)
        found = layer_input(view.g.rows(active.nonzero().flatten()), layer)
        if found.residual.numel() and (worst := found.residual.max()) > self.tolerance:
            raise ValueError(
                f"the rows of '{layer}' disagree by {worst:.2g}: this is not the gradient of one "
                "example without noise; search for the image (gradleak.bayes), or take what the "
                "largest row tells: FirstLayer(tolerance=math.inf)"
            )
        x = found.a.new_full((len(view), *image), 0.5)
        seen = undo(found.a.view(-1, *image))
        if not isinstance(view.client.defense, NoDefense):  # else zeros are what they say
            seen = torch.where(found.bound.isinf().view_as(seen), 0.5, seen)
        x[active] = seen
        return answered(x, begin)


def check_one_example(view: ServerView) -> None:
    """ValueError for clients of several examples, of whose gradient no row tells one input."""
    if view.client.batch_size is not None:
        raise ValueError(
            f"the gradient is a mean over {view.client.batch_size} examples, of which one row "
            "tells a mixture: this needs clients of one example (batch_size=None)"
        )


def _check_ratios(view: ServerView, layer: str) -> None:
    """Raise ValueError if a defense of one's own changes what entries of W say over those of b."""
    x = run(view).x.detach()
    y = torch.zeros(1, dtype=torch.long, device=x.device) if view.y is None else view.y[:1]
    true = view.client.gradient(x, y)
    sent = view.client.defense_at(x)(true).sample([(0, 0)])
    found, a = layer_input(sent, layer).a, layer_input(true, layer).a
    if not torch.allclose(found, a.where(found != 0, 0), rtol=0.05, atol=1e-3):
        raise ValueError(
            f"{view.client.defense!r:.99} changes the weights' gradient of '{layer}' otherwise "
            "than the bias's, so their ratio is not the image; search for it (gradleak.bayes)"
        )


def _first(view: ServerView) -> tuple[str, tuple[int, ...], Callable[[Tensor], Tensor]]:
    """The first layer to run, the shape of an image, and what makes images of the layer's inputs.

    Raises ValueError unless that layer is linear with a bias, and the image enters it, as it is or
    normalised.
    """
    once = run(view)
    first, image = once.calls[0], view.client.image(once.x)
    _entries(view.g, first.name)
    normalize = [m for m in view.client.model.modules() if isinstance(m, Normalize)]
    for forth, back in ((lambda x: x, lambda x: x), *((m, m.inverse) for m in normalize)):
        a, entered = first.a.flatten(1), forth(image).flatten(1)
        if a.shape == entered.shape and torch.allclose(a, entered):
            return first.name, tuple(image.shape[1:]), back
    raise ValueError(
        f"what enters '{first.name}' is not the image: it sees {first.a[0].numel()} numbers "
        f"made of its {image[0].numel()}; read those off by layer_input(view.g, '{first.name}'), "
        "and undo what the network did before"
    )


@dataclass(frozen=True)
class LayerInput:
    """What entered a linear layer, as read off its gradient.

    a: (N, I), zero where nothing tells. bound: (N, I), how large |a| can be where no surviving
    entry tells it: smallest survivor over largest delta where zeros are small entries, infinite
    where a mask may have hidden it, zero where a is told. residual: |W - delta a^T| / |W| over the
    entries that survived, (N,): rounding for one example without noise, and near 1 where rows
    disagree.
    """

    a: Tensor
    bound: Tensor
    residual: Tensor


def layer_input(g: Gradient, layer: str) -> LayerInput:
    """The input of a linear layer: each entry by the row with the largest delta that tells it.

    Entries of g that are zero count as hidden, so pruned, top-k and masked gradients are read, too:
    a row whose bias was hidden gets its delta from the inputs that other rows tell. Gives an answer
    for any gradient; whether to believe it, the residual tells. Raises ValueError for layers
    without a weight and a bias, or that are not linear, where no unit is active, and where all of
    the bias was hidden.
    """
    check_kind("g", g, Gradient, "what a view holds: view.g")
    weight, delta = _parameters(g, layer)
    a = _inputs(weight, delta)
    while (told := _deltas(weight, delta, a)).any():  # rows that may tell inputs no other does
        delta = delta + told
        a = _inputs(weight, delta)
    fit = delta.unsqueeze(2) * a.unsqueeze(1)
    judged = (weight != 0) & (delta != 0).unsqueeze(2)
    apart, whole = (vector_norm((v * judged).flatten(1), dim=1) for v in (weight - fit, weight))
    residual = apart / whole.clamp_min(torch.finfo(a.dtype).tiny)
    bound = torch.where(a == 0, _bound(weight, delta, fit).unsqueeze(1), 0)
    return LayerInput(a, bound, residual)


def _entries(g: Gradient, layer: str) -> tuple[Tensor, Tensor]:
    """The gradients of a linear layer's weight (N, O, I) and bias (N, O)."""
    weight, bias = (g.get(_of(layer, kind)) for kind in ("weight", "bias"))
    if weight is None or bias is None or weight.ndim != 3:
        linear = [k for k in g.layers if _of(k, "bias") in g and g[_of(k, "weight")].ndim == 3]
        raise ValueError(
            f"'{layer}' is no linear layer with a bias, so its input cannot be read off; those "
            f"are {', '.join(linear) or 'none'}. For other first layers search for the image: "
            "gradleak.inverting_gradients"
        )
    if weight.shape[:2] != bias.shape:
        raise ValueError(
            f"the gradient of '{layer}.weight' must be (N, O, I) with the bias's {bias.shape[1]} "
            f"outputs, got {tuple(weight.shape)}: transpose it"
        )
    return weight, bias


def _parameters(g: Gradient, layer: str) -> tuple[Tensor, Tensor]:
    """The same, where all of them tell something."""
    weight, bias = _entries(g, layer)
    silent = ~bias.any(1)
    if dead := (silent & ~weight.flatten(1).any(1)).nonzero().flatten().tolist():
        which = ", ".join(map(str, dead[:5]))
        raise ValueError(
            f"no unit of '{layer}' is active for client {which}: its gradient is zero and holds "
            "nothing of the input"
        )
    if hidden := silent.nonzero().flatten().tolist():
        raise ValueError(
            f"all of the gradient of '{layer}.bias' was hidden for client "
            f"{', '.join(map(str, hidden[:5]))}, and without it the weight's tells the input only "
            "up to its scale: search for the image (gradleak.inverting_gradients, or "
            "gradleak.Censored where what was hidden is small)"
        )
    return weight, bias


def _inputs(weight: Tensor, delta: Tensor) -> Tensor:
    """a = W / delta by the row with the largest delta where W survived, (N, I); else zero."""
    size, row = (delta.abs().unsqueeze(2) * (weight != 0)).max(1)
    ratio = weight.gather(1, row.unsqueeze(1)).squeeze(1) / delta.gather(1, row)
    return ratio.masked_fill(size == 0, 0)


def _deltas(weight: Tensor, delta: Tensor, a: Tensor) -> Tensor:
    """The deltas that were hidden, by the largest input that is told, (N, O); else zero."""
    told = _inputs(weight.mT, a)
    return told.masked_fill(delta != 0, 0)


def _bound(weight: Tensor, delta: Tensor, fit: Tensor) -> Tensor:
    """How large |a| can be of an input that no surviving entry tells, (N,)."""
    hidden, rows, told = weight == 0, (delta != 0).unsqueeze(2), (fit != 0).any(1, keepdim=True)
    least = weight.abs().masked_fill(hidden, torch.inf).flatten(1).min(1).values
    most = (fit.abs() * hidden).flatten(1).max(1).values
    # Zeros of entries that are larger than a survivor are a mask's. Either it hid all that a
    # column had, or the input is zero: by Bayes' rule, given how much was hidden elsewhere.
    share = (hidden & rows & told).sum((1, 2)) / (rows & told).sum((1, 2)).clamp_min(1)
    missed = share ** (delta != 0).sum(1)
    dark = 1 - told.squeeze(1).to(share).mean(1)
    masked = missed * (1 - dark) > (1 - missed) * dark / 2
    by_mask = torch.where(masked, torch.inf, 0.0).to(least)
    return torch.where(most > (1 + ONE_EXAMPLE) * least, by_mask, least / delta.abs().max(1).values)


@ordinary
def labels(view: ServerView) -> Tensor:
    """The labels of each client's examples under cross-entropy: (N,), or (N, B) for batches.

    Those of a batch come in ascending order, each as often as it occurs. The last bias's gradient
    is the mean over the B examples of the predicted chance, minus one at the label: the only
    negative entry of one example (Zhao et al. 2020). A class c with a negative entry g_c has more
    than -B g_c examples; where these least numbers add to B they are exact. Nothing is guessed:
    raises ValueError where they do not, for other losses, last layers and defenses that change the
    entries, by noise, in size (for batches) or by leaving some out.
    """
    check_view(view)
    once = run(view)
    name = _logits(view, once)
    _check_release(view, once.x, name)
    g, size = view.g[name], view.client.batch_size or 1
    least = (-size * g - 1e-4).ceil().clamp(1, size).where(g < 0, 0).long()
    balanced = g.sum(1).abs() <= ONE_EXAMPLE * g.abs().sum(1)
    sure = (least.sum(1) == size) & balanced
    if not sure.all():
        which = ", ".join(map(str, (~sure).nonzero().flatten().tolist()[:5]))
        raise ValueError(
            f"the gradient of '{name}' does not tell the labels of client {which} for certain: "
            f"{BELIEVED}"
        )
    found = torch.stack([torch.arange(g.shape[1]).repeat_interleave(n) for n in least.cpu()])
    return (found.squeeze(1) if view.client.batch_size is None else found).to(g.device)


def tokens(g: Gradient, layer: str) -> list[Tensor]:
    """Which tokens each client's text holds, ascending: the rows of an embedding's gradient.

    A row is not zero where its token occurred (Gupta et al. 2022), so order and counts are not
    told, nor is what the embedding leaves out of its gradient: `padding_idx`. A client of B texts
    gives the tokens of all of them. Raises ValueError for a layer without a table, and where every
    row is filled: a table that is tied to the output layer, or noise.
    """
    check_kind("g", g, Gradient, "what a view holds: view.g")
    table = g.get(f"{layer}.weight")
    if table is None or table.ndim != 3:
        tables = [k for k in g.layers if f"{k}.weight" in g and g[f"{k}.weight"].ndim == 3]
        raise ValueError(
            f"'{layer}' has no table of embeddings in this gradient; layers with a matrix are "
            f"{', '.join(tables) or 'none'}. A table that is tied to another layer has its name"
        )
    used = (table != 0).any(2)
    if full := used.all(1).nonzero().flatten().tolist():
        raise ValueError(
            f"every row of '{layer}' is filled for client {', '.join(map(str, full[:5]))}: the "
            "table is tied to the output layer, which fills all of them, or the gradient is noisy. "
            "Attack the embeddings: a model that takes them, and gradleak.inverting_gradients"
        )
    return [row.nonzero().flatten() for row in used]


def _logits(view: ServerView, once: Run) -> str:
    """The bias that is added to the logits of a cross-entropy, by name; ValueError without one."""
    client, last = view.client, once.calls[-1]
    name = _of(last.name, "bias")
    if name not in view.g or not isinstance(last.layer, nn.Linear):
        raise ValueError(
            f"the last layer, '{last.name}', has no bias to read the label off, or is not linear"
        )
    y = torch.arange(len(once.x), device=once.x.device) % last.z.shape[-1]
    try:
        with torch.enable_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a loss that takes other labels
            loss = client.loss(once.output, y)
        (delta,) = torch.autograd.grad(loss, last.z, allow_unused=True)
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        raise ValueError(f"the loss takes no class labels, so there are none: {error}") from error
    once_called = [call.name for call in once.calls].count(last.name) == 1
    chances = last.z.softmax(-1)
    if once_called and delta is not None and last.z.ndim == 2:
        expected = (chances - F.one_hot(y, last.z.shape[1])) / len(y)
        if torch.allclose(delta, expected, rtol=1e-3, atol=1e-5):
            return name
    raise ValueError(
        f"the loss is no cross-entropy of what '{last.name}' puts out, so its gradient does not "
        f"tell the labels: {BELIEVED}"
    )


def _check_release(view: ServerView, x: Tensor, name: str) -> None:
    """Raise ValueError if the defense changes a bias of these random examples."""
    client, count = view.client, len(view)
    x = x if client.batch_size is None else x.unsqueeze(0)
    x = x.detach().expand(count, *x.shape[1:])
    y = torch.zeros(x.shape[:1] if client.batch_size is None else x.shape[:2], dtype=torch.long)
    y = y.to(x.device)
    released = client.distribution(x, y)
    one, two = (released.sample([(s, k) for k in range(count)])[name] for s in (0, 1))
    if not torch.equal(one, two):
        raise ValueError(
            f"{client.defense} draws the gradient at random, which hides the labels: {BELIEVED}"
        )
    true = client.gradient(x, y)[name]
    if client.batch_size is None:
        if (one * true < 0).any():
            raise ValueError(f"{client.defense} turns signs, which tell the labels: {BELIEVED}")
    elif not torch.allclose(one, true):
        raise ValueError(
            f"{client.defense} changes the gradient, so that it counts no labels: {BELIEVED}"
        )


def _of(layer: str, kind: str) -> str:
    """A layer's parameter by name; a network that is one layer has no name."""
    return f"{layer}.{kind}" if layer else kind
