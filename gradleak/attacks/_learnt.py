"""What attacks that are learnt have in common: whom they are trained for, and on what."""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import cached_property

import torch
from torch import nn

from gradleak.attacks.attack import Attack, check_view
from gradleak.client import Client, ServerView
from gradleak.data import Images
from gradleak.defenses import Defense, NoDefense, Noisy
from gradleak.gradients import received
from gradleak.scales import POSITIVE, check_kind, check_number, check_whole, refuse

Family = Callable[[float], Defense]
"""The defense believed in, by its noise scale: the class `GaussianNoise`, or one's own function."""


@dataclass(frozen=True, eq=False, repr=False)
class Learnt(Attack):
    """An attack on clients of a family of defenses, at any noise scale from `lowest` to `highest`.

    It is trained when it is first asked, and once: records of it that are there cost no training.
    client: its network, as it is now, and its loss, whatever its defense. family: the defense by
    its scale. images: whatever the adversary has.
    """

    client: Client
    family: Family
    images: Images
    lowest: float
    highest: float

    def __post_init__(self) -> None:
        check_kind("client", self.client, Client)
        if not callable(self.family):
            refuse("family", "a defense by its scale, such as GaussianNoise", self.family)
        check_kind("images", self.images, Images)
        if len(self.images) < 2:
            raise ValueError(f"it learns from images, at least two, got {len(self.images)}")
        check_number("lowest", self.lowest, POSITIVE)
        check_number("highest", self.highest, POSITIVE)
        if self.lowest > self.highest:
            raise ValueError(f"lowest must not exceed highest: {self.lowest} and {self.highest}")
        for option in (f.name for f in fields(self) if f.kw_only and f.name not in ("lr", "_")):
            check_whole(option, vars(self)[option], 0 if option == "seed" else 1)
        check_number("lr", vars(self).get("lr", 1.0), POSITIVE)
        # A copy, so that what it learns is what it was named after if the network changes later.
        bare = replace(self.client, model=copy.deepcopy(self.client.model), defense=NoDefense())
        object.__setattr__(self, "client", bare)

    def __repr__(self) -> str:
        trained_for = f"{self.family(self.lowest)} to {self.family(self.highest)}"
        options = (f"{f.name}={vars(self)[f.name]}" for f in fields(self) if f.kw_only)
        told = ", ".join([trained_for, f"{len(self.images)} of {self.images.name}", *options])
        return f"{type(self).__name__}({told})"

    @cached_property
    def learnt(self) -> nn.Module:
        """All that it learnt, in one module: what the attack's own `train` returns."""
        with torch.enable_grad():
            learnt = self.train()
        if not all(p.isfinite().all() for p in learnt.state_dict().values()):
            raise ValueError(f"{self!r} learnt weights that are not finite: use a smaller lr")
        return learnt

    def scale(self, view: ServerView) -> float:
        """The clients' noise scale. Raises ValueError for a defense that it was not trained for.

        And for views that tell nothing, see `ServerView.check`, or are of another network.
        """
        check_view(view)
        view.check_belief(self.client)
        if view.shape != self.images.shape:
            raise ValueError(
                f"trained on images {self.images.shape}, this view's x is {view.shape}: make "
                "another attack, with such images"
            )
        if missing := tuple(k for k in received.like(self.client.model) if k not in view.g):
            raise ValueError(
                f"the view lacks {', '.join(missing)}, which the attack was trained with: use one "
                "that climbs, and believes gradleak.Ignore"
            )
        y = view.labels
        if y.is_floating_point() or y.ndim != 1 or int(y.max()) >= self.images.classes:
            raise ValueError(
                f"trained on labels 0 to {self.images.classes - 1}, one a client; this view has "
                f"{y.dtype} {tuple(y.shape)} up to {y.max().item():g}: make another attack for it"
            )
        defense = view.client.defense
        scale = defense.noise_scale if isinstance(defense, Noisy) else math.nan
        if not (self.lowest <= scale <= self.highest and self.family(scale) == defense):
            raise ValueError(
                f"trained for {self.family(self.lowest)} to {self.family(self.highest)}, this "
                f"client has {defense}: make another attack for it"
            )
        return scale
