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

from gradleak.attacks._running import Run, run
from gradleak.attacks.attack import Attack, Reconstruction, answered
from gradleak.client import ServerView
from gradleak.gradients import Gradient
from gradleak.models import Normalize

BELIEVED = (
    "give the view labels that you believe in, dataclasses.replace(view, y=labels), such as each "
    "of them in turn, and keep the most probable answer"
)
ONE_EXAMPLE = 1e-3  # a larger residual is no rounding: several examples, or noise


@dataclass(frozen=True)
class FirstLayer(Attack):
    """The image as the input of the network's first layer with parameters: exact, without a search.

    Needs one example a client and a first layer that is linear with a bias. tolerance: the largest
    residual (see `LayerInput`) that is believed; infinite to answer whatever the residual is.
    """

    tolerance: float = ONE_EXAMPLE

    def attack(self, view: ServerView, seed: int = 0) -> Reconstruction:
        """The images, (N, C, H, W), before any normalisation; mid-grey where no unit is active.

        Nothing is random; labels are not needed. Raises ValueError for another first layer to run,
        one that the image does not enter, several examples a client, and where rows disagree by
        more than the tolerance.
        """
        begin = time.perf_counter()
        if view.client.batch_size is not None:
            raise ValueError(
                f"the gradient is a mean over {view.client.batch_size} examples, and a ratio gives "
                "a mixture of them: this needs clients of one example (batch_size=None)"
            )
        layer, image, undo = _first(view)
        active = view.g[_of(layer, "bias")].any(1)
        found = layer_input(view.g.rows(active.nonzero().flatten()), layer)
        if found.residual.numel() and (worst := found.residual.max()) > self.tolerance:
            raise ValueError(
                f"the rows of '{layer}' disagree by {worst:.2g}: this is not the gradient of one "
                "example without noise; search for the image (gradleak.bayes), or take what the "
                "largest row tells: FirstLayer(tolerance=math.inf)"
            )
        x = found.a.new_full((len(view), *image), 0.5)
        x[active] = undo(found.a.view(-1, *image))
        return answered(x, begin)


def _first(view: ServerView) -> tuple[str, tuple[int, ...], Callable[[Tensor], Tensor]]:
    """The first layer to run, the shape of an image, and what makes images of the layer's inputs.

    Raises ValueError unless that layer is linear with a bias, and the image enters it, as it is or
    normalised.
    """
    once = run(view)
    first, image = once.calls[0], view.client.image(once.x)
    _weight_and_bias(view.g, first.name)
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

    a: (N, I). residual: |W - b a^T| / |W| of each, (N,): rounding for one example without noise,
    and near 1 where rows disagree.
    """

    a: Tensor
    residual: Tensor


def layer_input(g: Gradient, layer: str) -> LayerInput:
    """The input of a linear layer, by the row with the largest bias gradient.

    Gives an answer for any gradient; whether to believe it, the residual tells. Raises ValueError
    for layers without a weight and a bias, or that are not linear, and where no unit is active.
    """
    weight, bias = _weight_and_bias(g, layer)
    size, row = bias.abs().max(1)
    if dead := (size == 0).nonzero().flatten().tolist():
        which = ", ".join(map(str, dead[:5]))
        raise ValueError(
            f"no unit of '{layer}' is active for client {which}: its gradient is zero and holds "
            "nothing of the input"
        )
    every = torch.arange(len(row), device=row.device)
    a = weight[every, row] / bias[every, row].unsqueeze(1)
    apart = vector_norm((weight - bias.unsqueeze(2) * a.unsqueeze(1)).flatten(1), dim=1)
    residual = apart / vector_norm(weight.flatten(1), dim=1).clamp_min(torch.finfo(a.dtype).tiny)
    return LayerInput(a, residual)


def labels(view: ServerView) -> Tensor:
    """The labels of each client's examples under cross-entropy: (N,), or (N, B) for batches.

    Those of a batch come in ascending order, each as often as it occurs. The last bias's gradient
    is the mean over the B examples of the predicted chance, minus one at the label: the only
    negative entry of one example (Zhao et al. 2020). A class c with a negative entry g_c has more
    than -B g_c examples; where these least numbers add to B they are exact. Nothing is guessed:
    raises ValueError where they do not, for other losses, last layers and defenses that change the
    entries, by noise, in size (for batches) or by leaving some out.
    """
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
        with warnings.catch_warnings():
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
    if client.batch_size is not None and not torch.allclose(one, client.gradient(x, y)[name]):
        raise ValueError(
            f"{client.defense} changes the gradient, so that it counts no labels: {BELIEVED}"
        )


def _weight_and_bias(g: Gradient, layer: str) -> tuple[Tensor, Tensor]:
    """The gradients of a linear layer's parameters; ValueError for other layers."""
    weight, bias = (g.get(_of(layer, kind)) for kind in ("weight", "bias"))
    if weight is None or bias is None or weight.ndim != 3:
        linear = [k for k in g.layers if _of(k, "bias") in g and g[_of(k, "weight")].ndim == 3]
        raise ValueError(
            f"'{layer}' is no linear layer with a bias, so its input cannot be read off; those "
            f"are {', '.join(linear) or 'none'}. For other first layers search for the image: "
            "gradleak.inverting_gradients"
        )
    return weight, bias


def _of(layer: str, kind: str) -> str:
    """A layer's parameter by name; a network that is one layer has no name."""
    return f"{layer}.{kind}" if layer else kind
