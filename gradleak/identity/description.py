"""Descriptions of what decides a result, and their digests."""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import types
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from enum import Enum
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from gradleak.identity.bytecode import instructions, references
from gradleak.identity.errors import refusal
from gradleak.identity.networks import Recipe, layers
from gradleak.identity.origins import decides, found, library, members, ours, plainly_torchs

Described = list | str
"""Lists of lists and strings."""

M = TypeVar("M", bound=nn.Module)

SCALARS = (type(None), bool, int, float, complex, str, bytes, type(...), type(NotImplemented))


def describe(what: Any, called: str | None = None) -> Described:
    """A stable description: equal for what gives equal results, on any machine and device.

    called: what errors call it, such as "attack". Raises ValueError for what has none, such as a
    lambda, a closure or an open file, and says which part it is and what to do.
    """
    if called is None and (isinstance(what, nn.Module) or ours(type(what).__module__)):
        called = "network" if isinstance(what, nn.Module) else type(what).__name__.lower()
    return _Reader(called).of(what)


def digest(*what: Any) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of what `describe` says."""
    return _sha([describe(part) for part in what])[:16]


def made(thing: M, *how: Any) -> M:
    """Note on a network how it was made, and return it.

    Then that is its description, so that networks that were trained on two machines, which differ
    in their last bits, have one name. Once anything about the network is changed it is described
    by its weights again. Raises ValueError where `how` has no description.
    """
    thing.recipe = Recipe(digest(*how), _fingerprint(thing))
    return thing


def given(function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> dict[str, Any]:
    """The arguments of a call by name, without those at their defaults."""
    signature = inspect.signature(function)
    defaults = {name: p.default for name, p in signature.parameters.items()}
    arguments = signature.bind(*args, **kwargs).arguments
    return {
        name: value for name, value in arguments.items()
        if defaults[name] is inspect.Parameter.empty
        or _Reader(None).of(value, f".{name}") != describe(defaults[name])
    }  # fmt: skip


class _Reader:
    """Describes what it is shown; `at` is the way to a part, for errors."""

    def __init__(self, called: str | None, lenient: bool = False) -> None:
        self.called, self.lenient = called, lenient
        self.open: list[Any] = []  # what is being described, where it may refer to itself
        self.known: dict[int, tuple[Any, Described]] = {}

    def of(self, what: Any, at: str = "") -> Described:
        """The description of anything."""
        kind = type(what)
        if kind in SCALARS:
            return [kind.__name__, what.hex() if kind is float else repr(what)]
        for type_, read in KINDS.items():
            if isinstance(what, type_):
                return read(self, what, at)
        if library(kind.__module__):  # and no class of one's own that inherits from these
            for type_, read in PLAIN_KINDS.items():
                if isinstance(what, type_):
                    return read(self, what, at)
        if kind in (list, tuple, torch.Size):
            name = "list" if kind is list else "tuple"
            parts = enumerate(what)
            return [name, [self.of(v, f"{at}[{i}]") for i, v in parts if decides(v)]]
        if is_dataclass(what):
            return self.record(what, at)
        if plainly_torchs(what):
            return ["object", self.type(kind, at), self.of(vars(what), at)]
        return self.refused(what, at)

    def refused(self, what: Any, at: str) -> Described:
        """Raise the error that names the part and the cure."""
        if self.lenient:
            return ["unknown", type(what).__qualname__]
        in_network = any(isinstance(each, nn.Module) for each in self.open)
        raise refusal(what, f"{self.called or ''}{at}", in_network)

    def mapping(self, what: Mapping[Any, Any], at: str) -> Described:
        pairs = [[self.of(k, at), self.of(v, f"{at}[{k!r}]" if at or self.called else f".{k}")]
                 for k, v in what.items()]  # fmt: skip
        return ["dict", sorted(pairs, key=json.dumps)]

    def set(self, what: set | frozenset, at: str) -> Described:
        return ["set", sorted((self.of(v, at) for v in what), key=json.dumps)]

    def slice(self, what: slice | range, at: str) -> Described:
        return [type(what).__name__, self.of((what.start, what.stop, what.step), at)]

    def number(self, what: np.generic, at: str) -> Described:
        if isinstance(what, float | complex | str | bytes):
            return self.of(what.item(), at)
        return ["number", what.dtype.str, what.tobytes().hex()]

    def array(self, what: np.ndarray, at: str) -> Described:
        if what.dtype.hasobject:
            return self.refused(what, at)
        sha = hashlib.sha256(np.ascontiguousarray(what).tobytes()).hexdigest()
        return ["array", what.dtype.str, str(what.shape), sha]

    def tensor(self, what: Tensor, at: str) -> Described:
        told = [str(what.dtype), str(tuple(what.shape))]
        if what.is_meta:  # has no values
            return ["tensor", *told]
        plain = what.detach().to_dense() if what.layout != torch.strided else what.detach()
        plain = plain.cpu().resolve_conj().resolve_neg().contiguous().reshape(-1)
        sha = hashlib.sha256(plain.view(torch.uint8).numpy()).hexdigest()
        return ["tensor", *told, sha]

    def enum(self, what: Enum, at: str) -> Described:
        return ["enum", type(what).__qualname__, what.name, self.of(what.value, at)]

    def partial(self, what: functools.partial, at: str) -> Described:
        parts = (what.func, what.args, what.keywords)
        return ["partial", *(self.of(part, at) for part in parts)]

    def method(self, what: types.MethodType, at: str) -> Described:
        return ["method", self.of(what.__func__, at), self.of(what.__self__, at)]

    def builtin(self, what: Any, at: str) -> Described:
        owner = getattr(what, "__self__", None)
        if not (owner is None or isinstance(owner, type | types.ModuleType)):
            return self.refused(what, at)
        name = getattr(what, "__qualname__", what.__name__)
        return [type(what).__name__, str(getattr(what, "__module__", "")), name]

    def member(self, what: Any, at: str) -> Described:
        """A property, a static method and the like."""
        names = ("func", "fget", "fset", "__func__", "__wrapped__")
        functions = [getattr(what, name, None) for name in names]
        kind = type(what).__name__
        return [kind, *dict.fromkeys(_sha(self.of(f, at)) for f in functions if f is not None)]

    def record(self, what: Any, at: str) -> Described:
        """A dataclass: of this package without what is at its default or marked compare=False."""
        own, found = ours(type(what).__module__), []
        for f in fields(what):
            if (own and not (f.compare and f.init)) or not hasattr(what, f.name):
                continue
            value = getattr(what, f.name)
            if not decides(value):
                continue
            told = self.of(value, f"{at}.{f.name}")
            if not own or told != self.default(f):
                found.append([f.name, told])
        return ["record", self.type(type(what), at), sorted(found)]

    def default(self, f: Field) -> Described | None:
        if f.default_factory is not MISSING:
            return self.of(f.default_factory())
        return None if f.default is MISSING else self.of(f.default)

    def once(self, what: Any, name: str, read: Callable[[], Described]) -> Described:
        """Describe what may refer to itself, and may be met again."""
        if any(each is what for each in self.open):
            return ["again", name]
        if id(what) not in self.known:
            self.open.append(what)
            try:
                self.known[id(what)] = what, read()
            finally:
                self.open.pop()
        return self.known[id(what)][1]

    def type(self, what: type, at: str) -> Described:
        """A class: of this package or a library by its name, another by its code."""
        module, name = what.__module__, what.__qualname__
        if ours(module):
            revision = sum(vars(base).get("revision", 0) for base in what.__mro__)
            return ["class", name, str(revision)]
        if library(module) and found(what):
            return ["class", module, name]
        return self.once(what, name, lambda: ["class", _sha([
            self.members(base, at) if base is what else self.type(base, at)
            for base in what.__mro__[:-1]
        ])])  # fmt: skip

    def members(self, what: type, at: str) -> Described:
        told = {name: value for name, value in members(what).items() if decides(value)}
        return [[k, self.of(v, f"{at}, in '{what.__name__}.{k}',")] for k, v in told.items()]

    def function(self, what: types.FunctionType, at: str) -> Described:
        """A function, as `type` describes a class."""
        module, name = what.__globals__.get("__name__", ""), what.__qualname__
        if ours(what.__module__):
            if "<" in name:
                return self.refused(what, at)
            return ["function", name, str(vars(what).get("revision", 0))]
        cells = dict(zip(what.__code__.co_freevars, what.__closure__ or (), strict=True))
        cells.pop("__class__", None)
        if library(module) or ours(module):  # a decorator's
            held = [self.of(cell.cell_contents, at) for cell in cells.values()]
            return ["function", module, what.__code__.co_name, *held]
        if cells or what.__name__ == "<lambda>":
            return self.refused(what, at)
        return self.once(what, name, lambda: ["function", _sha([
            instructions(what.__code__, self.of),
            self.references(what, at),
            *(self.of(part, at) for part in (what.__defaults__, what.__kwdefaults__)),
            self.of(vars(what), at),
        ])])  # fmt: skip

    def references(self, what: types.FunctionType, at: str) -> Described:
        used = dict(references(what.__code__, what.__globals__))
        return [[k, self.of(v, f"{at}, in '{k}',")] for k, v in sorted(used.items())]

    def module(self, what: nn.Module, at: str) -> Described:
        """A network: how it was made if it still is what was made, else all that it is."""

        def read() -> Described:
            recipe = vars(what).get("recipe")
            if isinstance(recipe, Recipe) and recipe.weights == _fingerprint(what):
                return ["made", recipe.how]
            return ["network", _sha(layers(what, self.of, at))]

        return self.once(what, type(what).__name__, read)


KINDS: dict[Any, Callable[[_Reader, Any, str], Described]] = {
    nn.Module: _Reader.module,
    Enum: _Reader.enum,
    type: _Reader.type,
    types.FunctionType: _Reader.function,
}
PLAIN_KINDS: dict[Any, Callable[[_Reader, Any, str], Described]] = {
    Tensor: _Reader.tensor,
    np.ndarray: _Reader.array,
    np.generic: _Reader.number,
    torch.device: lambda *_: ["device"],  # decides nothing
    torch.dtype | np.dtype: lambda _, what, __: ["dtype", str(what)],
    dict | types.MappingProxyType: _Reader.mapping,
    set | frozenset: _Reader.set,
    slice | range: _Reader.slice,
    functools.partial: _Reader.partial,
    types.MethodType: _Reader.method,
    types.BuiltinFunctionType | types.MethodDescriptorType | np.ufunc: _Reader.builtin,
    types.WrapperDescriptorType: _Reader.builtin,
    property | staticmethod | classmethod: _Reader.member,
    functools.cached_property | functools._lru_cache_wrapper: _Reader.member,
}


def _fingerprint(what: nn.Module) -> str:
    """Whether a network is still what it was: parts without a description count by their class."""
    reader = _Reader(None, lenient=True)
    reader.open.append(what)
    return _sha(layers(what, reader.of))


def _sha(described: Described) -> str:
    return hashlib.sha256(json.dumps(described).encode()).hexdigest()
