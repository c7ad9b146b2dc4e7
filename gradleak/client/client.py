"""The two sides of federated learning: a client, and what the server sees of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from types import FunctionType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gradleak import gradients, look
from gradleak.client import checks
from gradleak.client.view import ServerView
from gradleak.defenses import Defense, Distribution, Ignore, InputDefense, NoDefense, Transform
from gradleak.device import ordinary, usable
from gradleak.gradients import HALF, Given, Gradient, Loss, received
from gradleak.randomness import check_seed
from gradleak.scales import check_call, check_kind, check_whole

PROBES, SMOOTH = 64, 8  # noise that tells how large inner values are: examples, numbers a side


@dataclass(frozen=True)
class Client:
    """p(g | x, y) = defense(gradient of loss(model(x), y)). Holds no data.

    loss: (model output, y) -> scalar, the mean over examples.
    batch_size: None if a client holds one example; B if it averages its gradient over B of them,
        and then x is (N, B, *shape) and y is (N, B). The defense sees that mean: one that clips or
        prunes its gradient does so to the mean, and not to each example.
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
        check_call("loss", self.loss)
        if not isinstance(self.defense, InputDefense):
            check_call("defense", self.defense)
        if self.batch_size is not None:
            check_whole("batch_size", self.batch_size, 1, "None for clients of one example")
        if self.transform is not None:
            check_kind("transform", self.transform, Transform, "extend gradleak.Transform")
        gradients.network.check(self.model)

    def __repr__(self) -> str:
        """All but the weights."""
        loss = self.loss.__qualname__ if isinstance(self.loss, FunctionType) else repr(self.loss)
        return (
            f"Client({type(self.model).__name__}, {self.defense}, loss={loss}, "
            f"batch_size={self.batch_size}, transform={self.transform})"
        )

    def gradient(self, x: Tensor, y: Tensor) -> Gradient:
        """The true gradient of each of N clients, differentiable in x; never in half precision."""
        check_kind("x", x, Tensor, "use torch.as_tensor(x)")
        check_kind("y", y, Tensor, "use torch.as_tensor(y)")
        if x.shape[:1] != y.shape[:1] or not len(x):
            raise ValueError(
                f"x is {tuple(x.shape)} and y {tuple(y.shape)}: give one row of each for each of N "
                "clients, at least one"
            )
        return gradients.gradient(self.model, *self._batches(x, y), self.loss)

    def path(self, x: Tensor, y: Tensor) -> str:
        """How these gradients are computed, see `gradleak.gradients.path`."""
        return gradients.path(self.model, *self._batches(x, y), self.loss)

    def placed(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """x and y where the model is, x in its precision, though never in half of one.

        Arrays and lists become tensors. Raises ValueError for what is no such, and for x whose
        numbers have no slope: whole or complex ones.
        """
        x, y = checks.tensor("x", x), checks.tensor("y", y)
        if not x.is_floating_point():
            raise ValueError(
                f"x is {x.dtype}, and an attack follows slopes in x, which such numbers have not. "
                "Images: x / 255; other numbers: x.float(); tokens: attack their embeddings, with "
                "a model that takes them, or read the tokens off the gradient of the embedding: "
                "gradleak.attacks.tokens(gradleak.gradient(model, x[:, None], y[:, None]), layer)"
            )
        p = gradients.network.first_trainable(self.model)
        if p.is_meta:
            raise ValueError("the model is on meta and holds no numbers: load its weights first")
        y = y if y.is_floating_point() else y.long()
        return x.to(p.device, torch.float32 if p.dtype in HALF else p.dtype), y.to(p.device)

    def distribution(self, x: Tensor, y: Tensor) -> Distribution:
        """p(g | x, y) for each of N clients."""
        return self.defense_at(x)(self.gradient(x, y))

    def log_prob(self, g: Gradient, x: Tensor, y: Tensor) -> Tensor:
        """log p(g | x, y) of each of N clients, (N,)."""
        check_kind("g", g, Gradient, "gradleak.Gradient({name: tensor (N, ...)})")
        held = self.distribution(x, y)
        if g.attacks != len(x):
            if not g.attacks or len(x) % g.attacks:
                raise ValueError(
                    f"g holds {g.attacks} gradients for {len(x)} clients: give one for each, or "
                    "one for equally many"
                )
            if not look.known(self.defense):  # one's own subtract what they are given
                g = g.map(lambda v: v.repeat_interleave(len(x) // g.attacks, 0))
        try:
            return held.log_prob(g)
        except (RuntimeError, LookupError):
            received.check_fits(self.model, g)  # says by name what of g is of another model
            raise

    @ordinary
    def slope(self, g: Gradient, x: Tensor, y: Tensor) -> Tensor:
        """The slope of log p(g | x, y) in x, like x; with g for equally many x each."""
        x = usable(x).detach().requires_grad_()
        with torch.enable_grad():  # so that gradients of networks stay in factors
            return gradients.slope(self.in_float32.log_prob(g, x, y).sum(), x)

    @property
    def in_float32(self) -> Client:
        """The same with a network in half precision in float32: what attackers climb with.

        So is a loss that is a module.
        """
        return self._with(gradients.in_float32)

    @property
    def in_float64(self) -> Client:
        """The same with the network in float64: what says which x is the more probable one."""
        return self._with(gradients.in_float64)

    def _with(self, converted: Callable[[nn.Module], nn.Module]) -> Client:
        model, loss = converted(self.model), self.loss
        if model is self.model:
            return self
        return replace(
            self, model=model, loss=converted(loss) if isinstance(loss, nn.Module) else loss
        )

    def rounded(self, width: float, shape: Sequence[int]) -> Client:
        """The same with a network whose corners are rounded off; x of a client has that shape.

        `gradients.rounded` over noise, so that an attacker needs no images for it: of images it is
        smooth, as neighbouring pixels are alike, and its inner values are as large as an image's.
        """
        example = shape if self.batch_size is None else shape[1:]
        if len(example) == 3:
            x = checks.some(self, (PROBES, example[0], SMOOTH, SMOOTH))
            x = F.interpolate(x, size=example[1:], mode="bilinear")
        else:
            x = checks.some(self, (PROBES, *example))
        return replace(self, model=gradients.rounded(self.model, checks.as_seen(self, x), width))

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

    @ordinary
    def release(
        self, x: Tensor, y: Tensor, *, seed: int = 0, key: Sequence[int] | None = None
    ) -> ServerView:
        """Draw g ~ p(g | x, y) for N clients and return what the server sees.

        x: (N, *shape), images in [0, 1]; y: (N,); with a batch size, (N, B, ...) each.
        key: N integers that tell the clients apart (default 0 to N-1). A client's noise depends
        on (seed, its key) only. Raises ValueError for images out of range, shapes that do not
        fit the model, labels that do not fit the loss, layers in train mode, and gradients that
        are zero, not finite, or the same whatever x is.
        """
        gradients.network.check(self.model)
        x, y = self.placed(x, y)
        checks.check_data(self, x, y)
        key = checks.keys(key, len(x))
        check_seed("seed", seed)
        x = self.transformed(x, seed=seed, key=key)
        checks.check_labels(self, x, y)
        true_gradient = self.gradient(x, y).map(Tensor.detach)
        checks.check_gradient("the gradient", true_gradient)
        checks.check_dependence(self, x, y)
        checks.check_defense(self, x, y)
        g = self.defense_at(x)(true_gradient).sample([(seed, k) for k in key])
        return ServerView(self, g.map(Tensor.detach), y, tuple(x.shape[1:]), key)

    @ordinary
    def view(
        self, g: Given, y: object = None, *, shape: Sequence[int], key: Sequence[int] | None = None
    ) -> ServerView:
        """What the server sees of gradients that were not made here, checked.

        g: the gradient of one client, a dict (parameter's name -> tensor or array), a list in the
            parameters' order, or the path of a safetensors or npz file of either; those of N
            clients with a leading axis N.
        y: labels (N,), with a batch size (N, B), or one client's alone; None where they are hidden.
        shape: that of one example as the network sees it, such as (1, 28, 28).
        key: N integers that tell the clients apart (default 0 to N-1).
        Raises ValueError for what is missing, unknown, of another shape or layout, not finite or
        zero, and for a model in train mode or not finite. Parameters that were not sent are those
        that the client's defense, `gradleak.Ignore`, leaves out. Whether any x explains the
        gradients tells `gradleak.fit`, after an attack.
        """
        checks.check_weights(self.model)
        return self._seen(received.gradient(self.model, g, self._sent()), y, shape, key)

    @ordinary
    def view_of_update(
        self, before: Given, after: Given, lr: float, y: object = None, *, shape: Sequence[int],
        steps: int = 1, key: Sequence[int] | None = None,
    ) -> ServerView:  # fmt: skip
        """The same of weights before and after one step of SGD: g = (before - after) / lr.

        before, after: as g in `view`; entries that are no parameters, such as running statistics,
        do not count. Raises ValueError as `view` does, and where the weights before are not the
        model's, lr is not positive, nothing changed, or the client took more than one step.
        """
        if type(steps) is not int or steps != 1:
            raise ValueError(
                f"an update of several local steps is no gradient (steps={steps!r}): each step "
                "takes its own at other weights, and nothing here unrolls them; ask for the "
                "weights after one step"
            )
        checks.check_weights(self.model)
        g = received.update(self.model, before, after, lr, self._sent())
        return self._seen(g, y, shape, key)

    def _batches(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """x (N, B, *shape) as the network sees it, and y (N, B)."""
        x = checks.as_seen(self, x)
        return (x, y) if self.batch_size is not None else (x.unsqueeze(1), y.unsqueeze(1))

    def _sent(self) -> list[str]:
        """Names of the parameters whose gradients a server sees."""
        whole, defense = received.like(self.model), self.defense
        while isinstance(defense, Ignore):
            whole, defense = defense.rest(whole), defense.then
        return list(whole)

    def _seen(
        self, g: Gradient, y: object, shape: Sequence[int], key: Sequence[int] | None
    ) -> ServerView:
        clients, axes = g.attacks, () if self.batch_size is None else (self.batch_size,)
        key = checks.keys(key, clients)
        try:
            x = checks.some(self, (1, *axes, *shape))
            with torch.no_grad():
                gradients.network.call(self.model, {}, checks.as_seen(self, x[0] if axes else x))
        except Exception as error:
            raise ValueError(
                f"the model does not take examples of shape {shape}; give that of one as the "
                f"network sees it, without an axis of clients or of a batch: {error}"
            ) from error
        x = x.expand(clients, *x.shape[1:])
        if y is not None:
            y = checks.labels(y, clients, self.batch_size)
            _, y = self.placed(x, y.to(x.dtype) if y.is_floating_point() else y)
        checks.check_data(self, x, x.new_zeros(clients, *axes) if y is None else y)
        if y is not None:
            checks.check_labels(self, x, y)
        return ServerView(self, g, y, tuple(x.shape[1:]), key)

    def defense_at(self, x: Tensor) -> Defense:
        """The defense of clients that hold x (N, *shape)."""
        if not isinstance(self.defense, InputDefense):
            return self.defense
        if self.batch_size is not None:
            raise ValueError(
                f"{self.defense} is made for one example, not for a mean over {self.batch_size}; "
                "use batch_size=None"
            )
        return self.defense.at(self.model, checks.as_seen(self, x))
