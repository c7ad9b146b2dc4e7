"""Descriptions of what decides a result, and their digests."""

import functools
import hashlib
import inspect
import json
import pathlib
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from gradleak.identity.bytecode import instructions, references
from gradleak.identity.networks import MADE, layers
from gradleak.identity.origins import decides, found, library, members, ours, plainly_torchs

Described = list | str
"""Lists of lists and strings."""

M = TypeVar("M", bound=nn.Module)

SCALARS = (type(None), bool, int, float, complex, str, bytes, type(...), type(NotImplemented))

CURE = "make it a frozen dataclass or a module-level function"


class UndescribableError(ValueError):
    """Something that decides a result has no stable description."""


def describe(what: Any) -> Described:
    """A stable description: equal for what gives equal results, on any machine and device.

    Raises ValueError for what has none, such as a lambda, a closure or an open file, and says which
    part it is and what to do.
    """
    called = type(what).__name__.lower() if ours(type(what).__module__) else ""
    return _Reader().of(what, "network" if isinstance(what, nn.Module) else called)


def digest(*what: Any) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of what `describe` says."""
    return _sha([describe(part) for part in what])[:16]


def made(thing: M, *how: Any) -> M:
    """Note on a network how it was made, and return it.

    Then that is its description, so that networks that were trained on two machines, which differ
    in their last bits, have one name. Once anything about the network is changed it is described
    by its weights again. Raises ValueError where `how` has no description.
    """
    setattr(thing, MADE, (digest(*how), _fingerprint(thing)))
    return thing


def given(function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> dict[str, Any]:
    """The arguments of a call by name, without those at their defaults."""
    signature = inspect.signature(function)
    defaults = {name: p.default for name, p in signature.parameters.items()}
    arguments = signature.bind(*args, **kwargs).arguments
    return {
        name: value for name, value in arguments.items()
        if defaults[name] is inspect.Parameter.empty
        or _Reader().of(value, name) != describe(defaults[name])
    }  # fmt: skip


class _Reader:
    """Describes what it is shown; `at` is the way to a part, for errors."""

    def __init__(self) -> None:
        self.open: list[Any] = []  # what is being described, where it may refer to itself
        self.known: dict[int, tuple[Any, Described]] = {}

    def of(self, what: Any, at: str = "") -> Described:
        """The description of anything."""
        kind = type(what)
        if kind in SCALARS:
            return [kind.__name__, what.hex() if kind is float else repr(what)]
        plain = library(kind.__module__)  # no class of one's own that inherits from such a kind
        for type_, read in KINDS.items():
            if isinstance(what, type_) and (plain or type_ in INHERITED):
                return read(self, what, at)
        if is_dataclass(what):
            return self.record(what, at)
        if plainly_torchs(what):
            return ["object", self.type(kind, at), self.of(vars(what), at)]
        return self.refused(what, at)

    def refused(self, what: Any, at: str) -> Described:
        """Raise the error that names the part and the cure; at: such as client.loss."""
        whole, _, part = at.partition(".")
        where = f"the {whole}'s {part}" if part else f"the {whole}" if whole else "this"
        is_, cure = f"an object of {type(what).__qualname__}", CURE
        if isinstance(what, types.FunctionType):
            closure = "a closure, a function that holds values of its own"
            is_ = "a lambda" if what.__name__ == "<lambda>" else closure
        elif isinstance(what, types.ModuleType):
            is_, cure = f"the module {what.__name__}", "import by name what is used of it"
        elif isinstance(what, pathlib.PurePath):
            cure = "read the file: what it holds decides, and not its name"
        if any(isinstance(each, nn.Module) for each in self.open):
            cure += ", or note how the network was made, by gradleak.identity.made"
        raise UndescribableError(f"{where} is {is_}, which has no stable description: {cure}")

    def sequence(self, what: list | tuple, at: str) -> Described:
        parts = [self.of(v, f"{at}[{i}]") for i, v in enumerate(what) if decides(v)]
        return ["list" if isinstance(what, list) else "tuple", parts]

    def mapping(self, what: Mapping[Any, Any], at: str) -> Described:
        pairs = [
            [self.of(k, at), self.of(v, f"{at}[{k!r}]" if at else str(k))] for k, v in what.items()
        ]
        return ["dict", sorted(pairs, key=json.dumps)]

    def set(self, what: set | frozenset, at: str) -> Described:
        return ["set", sorted((self.of(v, at) for v in what), key=json.dumps)]

    def array(self, what: np.ndarray | np.generic, at: str) -> Described:
        if isinstance(what, float | complex | str | bytes):  # such as np.float64
            return self.of(what.item(), at)
        if what.dtype.hasobject:
            return self.refused(what, at)
        sha = hashlib.sha256(what.tobytes()).hexdigest()
        return [type(what).__name__, what.dtype.str, str(what.shape), sha]

    def tensor(self, what: Tensor, at: str) -> Described:
        told = ["tensor", str(what.dtype), str(tuple(what.shape))]
        if what.is_meta:  # has no values
            return told
        plain = what.detach().to_dense().cpu().resolve_conj().resolve_neg().contiguous()
        values = plain.reshape(-1).view(torch.uint8).numpy()
        return [*told, hashlib.sha256(values).hexdigest()]

    def builtin(self, what: Any, at: str) -> Described:
        owner = getattr(what, "__self__", None)
        if not (owner is None or isinstance(owner, type | types.ModuleType)):
            return self.refused(what, at)
        name = getattr(what, "__qualname__", what.__name__)
        return [type(what).__name__, str(getattr(what, "__module__", "")), name]

    def record(self, what: Any, at: str) -> Described:
        """A dataclass: of this package without what is at its default or marked compare=False."""
        own, told = ours(type(what).__module__), []
        for name in getattr(what, "__dict__", {}).keys() - {f.name for f in fields(what)}:
            if not isinstance(getattr(type(what), name, None), functools.cached_property):
                self.refused(what, f"{at}.{name}, which is no field,")
        for f in fields(what):
            value = getattr(what, f.name, MISSING)
            if value is MISSING or not decides(value) or (own and not (f.compare and f.init)):
                continue
            default = f.default if f.default_factory is MISSING else f.default_factory()
            said = self.of(value, f"{at}.{f.name}")
            if not own or default is MISSING or said != self.of(default):
                told.append([f.name, said])
        return ["record", self.type(type(what), at), sorted(told)]

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
            self.named(members(base), f"{at}, in '{name}'") if base is what else self.type(base, at)
            for base in what.__mro__[:-1]
        ])])  # fmt: skip

    def named(self, parts: Iterable[tuple[str, Any]], at: str) -> Described:
        return [[name, self.of(value, f"{at}, in '{name}',")] for name, value in parts]

    def function(self, what: types.FunctionType, at: str) -> Described:
        """A function, as `type` describes a class."""
        module, name = what.__globals__.get("__name__", ""), what.__qualname__
        # Who wraps a function of ours takes its name along, but not where it is written.
        if ours(what.__module__) and (ours(module) or library(module)):
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
        used = dict(references(what.__code__, what.__globals__))
        return self.once(what, name, lambda: ["function", _sha([
            instructions(what.__code__, self.of),
            self.named(sorted(used.items()), at),
            *(self.of(part, at) for part in (what.__defaults__, what.__kwdefaults__, vars(what))),
        ])])  # fmt: skip

    def module(self, what: nn.Module, at: str) -> Described:
        """A network: how it was made if it still is what was made, else all that it is."""

        def read() -> Described:
            how, then = vars(what).get(MADE, ("", ""))
            if then and then == _fingerprint(what):
                return ["made", how]
            return ["network", _sha(layers(what, self.of, at))]

        return self.once(what, type(what).__name__, read)


def _parts(*names: str) -> Callable[[_Reader, Any, str], Described]:
    """Describes what is all in these attributes."""
    return lambda reader, what, at: [
        type(what).__name__, *(reader.of(getattr(what, name), at) for name in names)
    ]  # fmt: skip


KINDS: dict[Any, Callable[[_Reader, Any, str], Described]] = {
    nn.Module: _Reader.module,
    Enum: _parts("name", "value"),
    type: _Reader.type,
    types.FunctionType: _Reader.function,
    Tensor: _Reader.tensor,
    np.ndarray | np.generic: _Reader.array,
    torch.device: lambda *_: ["device"],  # decides nothing
    torch.dtype | np.dtype: lambda _, what, __: ["dtype", str(what)],
    list | tuple: _Reader.sequence,
    dict | types.MappingProxyType: _Reader.mapping,
    set | frozenset: _Reader.set,
    slice | range: _parts("start", "stop", "step"),
    functools.partial: _parts("func", "args", "keywords"),
    types.MethodType: _parts("__func__", "__self__"),
    property: _parts("fget", "fset"),
    functools.cached_property: _parts("func"),
    staticmethod | classmethod | functools._lru_cache_wrapper: _parts("__wrapped__"),
    types.BuiltinFunctionType | types.MethodDescriptorType | np.ufunc: _Reader.builtin,
    types.WrapperDescriptorType | types.MemberDescriptorType: _Reader.builtin,
}
INHERITED = (nn.Module, Enum, type)


def _fingerprint(what: nn.Module) -> str:
    """Whether a network is still what it was: parts without a description count by their class."""
    reader = _Reader()
    reader.open.append(what)

    def read(part: Any, at: str) -> Described:
        try:
            return reader.of(part, at)
        except UndescribableError:
            return type(part).__qualname__

    return _sha(layers(what, read))


def _sha(described: Described) -> str:
    return hashlib.sha256(json.dumps(described).encode()).hexdigest()
