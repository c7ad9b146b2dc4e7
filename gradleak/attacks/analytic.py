"""What can be read off a gradient without a search.

A linear layer with a bias has the gradients W = delta a^T and b = delta for one example, so each
row of W over its entry of b is the layer's input a (Phong et al. 2018; Geiping et al. 2020,
proposition 3.1).
"""

import time
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.linalg import vector_norm

from gradleak.attacks.attack import Attack, Reconstruction, answered
from gradleak.client import ServerView
from gradleak.gradients import Gradient
from gradleak.models import Normalize
from gradleak.scales import check_number

ONE_EXAMPLE = 1e-3  # a larger residual is no rounding: several examples, or noise


@dataclass(frozen=True)
class FirstLayer(Attack):
    """The image as the input of the network's first layer with parameters: exact, without a search.

    Needs one example a client and a first layer that is linear with a bias. tolerance: the largest
    residual (see `LayerInput`) that is believed; infinite to answer whatever the residual is.
    """

    tolerance: float = ONE_EXAMPLE

    def __post_init__(self) -> None:
        check_number("tolerance", self.tolerance, "[0, inf]")

    def attack(self, view: ServerView, seed: int = 0) -> Reconstruction:
        """The images, (N, C, H, W), before any normalisation; mid-grey where no unit is active.

        Nothing is random; labels are not needed. Raises ValueError for another first layer, several
        examples a client, and where rows disagree by more than the tolerance.
        """
        begin = time.perf_counter()
        if view.client.batch_size is not None:
            raise ValueError(
                f"the gradient is a mean over {view.client.batch_size} examples, and a ratio gives "
                "a mixture of them: this needs clients of one example (batch_size=None)"
            )
        layer = view.g.layers[0]
        active = view.g.get(f"{layer}.bias", torch.ones(len(view), 1)).flatten(1).any(1)
        found = layer_input(view.g.rows(active.nonzero().flatten()), layer)
        if found.residual.numel() and (worst := found.residual.max()) > self.tolerance:
            raise ValueError(
                f"the rows of '{layer}' disagree by {worst:.2g}: this is not the gradient of one "
                "example without noise; search for the image (gradleak.bayes), or take what the "
                "largest row tells: FirstLayer(tolerance=math.inf)"
            )
        shape = view.client.image(found.a.new_empty(1, *view.shape)).shape[1:]
        if found.a.shape[1] != shape.numel():
            raise ValueError(
                f"'{layer}' sees {found.a.shape[1]} numbers and an image has {shape.numel()}: what "
                "enters it is not the image; see layer_input"
            )
        x = found.a.new_full((len(view), *shape), 0.5)
        seen = found.a.view(-1, *shape)
        normalize = [m for m in view.client.model.modules() if isinstance(m, Normalize)]
        x[active] = normalize[0].inverse(seen) if normalize else seen
        return answered(x, begin)


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
    weight, bias = (g.get(f"{layer}.{kind}") for kind in ("weight", "bias"))
    if weight is None or bias is None or weight.ndim != 3:
        linear = [k for k in g.layers if f"{k}.bias" in g and g[f"{k}.weight"].ndim == 3]
        raise ValueError(
            f"'{layer}' is no linear layer with a bias, so its input cannot be read off; those "
            f"are {', '.join(linear) or 'none'}. For other first layers search for the image: "
            "gradleak.inverting_gradients"
        )
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


def labels(g: Gradient) -> Tensor:
    """The label of each client's one example, (N,), under cross-entropy.

    The last bias's gradient is the predicted chance, minus one at the label: its only negative
    entry (Zhao et al. 2020). Raises ValueError if the last layer has no bias.
    """
    name = f"{g.layers[-1]}.bias"
    if name not in g:
        raise ValueError(f"the last layer, '{g.layers[-1]}', has no bias to read the label off")
    return g[name].argmin(1)
