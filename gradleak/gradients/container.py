"""Gradients of many independent attacks at once, keyed by parameter name."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterator, Mapping

import torch
from torch import Tensor

from gradleak.gradients import entrywise, products
from gradleak.gradients.half import HALF
from gradleak.gradients.outer import Outer, times
from gradleak.scales import check_kind

Entry = Tensor | Outer


class Gradient(Mapping[str, Tensor]):
    """The gradients of N attacks: parameter name -> tensor (N, *parameter shape).

    Linear layers may be held as factors; reading an entry makes the tensor. Densities speak to a
    gradient through the operations below, which use the factors and keep attacks apart. Where an
    operation takes another gradient, that one may hold M < N attacks: each is then shared by N / M
    consecutive ones, as a released gradient is by the restarts and settings that attack it.
    Entries in half precision are held in float32, so that all that is made of them is.
    """

    def __init__(self, entries: Mapping[str, Entry]) -> None:
        if type(entries) is not dict:  # the usual case, in each step of a climb
            check_kind("entries", entries, Mapping, "name -> tensor (N, *parameter shape)")
        if not {Tensor, Outer}.issuperset(map(type, entries.values())):
            _check(entries)
        self._entries = {k: _single(v) for k, v in entries.items()}
        # Of an observation, what is derived is computed once.
        self._constant = all(
            isinstance(v, Tensor) and not v.requires_grad for v in self._entries.values()
        )
        if self._constant:
            _check(self._entries)  # those of a climb's steps are made of what was checked
        self._derived: dict[Hashable, Gradient | Tensor | Mapping[str, Tensor]] = {}

    def __getitem__(self, name: str) -> Tensor:
        entry = self._entries[name]
        return entry.dense() if isinstance(entry, Outer) else entry

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        """Number of parameters, as in any mapping; `attacks` is N."""
        return len(self._entries)

    def __repr__(self) -> str:
        shapes = ", ".join(f"{k}: {tuple(v.shape[1:])}" for k, v in self._entries.items())
        return f"Gradient({self.attacks} attacks; {shapes})"

    @property
    def attacks(self) -> int:
        """N, the number of attacks."""
        return next(iter(self._entries.values())).shape[0]

    @property
    def size(self) -> int:
        """Number of scalars in one attack's gradient."""
        return sum(v.shape[1:].numel() for v in self._entries.values())

    @property
    def layers(self) -> list[str]:
        """Names of the modules that own the parameters, first to last."""
        return list(dict.fromkeys(layer_of(name) for name in self))

    def map(self, f: Callable[..., Tensor], *others: Mapping[str, Tensor]) -> Gradient:
        """Apply f(value, *other values) to each parameter, as tensors."""
        return Gradient({k: f(v, *(o[k] for o in others)) for k, v in self.items()})

    def dense(self) -> Gradient:
        """The same with every entry a tensor."""
        return Gradient(dict(self.items()))

    def rows(self, index: slice | Tensor) -> Gradient:
        """The attacks at `index`, in that order."""
        return self.map(lambda v: v[index])

    def masked(self, mask: Mapping[str, Tensor]) -> Gradient:
        """Times a 0/1 mask, name -> (*parameter shape), or (M, *parameter shape).

        Each of M masks is shared by N / M consecutive attacks. A parameter without a mask stays as
        it is.
        """
        if not mask.keys() <= self._entries.keys():
            raise ValueError(
                f"mask names {', '.join(mask.keys() - self._entries.keys())}; the parameters are "
                f"{', '.join(self)}"
            )
        return Gradient({k: _masked(v, mask.get(k)) for k, v in self._entries.items()})

    def without(self, names: Collection[str]) -> Gradient:
        """The same without some parameters. `names` are those of parameters or of layers."""
        owned = {k: {k, layer_of(k)} for k in self}
        unknown = [n for n in names if not any(n in own for own in owned.values())]
        if unknown:
            raise ValueError(
                f"no parameter or layer is named {', '.join(unknown)}; the layers are "
                f"{', '.join(self.layers)}, the parameters {', '.join(self)}"
            )

        kept = {k: v for k, v in self._entries.items() if not owned[k] & set(names)}
        return self._once(("without", *names), lambda: Gradient(kept))

    def nonzero(self, names: Collection[str]) -> dict[str, Tensor]:
        """1 where an entry is not zero, of the named parameters: name -> (N, *parameter shape)."""

        def make() -> dict[str, Tensor]:
            rest = self.without(names)
            return {k: (v != 0).to(v) for k, v in self.items() if k not in rest}

        return self._once(("nonzero", *names), make)

    def scaled(self, weights: Mapping[str, float]) -> Gradient:
        """Each parameter times its weight."""
        entries = self._entries.items()
        return self._once(
            tuple(weights.items()), lambda: Gradient({k: weights[k] * v for k, v in entries})
        )

    def moments(self, other: Gradient) -> products.Moments:
        """<self, other> and |self|^2 of each attack, (N,) each."""
        outer = {k: v for k, v in self._entries.items() if isinstance(v, Outer)}
        dense = {k: v for k, v in self._entries.items() if k not in outer}
        found = [self._moments(k, v, other) for k, v in outer.items()]
        if dense:
            found.append(products.of_tensors(list(dense.values()), [other[k] for k in dense]))
        inner, sq_norm = (torch.stack(parts).sum(0) for parts in zip(*found, strict=True))
        return inner, sq_norm

    def sq_norm(self) -> Tensor:
        """Squared Euclidean norm of each attack's gradient, (N,)."""

        def of(_: str, entry: Entry) -> Tensor:
            return entry.sq_norm() if isinstance(entry, Outer) else products.sq_norm(entry)

        return self._once("sq_norm", lambda: self._sum(of))

    def sq_distance(self, other: Gradient) -> Tensor:
        """|self - other|^2 of each attack, (N,).

        From factors it is |self|^2 - 2 <self, other> + |other|^2, whose value is rounding alone
        once it is below about 1e-6 of |other|^2; its derivative stays good. `dense()` is exact.
        """

        def of(name: str, entry: Entry) -> Tensor:
            if isinstance(entry, Outer) and entry.exact:
                return entry.entrywise(entrywise.square, other[name])
            if isinstance(entry, Outer):
                rest = other.only(name).sq_norm().repeat_interleave(self.attacks // other.attacks)
                inner, sq_norm = self._moments(name, entry, other)
                return rest - 2 * inner + sq_norm
            return entrywise.of_tensor(entrywise.square, entry, other[name])

        return self._sum(of)

    def entrywise(self, term: entrywise.Term, other: Gradient) -> Tensor:
        """Sum of term(self, other) over each attack's entries, (N,); `gradleak.entrywise`.

        Differentiable once.
        """

        def of(name: str, entry: Entry) -> Tensor:
            if isinstance(entry, Outer):
                return entry.entrywise(term, other[name])
            return entrywise.of_tensor(term, entry, other[name])

        return self._sum(of)

    def abs_distance(self, other: Gradient) -> Tensor:
        """The L1 distance |self - other| of each attack, (N,)."""
        return self.entrywise(entrywise.absolute, other)

    def only(self, *names: str) -> Gradient:
        """The gradient with respect to some parameters."""
        if missing := [name for name in names if name not in self._entries]:
            raise ValueError(f"no parameter is named {missing[0]!r}; there are {', '.join(self)}")
        return self._once(("only", *names), lambda: Gradient({k: self._entries[k] for k in names}))

    def once(self, f: Callable[[Gradient], Mapping[str, Tensor]]) -> Mapping[str, Tensor]:
        """f(self), which of an observation is computed once; f is a module-level function."""
        return self._once(f, lambda: f(self))

    def _once(self, key: Hashable, make: Callable):
        if not self._constant:
            return make()
        if key not in self._derived:
            self._derived[key] = make()
        return self._derived[key]

    def _sum(self, of: Callable[[str, Entry], Tensor]) -> Tensor:
        return torch.stack([of(k, v) for k, v in self._entries.items()]).sum(0)

    def _moments(self, name: str, entry: Outer, other: Gradient) -> products.Moments:
        if entry.mask is None:
            return entry.moments(other[name])
        # The mask moves to the other side, where it is applied once and not at every step. The
        # key holds the mask itself, so that it lives as long as what was derived from it.
        mask = entry.mask
        return entry.moments(other._once((name, mask), lambda: other[name] * mask))


def _single(entry: Entry) -> Entry:
    half = (entry.a if isinstance(entry, Outer) else entry).dtype in HALF
    return entry.float() if half else entry


def _masked(entry: Entry, mask: Tensor | None) -> Entry:
    if mask is None:
        return entry
    return entry.masked(mask) if isinstance(entry, Outer) else times(entry, mask)


def layer_of(name: str) -> str:
    """The module that owns a parameter: 'conv1.weight' -> 'conv1'."""
    return name.rpartition(".")[0]


def _check(entries: Mapping[str, Entry]) -> None:
    rows = {v.shape[:1] if isinstance(v, Entry) else () for v in entries.values()}
    if len(rows) > 1 or () in rows:
        told = {k: tuple(v.shape) if isinstance(v, Entry) else v for k, v in entries.items()}
        raise ValueError(
            f"entries must be tensors (N, *parameter shape), a row for each attack, got {told}"
        )
