"""The two sides of federated learning: a client, and what the server sees of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from types import FunctionType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gradleak import gradients
from gradleak.defenses import Defense, Distribution, Ignore, InputDefense, NoDefense, Transform
from gradleak.gradients import Given, Gradient, Loss, received


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
        return self._defense_at(x)(self.gradient(x, y))

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
        key = range(len(x)) if key is None else key
        return self.transform(x, [(seed, k) for k in key])

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
        g = self._defense_at(x)(true_gradient).sample([(seed, k) for k in key])
        return ServerView(self, g.map(Tensor.detach), y, tuple(x.shape[1:]), key)

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
        zero. Parameters that were not sent are those that the client's defense, `gradleak.Ignore`,
        leaves out. Whether any x explains the gradients tells `gradleak.fit`, after an attack.
        """
        return self._seen(received.gradient(self.model, g, self._sent()), y, shape, key)

    def view_of_update(
        self, before: Given, after: Given, lr: float, y: object = None, *, shape: Sequence[int],
        steps: int = 1, key: Sequence[int] | None = None,
    ) -> ServerView:  # fmt: skip
        """The same of weights before and after one step of SGD: g = (before - after) / lr.

        before, after: as g in `view`; entries that are no parameters, such as running statistics,
        do not count. Raises ValueError as `view` does, and where the weights before are not the
        model's, lr is not positive, nothing changed, or the client took more than one step.
        """
        if isinstance(steps, bool) or not isinstance(steps, Integral) or steps != 1:
            raise ValueError(
                f"an update of several local steps is no gradient (steps={steps!r}): each step "
                "takes its own at other weights, and nothing here unrolls them; ask for the "
                "weights after one step"
            )
        g = received.update(self.model, before, after, lr, self._sent())
        return self._seen(g, y, shape, key)

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
        key = range(clients) if key is None else key
        key = key.tolist() if isinstance(key, Tensor) else key
        whole = isinstance(key, Iterable) and all(isinstance(k, Integral) and k >= 0 for k in key)
        if not whole:
            raise ValueError(f"keys are whole numbers, at least 0, one a client, got {key}")
        key = tuple(map(int, key))
        try:
            x, _ = self.placed(torch.full((1, *axes, *shape), 0.5), torch.zeros(1))
            with torch.no_grad():
                output = self.model(x[0] if axes else x)
        except Exception as error:
            raise ValueError(
                f"the model does not take examples of shape {shape}; give that of one as the "
                f"network sees it, without an axis of clients or of a batch: {error}"
            ) from error
        x = x.expand(clients, *x.shape[1:])
        if y is not None:
            y = received.labels(y, clients, self.batch_size)
            _, y = self.placed(x, y.to(x.dtype) if y.is_floating_point() else y)
        self._check(x, x.new_zeros(clients, *axes) if y is None else y, key)
        for label in [] if y is None else y.unique(dim=0):
            self._check_model(x[:1], label[None])
            if not self.loss(output, label if axes else label[None]).isfinite():
                raise ValueError(f"the loss of label {label.tolist()} is not finite: is it one?")
        return ServerView(self, g, y, tuple(x.shape[1:]), key)

    def _defense_at(self, x: Tensor) -> Defense:
        if not isinstance(self.defense, InputDefense):
            return self.defense
        if self.batch_size is not None:
            raise ValueError(
                f"{self.defense} is made for one example, not for a mean over {self.batch_size}; "
                "use batch_size=None"
            )
        return self.defense.at(self.model, x)

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
                self.loss(self.model(x[few]), y[few])
        except (RuntimeError, ValueError, IndexError) as error:
            raise ValueError(
                f"the model and its loss do not take x {tuple(x[few].shape)} with "
                f"y {tuple(y.shape[1:])}: {error}"
            ) from error


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
        x = torch.full((1, *self.shape), 0.5).to(next(iter(self.g.values())))
        received.check_same(client.model, self.client.model, x[example])
        whole = received.like(self.client.model)
        if missing := whole.keys() - self.g.keys():
            try:
                client._defense_at(x)(whole).log_prob(self.g.rows(slice(1)))
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


def _check_gradient(g: Gradient) -> None:
    norms = g.sq_norm()
    for problem, bad in (("not finite", ~norms.isfinite()), ("zero", norms == 0)):
        if bad.any():
            which = bad.nonzero().flatten().tolist()
            raise ValueError(
                f"the gradient of client {', '.join(map(str, which[:5]))} is {problem}: nothing "
                "can be matched; check the model's weights, its activations and the loss"
            )
