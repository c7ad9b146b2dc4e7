"""The two sides of federated learning: a client, and what the server sees of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import FunctionType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gradleak import gradients, look
from gradleak.defenses import Defense, Distribution, InputDefense, NoDefense, Transform
from gradleak.gradients import Gradient, Loss
from gradleak.scales import check_call, check_kind


@dataclass(frozen=True)
class Client:
    """p(g | x, y) = defense(gradient of loss(model(x), y)). Holds no data.

    loss: (model output, y) -> scalar, the mean over examples.
    batch_size: None if a client holds one example; B if it averages its gradient over B of them,
        and then x is (N, B, *shape) and y is (N, B).
    transform: `release` applies it to its images first; None: it leaves them as they are. In all
        else x is what the network sees, which is what an attack finds.
    """

    model: nn.Module
    defense: Defense | InputDefense = NoDefense()
    loss: Loss = F.cross_entropy
    batch_size: int | None = None
    transform: Transform | None = None

    def __post_init__(self) -> None:
        check_kind("model", self.model, nn.Module)
        if not isinstance(self.defense, InputDefense):
            check_call("defense", self.defense)
        check_call("loss", self.loss)
        if self.transform is not None:
            check_kind("transform", self.transform, Transform, "extend gradleak.Transform")
        for name, module in self.model.named_modules():
            random = isinstance(module, nn.modules.dropout._DropoutNd)
            batch_norm = isinstance(module, nn.modules.batchnorm._BatchNorm)
            if module.training and (random or batch_norm):
                raise ValueError(
                    f"'{name}' ({type(module).__name__}) is in train mode, where a gradient "
                    "depends on more than x and y; call model.eval() first"
                )
        if not any(p.requires_grad for p in self.model.parameters()):
            raise ValueError("the model has no trainable parameters, so it releases no gradient")

    def __repr__(self) -> str:
        """All but the weights."""
        loss = self.loss.__qualname__ if isinstance(self.loss, FunctionType) else repr(self.loss)
        return (
            f"Client({type(self.model).__name__}, {self.defense}, loss={loss}, "
            f"batch_size={self.batch_size}, transform={self.transform})"
        )

    def gradient(self, x: Tensor, y: Tensor) -> Gradient:
        """The true gradient of each of N clients, differentiable in x."""
        if self.batch_size is None:
            x, y = x.unsqueeze(1), y.unsqueeze(1)
        return gradients.gradient(self.model, x, y, self.loss)

    def placed(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """x and y where the model is, x in its precision."""
        reference = next(p for p in self.model.parameters() if p.requires_grad)
        return x.to(reference), torch.as_tensor(y, device=reference.device)

    def distribution(self, x: Tensor, y: Tensor) -> Distribution:
        """p(g | x, y) for each of N clients."""
        return self.defense_at(x)(self.gradient(x, y))

    def log_prob(self, g: Gradient, x: Tensor, y: Tensor) -> Tensor:
        """log p(g | x, y) of each of N clients, (N,)."""
        return self.distribution(x, y).log_prob(g)

    def slope(self, g: Gradient, x: Tensor, y: Tensor) -> Tensor:
        """The slope of log p(g | x, y) in x, like x; with g for equally many x each."""
        x = x.detach().requires_grad_()
        with torch.enable_grad():  # so that gradients of networks stay in factors
            (slope,) = torch.autograd.grad(self.log_prob(g, x, y).sum(), x)
        return slope

    def transformed(self, x: Tensor, *, seed: int = 0, key: Sequence[int] | None = None) -> Tensor:
        """What the network sees of images x (N, *shape) in `release` with this seed and key."""
        if self.transform is None:
            return x
        if self.batch_size is not None:
            raise ValueError("a transform takes clients of one image: use batch_size=None")
        keys = [(seed, k) for k in (range(len(x)) if key is None else key)]
        if look.due(self.transform, x.shape[1:]) and len(x):
            look.at_transform(self.transform, look.unlike(look.pair(x)), (keys * 2)[:2])
            look.done(self.transform, x.shape[1:])
        return self.transform(x, keys)

    def image(self, seen: Tensor) -> Tensor:
        """The images in what the network sees, (N, *shape): a transform may have added to them."""
        return seen if self.transform is None else self.transform.image(seen)

    def release(
        self, x: Tensor, y: Tensor, *, seed: int = 0, key: Sequence[int] | None = None
    ) -> ServerView:
        """Draw g ~ p(g | x, y) for N clients and return what the server sees.

        x: (N, *shape), images in [0, 1]; y: (N,); with a batch size, (N, B, ...) each.
        key: N integers that tell the clients apart (default 0 to N-1). A client's noise depends
        on (seed, its key) only. Raises ValueError for images out of range, shapes that do not
        fit the model, and gradients that are zero or not finite.
        """
        x, y = self.placed(x, y)
        key = tuple(map(int, range(len(x)) if key is None else key))
        self._check(x, y, key)
        x = self.transformed(x, seed=seed, key=key)
        self._check_model(x, y)
        true_gradient = self.gradient(x, y).map(Tensor.detach)
        _check_gradient(true_gradient)
        self._look(x, y)
        g = self.defense_at(x)(true_gradient).sample([(seed, k) for k in key])
        return ServerView(self, g.map(Tensor.detach), y, tuple(x.shape[1:]), key)

    def defense_at(self, x: Tensor) -> Defense:
        """The defense of clients that hold x (N, *shape)."""
        if not isinstance(self.defense, InputDefense):
            return self.defense
        if self.batch_size is not None:
            raise ValueError(
                f"{self.defense} is made for one example, not for a mean over {self.batch_size}; "
                "use batch_size=None"
            )
        return self.defense.at(self.model, x)

    def _look(self, x: Tensor, y: Tensor) -> None:
        """Once, if it is one's own."""
        if look.due(self.defense, x.shape[1:]):
            x, y = look.pair(x), look.pair(y)
            g = self.gradient(x, y)
            unlike = g.map(lambda v: look.unlike(v.detach()))
            look.at_defense(
                self.defense, lambda rows: self.defense_at(x[rows])(unlike.rows(rows)), unlike
            )
            look.done(self.defense, x.shape[1:])

    def _check(self, x: Tensor, y: Tensor, key: tuple[int, ...]) -> None:
        batch = () if self.batch_size is None else (self.batch_size,)
        if x.shape[1 : 1 + len(batch)] != batch or y.shape[1 : 1 + len(batch)] != batch:
            raise ValueError(
                f"the client's batch size is {self.batch_size}, so x and y start with "
                f"(N, {self.batch_size}); got {tuple(x.shape)} and {tuple(y.shape)}"
            )
        if not len(x) == len(y) == len(key):
            raise ValueError(f"{len(x)} inputs, {len(y)} labels and {len(key)} keys")
        if len(set(key)) != len(key):
            raise ValueError("keys must differ: clients with equal keys would share their noise")
        if x.ndim == 4 + len(batch) and (x.min() < 0 or x.max() > 1):
            raise ValueError(
                f"images must lie in [0, 1], got [{x.min():.3g}, {x.max():.3g}]; normalisation "
                "belongs into the model (gradleak.models.Normalize)"
            )

    def _check_model(self, x: Tensor, y: Tensor) -> None:
        few = slice(1) if self.batch_size is None else 0  # one client's examples
        try:
            with torch.no_grad():
                value = self.loss(self.model(x[few]), y[few])
        except (RuntimeError, ValueError, IndexError) as error:
            raise ValueError(
                f"the model and its loss do not take x {tuple(x[few].shape)} with "
                f"y {tuple(y.shape[1:])}: {error}"
            ) from error
        if not isinstance(value, Tensor) or value.ndim or not value.is_floating_point():
            told = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(
                f"loss must return a scalar tensor, the mean over examples, got {told}; use "
                'reduction="mean", or .mean()'
            )


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

    def __getitem__(self, index: slice | Sequence[int]) -> ServerView:
        """The view of some of the clients: a slice, or a sequence of positions."""
        places = range(len(self))[index] if isinstance(index, slice) else index
        rows = torch.tensor(list(places), device=next(iter(self.g.values())).device)
        return replace(
            self,
            g=self.g.rows(rows),
            y=None if self.y is None else self.y[rows],
            key=tuple(self.key[i] for i in places),
        )

    @property
    def labels(self) -> Tensor:
        """y, for an attack that needs it. Raises ValueError where labels are hidden."""
        if self.y is None:
            raise ValueError(
                "the attack needs labels and the view hides them; give it those you believe in: "
                "dataclasses.replace(view, y=labels)"
            )
        return self.y

    def without_labels(self) -> ServerView:
        """The same view with the labels hidden."""
        return replace(self, y=None)


def _check_gradient(g: Gradient) -> None:
    norms = g.sq_norm()
    for problem, bad in (("not finite", ~norms.isfinite()), ("zero", norms == 0)):
        if bad.any():
            which = bad.nonzero().flatten().tolist()
            raise ValueError(
                f"the gradient of client {', '.join(map(str, which[:5]))} is {problem}: nothing "
                "can be matched; check the model's weights, its activations and the loss"
            )
