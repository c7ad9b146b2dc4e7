"""The paper's comparison: five ways to hide a gradient, and what attackers take them for."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any, ClassVar

from torch import nn

from gradleak.attacks import Adversary, Optimizer, inverting_gradients, prior_only
from gradleak.client import Client
from gradleak.data import Images
from gradleak.defenses import (
    Defense,
    Direction,
    GaussianNoise,
    LaplaceNoise,
    LayerDirections,
    LayerWeights,
    RandomMask,
    UnknownMask,
    learned_noise,
)
from gradleak.experiment.page import Page
from gradleak.experiment.trials import Trial
from gradleak.gradients import Gradient
from gradleak.priors import Box, BoxPenalty, Prior, Sum, TotalVariation

PRIORS: dict[str, Callable[[float], Prior]] = {
    "TV": TotalVariation,
    "TV + box": lambda weight: Sum((TotalVariation(weight), Box())),
    "TV + soft box": lambda weight: Sum((TotalVariation(weight), BoxPenalty(10 * weight))),
}


@dataclass(frozen=True)
class Comparison:
    """Every adversary against every defense, on one page (paper, Tables 2 and 5).

    The page's size tells the seed, the network, its train_steps, the strength (a noise scale) and
    the mask_rate, too.
    """

    # Of both pages, which share their records; `scales` and `swept` are of all other tables.
    PROFILES: ClassVar[dict[str, dict[str, Any]]] = {
        "smoke": dict(dataset="digits", images=6, tuning=2, shown=4, steps=40, restarts=1,
                      train_steps=[0, 10], weights=[1.0, 5.0], scales=[0.01, 0.1, 1.0], swept=4),
        "quick": dict(dataset="mnist", images=20, tuning=4, shown=8, steps=100, restarts=1,
                      train_steps=[0, 100], weights=[1.0, 3.0, 10.0],
                      scales=[0.001, 0.01, 0.1, 0.3, 1.0], swept=8),
        "paper": dict(dataset="mnist", images=100, tuning=8, shown=8, steps=150, restarts=1,
                      train_steps=[0, 10, 100, 1000], weights=[0.5, 1.5, 3.0, 6.0, 20.0],
                      scales=[0.001, 0.01, 0.03, 0.1, 0.3, 1.0], swept=20),
    }  # fmt: skip

    page: Page

    @cached_property
    def model(self) -> nn.Module:
        """The untrained network."""
        return self.page.network("cnn", "cnn2", "mlp")

    @cached_property
    def public(self) -> Gradient:
        """Gradients of public images, from which noise is learned."""
        images = self.page.tuned_on
        return Client(self.model).release(images.x, images.y).g

    def defenses(self, scale: float) -> dict[str, Defense]:
        """The five defenses at one noise scale."""
        rate = self.page.size.mask_rate
        gaussian, laplace = GaussianNoise(scale), LaplaceNoise(scale)
        return {
            "gaussian": gaussian,
            "laplace": laplace,
            "masked_gaussian": RandomMask(rate, then=gaussian),
            "masked_laplace": RandomMask(rate, then=laplace),
            "learned": learned_noise(self.public, scale),
        }

    def beliefs(self, defense: str, scale: float) -> dict[str, Defense]:
        """What each adversary takes a defense for."""
        truth = self.defenses(scale)[defense]
        gaussian, laplace = GaussianNoise(scale), LaplaceNoise(scale)
        held = {
            "Bayes": truth,
            "L2": gaussian,
            "L1": laplace,
            "cosine": Direction(3000 / scale),  # about sqrt(parameters) |gradient| / scale
            "cosine per layer": LayerDirections(3000 / scale / len(self.public)),
        }
        if isinstance(truth, RandomMask):
            held["L2, mask"] = replace(truth, then=gaussian)
            held["L1, mask"] = replace(truth, then=laplace)
            held["Bayes, mask unknown"] = UnknownMask(truth.rate, then=truth.then)
        return held

    def cells(self, adversaries: Collection[str] = (), **same: Any) -> list[dict[str, Any]]:
        """Each adversary against each defense; adversaries: of those only, empty: of all."""
        scale = self.page.size.strength
        return [
            dict(defense=defense, adversary=adversary, **same)
            for defense in self.defenses(scale)
            for adversary in self.beliefs(defense, scale)
            if not adversaries or adversary in adversaries
        ]

    @cached_property
    def early(self) -> int:
        """The last training step up to 100: at it, networks of other scales are compared."""
        steps = self.page.size.train_steps
        return max((t for t in steps if t <= 100), default=steps[0])

    @cached_property
    def _trained(self) -> Callable[[str, float], dict[int, nn.Module]]:
        size, early = self.page.size, {self.page.size.train_steps[0], self.early}
        return cache(lambda defense, scale: self.page.networks(
            Client(self.model, self.defenses(scale)[defense]),
            size.train_steps if scale == size.strength else early, seed=size.seed,
        ))  # fmt: skip

    def network(self, defense: str, scale: float, train_step: int) -> nn.Module:
        """The network after that many steps of training under a defense."""
        return self._trained(defense, scale)[train_step] if train_step else self.model

    def trial(
        self, images: Images, defense: str, adversary: str, weight: float, train_step: int = 0,
        scale: float | None = None, prior: str = "TV", layers: str = "equal",
        keep: Sequence[int] = (), climb: Optimizer | None = None, restarts: int = 0,
    ) -> Trial:  # fmt: skip
        """One adversary against one defense. scale: of its noise; None: the page's strength.

        layers: "equal", or "falling", with errors of later layers weighted less. climb, restarts:
        None and 0 take the page's; labels tell of another climb.
        """
        size = self.page.size
        scale = size.strength if scale is None else scale
        truth = Client(self.network(defense, scale, train_step), self.defenses(scale)[defense])
        belief = self.beliefs(defense, scale)[adversary]
        if layers == "falling":
            falling = tuple(0.6065**k for k in range(len(self.public.layers)))
            belief = LayerWeights(falling, then=belief)  # |error|^2 weighted 1, 1/e, 1/e^2, ...
        how = self._climb | ({"optimizer": climb} if climb else {})
        how |= {"restarts": restarts} if restarts else {}
        attack = Adversary(replace(truth, defense=belief), PRIORS[prior](weight), **how)
        labels = dict(defense=defense, adversary=adversary, scale=scale, weight=weight,
                      model=size.network, train_step=train_step, p_x=prior,
                      layers=layers)  # fmt: skip
        labels |= {"way": climb.names[0], "evaluations": climb.steps} if climb else {}
        return Trial(truth, attack, images, labels, size.seed, keep)

    def controls(self) -> list[Trial]:
        """What is read off a bare gradient, and what the prior alone makes up."""
        size, page = self.page.size, self.page
        bare, prior = Client(self.model), Sum((TotalVariation(3.0), Box()))
        hidden = replace(bare, defense=self.defenses(size.strength)["masked_gaussian"])
        labels = dict(scale=size.strength, weight=3.0, model=size.network, train_step=0,
                      p_x="control", layers="equal")  # fmt: skip
        arms = (
            ("no defense", bare, inverting_gradients(bare, **self._climb)),
            ("prior alone", hidden, prior_only(hidden, prior, **self._climb)),
        )
        return [Trial(client, attack, page.evaluated, dict(defense=arm, adversary=arm, **labels),
                      size.seed, page.few.index) for arm, client, attack in arms]  # fmt: skip

    @property
    def _climb(self) -> dict[str, Any]:
        return dict(optimizer=self.page.search, restarts=self.page.size.restarts)
