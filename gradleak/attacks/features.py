"""Features in front of a linear layer, read off its gradient, and the image that has them."""

import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gradleak.attacks.adam import Adam
from gradleak.attacks.analytic import check_one_example, layer_input
from gradleak.attacks.attack import Attack, Reconstruction, answered, check_view
from gradleak.attacks.lbfgs import LBFGS
from gradleak.attacks.maximise import Objective, maximize
from gradleak.client import Client, ServerView
from gradleak.device import blocks, ordinary
from gradleak.gradients import ALONE, network
from gradleak.priors import Moment, Prior, TotalVariation, check_prior
from gradleak.scales import POSITIVE, check_kind, check_number

CORNER = 0.01  # pixels over which a prior's corners are rounded off


@dataclass(frozen=True)
class Features(Attack):
    """Match what entered a linear layer, which its gradient tells in closed form.

    A step runs the network up to that layer alone, some ninth of what a gradient costs, and a
    defense that leaves the layer's gradient as it is hides nothing from it. Climbs
    -|features(x) - a|^2 / (2 scale^2 |a|^2) + log p(x) from mid-grey, where a is what
    `layer_input` reads off. Without noise on the gradient the features are exact, so that the
    scale says how much to trust the prior.

    layer: its name, such as "dense1". Raises ValueError for a layer that is not linear with a bias,
    and names those that are; and for clients of several examples.
    """

    layer: str
    prior: Prior = TotalVariation(1e-3)
    scale: float = 0.07
    optimizer: Adam | LBFGS = LBFGS(steps=100)

    def __post_init__(self) -> None:
        check_kind("layer", self.layer, str)
        check_prior("prior", self.prior)
        check_number("scale", self.scale, POSITIVE)
        check_kind("optimizer", self.optimizer, (Adam, LBFGS))

    @ordinary
    def attack(self, view: ServerView, seed: int = 0) -> Reconstruction:
        """The images, (N, *shape). Nothing is random; labels are not needed."""
        begin = time.perf_counter()
        check_view(view, seed)
        check_one_example(view)
        read = layer_input(view.g, self.layer)
        prior = self.prior.given(view).rounded(CORNER)
        grey = read.a.new_full((len(view), *view.shape), 0.5)
        parts = [
            maximize(
                self._objective(view.client, prior, read.a[rows], read.bound[rows] == 0),
                grey[rows],
                self.optimizer,
                prior.project,
            )
            for rows in blocks(len(view), 64 * grey[0].numel(), grey.device)
        ]
        return answered(torch.cat(parts), begin)

    def _objective(self, client: Client, prior: Prior, a: Tensor, told: Tensor) -> Objective:
        size = (a * told).square().sum(1).clamp_min(torch.finfo(a.dtype).tiny)

        def f(x: Tensor, moment: Moment) -> Tensor:
            apart = ((features(client, self.layer, x) - a) * told).square().sum(1)
            return prior.log_prob(x) - apart / (2 * self.scale**2 * size)

        return f


class _EnteredError(Exception):
    """The layer was reached; `a` is what entered it."""

    def __init__(self, a: Tensor) -> None:
        super().__init__("the layer was reached")
        self.a = a


def features(client: Client, layer: str, x: Tensor) -> Tensor:
    """What enters a layer of the client's network at x (N, *shape), (N, I); differentiable."""
    model = client.in_float32.model

    def stop(_: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        raise _EnteredError(next(iter([*args, *named.values()])))

    constant = {k: p.detach() for k, p in model.named_parameters()}
    with ALONE:
        handle = model.get_submodule(layer).register_forward_pre_hook(stop, with_kwargs=True)
        try:
            network.call(model, constant, x)
        except _EnteredError as found:
            return found.a.flatten(1)
        finally:
            handle.remove()
    raise ValueError(f"the network does not run '{layer}', so nothing enters it")
