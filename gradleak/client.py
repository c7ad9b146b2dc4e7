"""The two sides of federated learning: a client, and what the server sees of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import FunctionType

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gradleak import gradients, look
from gradleak.defenses import Defense, Distribution, Ignore, InputDefense, NoDefense, Transform
from gradleak.device import ordinary, usable
from gradleak.gradients import HALF, Given, Gradient, Loss, in_float32, received
from gradleak.randomness import START, check_seed, generator
from gradleak.scales import check_call, check_kind, check_whole, is_plain, refuse


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
        x = self._as_seen(x)
        if self.batch_size is None:
            x, y = x.unsqueeze(1), y.unsqueeze(1)
        return gradients.gradient(self.model, x, y, self.loss)

    def placed(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """x and y where the model is, x in its precision, though never in half of one.

        Arrays and lists become tensors. Raises ValueError for what is no such, and for x whose
        numbers have no slope: whole or complex ones.
        """
        x, y = _tensor("x", x), _tensor("y", y)
        if not x.is_floating_point():
            raise ValueError(
                f"x is {x.dtype}, and an attack follows slopes in x, which such numbers have not. "
                "Images: x / 255; other numbers: x.float(); tokens: attack their embeddings, with "
                "a model that takes them, or read the tokens off the gradient of the embedding: "
                "gradleak.attacks.tokens(gradleak.gradient(model, x[:, None], y[:, None]), layer)"
            )
        p = self._reference
        y = y if y.is_floating_point() else y.long()
        return x.to(p.device, torch.float32 if p.dtype in HALF else p.dtype), y.to(p.device)

    @property
    def _reference(self) -> Tensor:
        return gradients.network.first_trainable(self.model)

    def _some(self, shape: Sequence[int]) -> Tensor:
        """Some x of a shape, where the clients' own is not at hand."""
        return torch.rand(*shape, generator=generator(START)).to(self.placed([0.5], 0)[0])

    def _as_seen(self, x: Tensor) -> Tensor:
        """x in the precision of a network in half precision; around it all is in float32."""
        dtype = self._reference.dtype
        return x.to(dtype) if dtype in HALF else x

    def distribution(self, x: Tensor, y: Tensor) -> Distribution:
        """p(g | x, y) for each of N clients."""
        return self.defense_at(x)(self.gradient(x, y))

    def log_prob(self, g: Gradient, x: Tensor, y: Tensor) -> Tensor:
        """log p(g | x, y) of each of N clients, (N,)."""
        check_kind("g", g, Gradient, "gradleak.Gradient({name: tensor (N, ...)})")
        return self.distribution(x, y).log_prob(g)

    @ordinary
    def slope(self, g: Gradient, x: Tensor, y: Tensor) -> Tensor:
        """The slope of log p(g | x, y) in x, like x; with g for equally many x each."""
        x = usable(x).detach().requires_grad_()
        with torch.enable_grad():  # so that gradients of networks stay in factors
            return gradients.slope(self.in_float32.log_prob(g, x, y).sum(), x)

    @property
    def in_float32(self) -> Client:
        """The same with a network in half precision in float32: what attackers climb with."""
        model = in_float32(self.model)
        return self if model is self.model else replace(self, model=model)

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
        self._check(x, y)
        key = _keys(key, len(x))
        check_seed("seed", seed)
        x = self.transformed(x, seed=seed, key=key)
        self.check_labels(x, y)
        true_gradient = self.gradient(x, y).map(Tensor.detach)
        _check_gradient("the gradient", true_gradient)
        self._check_dependence(x, y)
        self._look(x, y)
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
        self._check_model()
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
        self._check_model()
        g = received.update(self.model, before, after, lr, self._sent())
        return self._seen(g, y, shape, key)

    def _check_model(self) -> None:
        gradients.network.check(self.model)
        gradients.network.check_finite(self.model)

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
        key = _keys(key, clients)
        try:
            x = self._some((1, *axes, *shape))
            with torch.no_grad():
                gradients.network.call(self.model, {}, self._as_seen(x[0] if axes else x))
        except Exception as error:
            raise ValueError(
                f"the model does not take examples of shape {shape}; give that of one as the "
                f"network sees it, without an axis of clients or of a batch: {error}"
            ) from error
        x = x.expand(clients, *x.shape[1:])
        if y is not None:
            y = received.labels(y, clients, self.batch_size)
            _, y = self.placed(x, y.to(x.dtype) if y.is_floating_point() else y)
        self._check(x, x.new_zeros(clients, *axes) if y is None else y)
        if y is not None:
            self.check_labels(x, y)
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
        return self.defense.at(self.model, self._as_seen(x))

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

    def _check(self, x: Tensor, y: Tensor) -> None:
        batch = () if self.batch_size is None else (self.batch_size,)
        if (x.shape[1 : 1 + len(batch)], y.shape[1 : 1 + len(batch)]) != (batch, batch):
            raise ValueError(
                f"the client's batch size is {self.batch_size}, so x and y start with "
                f"(N, {self.batch_size}); got {tuple(x.shape)} and {tuple(y.shape)}. For one "
                f"client that holds {len(x)} examples: batch_size={len(x)}, x[None], y[None]; for "
                f"{len(x)} clients of one example each: batch_size=None"
            )
        if x.ndim < 2 + len(batch) or not (y.ndim and x.numel() and y.numel()):
            many = ", ".join(map(str, ("N", *batch)))
            raise ValueError(
                f"x is ({many}, *shape) and y ({many},), of at least one client; got "
                f"{tuple(x.shape)} and {tuple(y.shape)}. Of one example: x[None], torch.tensor([y])"
            )
        if len(x) != len(y):
            raise ValueError(f"{len(x)} inputs and {len(y)} labels; give one for each client")
        if not x.isfinite().all():
            raise ValueError("x holds numbers that are not finite; replace them or leave rows out")
        if x.ndim == 4 + len(batch) and (x.min() < 0 or x.max() > 1):
            raise ValueError(
                f"images must lie in [0, 1], got [{x.min():.3g}, {x.max():.3g}]; normalisation "
                "belongs into the model (gradleak.models.Normalize)"
            )

    @torch.no_grad()
    def check_labels(self, x: Tensor, y: Tensor) -> None:
        """Raise ValueError unless the model takes the first of x, and its loss every one of y."""
        one = self.batch_size is None
        few = self._as_seen(x[:1] if one else x[0])

        def at_every_label(output: Tensor, y: Tensor) -> Tensor:
            for label in y.unique(dim=0):
                loss = self.loss(output, label[None] if one else label)
                finite = isinstance(output, Tensor) and output.isfinite().all()
                if finite and isinstance(loss, Tensor) and loss.isnan().any():
                    raise ValueError(f"the loss of label {label.tolist()} is not a number")
            return loss

        try:
            value = gradients.plain.loss_at(self.model, {}, few, y, at_every_label)
        except Exception as error:
            of = "one example" if one else f"{self.batch_size} examples"
            raise ValueError(
                f"the model and its loss do not take x {tuple(few.shape)} with y {_summary(y)} for "
                f"each of {len(y)} clients of {of} (see batch_size; classes are whole numbers from "
                f"0, y.long()): {error}"
            ) from error
        if not value.is_floating_point():
            raise ValueError(f"loss must return a scalar tensor of floats, got {value.dtype}")

    @torch.no_grad()
    def _check_dependence(self, x: Tensor, y: Tensor) -> None:
        other = 0.2 * torch.rand(x[:1].shape, generator=generator(START)).to(x)
        few = torch.cat([x[:2], 0.75 * x[:1].flip(-1) + other])
        g = self.gradient(few, y[:1].expand(len(few), *y.shape[1:]))
        apart = g.rows(slice(1, None)).sq_distance(first := g.rows(slice(1)))
        if (apart <= 1e-14 * first.sq_norm()).all():
            raise ValueError(
                "the gradient is the same whatever x is, so nothing of x is in it: the model "
                "ignores x, or its first layer is dead (no unit active for any x); check its "
                "weights and what its forward does with x"
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
        gradients.network.check(self.client.model)
        received.check_fits(self.client.model, self.g)
        if not len(self) or self.g.attacks != len(self):
            raise ValueError(
                f"nothing to attack: the view has {len(self)} keys and g of {self.g.attacks} "
                "clients; give at least one of both, and as many"
            )
        _check_gradient("what was released", self.g)
        if self.y is not None:
            check_kind("y", self.y, Tensor, "use torch.tensor(y)")
            x, y = self.client.placed(self.client._some((1, *self.shape)), self.y)
            if y.shape[:1] != (len(self),):
                raise ValueError(
                    f"y is {tuple(y.shape)} for {len(self)} clients; give one for each"
                )
            self.client.check_labels(x, y)

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


def _keys(key: object, clients: int) -> tuple[int, ...]:
    key = range(clients) if key is None else key
    check_kind("key", key, (Sequence, Tensor, np.ndarray), "one number for each client")
    if not isinstance(key, Sequence) and key.ndim != 1:
        refuse("key", f"{clients} numbers, one for each client", key)
    key = check_seed("key", *key)
    if len(key) != clients:
        raise ValueError(f"{len(key)} keys for {clients} clients; give one for each")
    if len(set(key)) != clients:
        raise ValueError("keys must differ: clients with equal keys would share their noise")
    return key


def _check_gradient(what: str, g: Gradient) -> None:
    norms = g.sq_norm()
    for problem, bad in (("not finite", ~norms.isfinite()), ("zero", norms == 0)):
        if bad.any():
            which = bad.nonzero().flatten().tolist()
            raise ValueError(
                f"{what} of client {', '.join(map(str, which[:5]))} is {problem}: nothing can be "
                "matched; leave such clients out, or check the model's weights, its activations "
                "and the loss"
            )


def _tensor(name: str, value: object) -> Tensor:
    try:
        # A copy of what is no tensor: an array may be read-only, or run backwards.
        received.check_unmasked(value)
        tensor = value if isinstance(value, Tensor) else torch.from_numpy(np.array(value))
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"{name} is a {type(value).__name__} of which no tensor can be made: {error}; give a "
            "tensor or an array of numbers"
        ) from error
    if not is_plain(tensor) or tensor.is_complex():
        raise ValueError(
            f"{name} is {tensor.layout} of {tensor.dtype} on {tensor.device}; give a dense tensor "
            "of real numbers: .to_dense(), .dequantize(), .float(), torch.view_as_real(...)"
        )
    return usable(tensor)


def _places(index: slice | Sequence[int], count: int) -> list[int]:
    if isinstance(index, slice):
        return list(range(count))[index]
    places = _tensor("the index of a view", index)
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


def _summary(y: Tensor) -> str:
    shape = f"{tuple(y.shape[1:])} of {y.dtype}"
    return f"{shape} from {y.min().item():g} to {y.max().item():g}"
