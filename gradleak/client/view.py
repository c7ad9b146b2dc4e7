"""What the server sees of clients."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gradleak import gradients
from gradleak.client import checks
from gradleak.device import ordinary
from gradleak.gradients import Gradient, received
from gradleak.randomness import check_seed
from gradleak.scales import check_kind, check_whole

if TYPE_CHECKING:
    from gradleak.client.client import Client


LARGEST = 2**40  # numbers of an example


@dataclass(frozen=True)
class ServerView:
    """All that a server sees of N clients: nothing here reveals x or the true gradient.

    client: the public description (model, loss, defense and its parameters).
    g: the released gradients. y: the labels, or None where they are hidden.
    shape: that of one attack's x. key: N integers that tell the clients apart.
    """

    client: Client
    g: Gradient
    y: Tensor | None
    shape: tuple[int, ...]
    key: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.key)

    def __repr__(self) -> str:
        size = self.client.batch_size
        of = "one example" if size is None else f"{size} examples"
        labels = "hidden" if self.y is None else "known"
        return (
            f"ServerView({len(self)} client{'s' * (len(self) != 1)} of {of}; x {self.shape}, "
            f"labels {labels}, {self.client})"
        )

    @ordinary
    def __getitem__(self, index: slice | Sequence[int]) -> ServerView:
        """The view of some of the clients: a slice, or a sequence of positions."""
        self._check_kinds()
        places = _places(index, len(self))
        rows = torch.tensor(places, dtype=torch.long, device=next(iter(self.g.values())).device)
        return replace(
            self,
            g=self.g.rows(rows),
            y=None if self.y is None else self.y[rows],
            key=tuple(self.key[i] for i in places),
        )

    def check(self, seed: int = 0) -> None:
        """Raise ValueError where an attack would answer with what g does not tell.

        That is so without a client, for g that is zero or not finite, for labels that the loss
        does not take, for a model that was put into train mode, frozen or cast since; and for a
        seed that is none.
        """
        check_seed("seed", seed)
        self._check_kinds()
        if not hasattr(self.client, "model"):
            raise ValueError(f"the view's client is {self.client!r:.99}: give it a Client")
        gradients.network.check(self.client.model)
        received.check_fits(self.client.model, self.g)
        if not len(self) or self.g.attacks != len(self):
            raise ValueError(
                f"nothing to attack: the view has {len(self)} keys and g of {self.g.attacks} "
                "clients; give at least one of both, and as many"
            )
        checks.check_gradient("what was released", self.g)
        if self.y is not None:
            x, y = self.client.placed(checks.some(self.client, (1, *self.shape)), self.y)
            if y.shape[:1] != (len(self),):
                raise ValueError(
                    f"y is {tuple(y.shape)} for {len(self)} clients; give one for each"
                )
            checks.check_labels(self.client, x, y)

    def _check_kinds(self) -> None:
        check_kind("g", self.g, Gradient, "gradleak.Gradient({name: tensor (N, ...)})")
        if any(v.is_meta for v in self.g.values()):
            raise ValueError("g lies on the device meta, without numbers: release it on a real one")
        check_kind("shape", self.shape, tuple, "that of one example, such as (1, 28, 28)")
        for size in self.shape:
            check_whole("shape", size, 1)
        if math.prod(self.shape) > LARGEST:
            raise ValueError(f"shape is {self.shape}, more numbers than memory holds")
        check_kind("key", self.key, tuple, "a whole number for each client")
        check_seed("key", *self.key)
        if self.y is not None:
            check_kind("y", self.y, Tensor, "use torch.tensor(y)")
            if not self.y.ndim:
                raise ValueError(f"y is one number, {self.y.item():g}; give one for each client")

    @property
    def labels(self) -> Tensor:
        """y, for an attack that needs it. Raises ValueError where labels are hidden."""
        if self.y is None:
            raise ValueError(
                "the attack needs labels and the view hides them; give it those you believe in: "
                "dataclasses.replace(view, y=labels)"
            )
        return self.y

    def check_belief(self, client: Client) -> None:
        """Raise ValueError for an adversary who believes in this client, where that is hopeless.

        That is one of another network than the view's, and one who looks for what was not sent.
        """
        if client.batch_size != self.client.batch_size:
            raise ValueError(
                f"the adversary believes in clients of batch_size={client.batch_size}, those of "
                f"the view have {self.client.batch_size}: make it from view.client"
            )
        example = 0 if client.batch_size is not None else slice(1)
        x = checks.some(self.client, (1, *self.shape)).to(next(iter(self.g.values())))
        gradients.network.check_same(client.model, self.client.model, x[example])
        whole = received.like(self.client.model)
        if missing := whole.keys() - self.g.keys():
            try:
                client.defense_at(x)(whole).log_prob(self.g.rows(slice(1)))
            except KeyError as error:
                missing = tuple(k for k in whole if k in missing)
                raise ValueError(
                    f"the view lacks {', '.join(missing)}, which the adversary looks for: make it "
                    "believe that they were not sent, gradleak.Ignore("
                    f"{missing}, then={client.defense})"
                ) from error
            except NotImplementedError:
                pass  # a point mass: the attack says so

    def without_labels(self) -> ServerView:
        """The same view with the labels hidden."""
        return replace(self, y=None)


def _places(index: slice | Sequence[int], count: int) -> list[int]:
    if isinstance(index, slice):
        return list(range(count))[index]
    places = checks.tensor("the index of a view", index)
    whole = not places.is_floating_point() and places.dtype is not torch.bool
    whole = whole and bool((places.abs() <= count).all())
    if places.ndim != 1 or (places.numel() and not whole):
        raise ValueError(f"a view is cut by a slice or a list of positions, got {index!r:.200}")
    try:
        return [range(count)[i] for i in places.tolist()]
    except IndexError as error:
        raise ValueError(
            f"the view has {count} clients, counted from 0; got {index!r:.200}"
        ) from error
