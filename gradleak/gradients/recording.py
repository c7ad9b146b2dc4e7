"""What PyTorch dispatches, written down; and a function of Python that does it again."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

from gradleak.device import Dispatched

Run = Callable[..., tuple[Tensor, ...]]
"""run(*tensors) -> tensors, the same ones of the same ones."""

aten = torch.ops.aten
QUICK = {
    aten.add.Tensor: torch.add,
    aten.add_.Tensor: Tensor.add_,
    aten.as_strided.default: torch.as_strided,
    aten.bmm.default: torch.bmm,
    aten.clone.default: torch.clone,
    aten.div.Tensor: torch.div,
    aten.expand.default: Tensor.expand,
    aten.mm.default: torch.mm,
    aten.mul.Tensor: torch.mul,
    aten.permute.default: torch.permute,
    aten.select.int: torch.select,
    aten.sub.Tensor: torch.sub,
    aten.sum.dim_IntList: torch.sum,
    aten.transpose.int: torch.transpose,
    aten.unsqueeze.default: torch.unsqueeze,
    aten.view.default: Tensor.view,
}
"""The usual names of operations that take little time themselves: half of what their call costs."""

SAME = (aten.detach.default, aten.alias.default)
"""Operations that answer with what they were given, once nothing is differentiated."""


INDEX = (aten.index.Tensor, aten._unsafe_index.Tensor)
UNSEEN = (aten._pack_padded_sequence.default,)
"""Operations whose kernel reads numbers of which the shape of the result is made."""


class Slot(NamedTuple):
    """A place in the record that holds a tensor."""

    number: int


@dataclass
class Call:
    """An operation as it was called, tensors replaced by their slots."""

    function: Any
    args: list
    kwargs: dict[str, Any]
    result: Any = None
    read: list[int] = field(default_factory=list)
    made: list[int] = field(default_factory=list)
    writes: bool = False
    masked: bool = False  # picks entries by a mask, and so as many as that has
    again: bool = False  # makes what does not depend on the inputs, and is too large to be held


class NotReplayableError(Exception):
    """Why a computation cannot be replayed."""


class Record(Dispatched):
    """Writes down what is dispatched inside."""

    def __init__(self, inputs: tuple[Tensor, ...]) -> None:
        super().__init__()
        self.calls: list[Call] = []
        self.held: dict[int, Tensor] = {}
        self.outside: set[int] = set()
        self._numbers = count()
        self._slots = WeakTensorKeyDictionary()
        self._places: list[int] = []  # which memory each slot lies in; views share theirs
        self._moving: set[int] = set()  # memory whose numbers depend on the inputs
        self._kept: set[int] = set()  # memory of what is held, or lies outside
        self._room = 0  # bytes that may still be held: as many as lie outside
        self._refused = ""
        self.inputs = [self._new(t) for t in inputs]
        self._moving.update(self._places[s] for s in self.inputs)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if self._refuses(function, (args, *kwargs.values())):
            return function(*args, **kwargs)
        given: list[Tensor] = []
        call = Call(
            function,
            self._slotted(args, given),
            dict(zip(kwargs, self._slotted((*kwargs.values(),), given), strict=True)),
            read=[self._slots[tensor] for tensor in given],
            writes=function._schema.is_mutable,
            masked=any(t.dtype in (torch.bool, torch.uint8) for t in given),
        )
        moving = self._moves(call)
        result = function(*args, **kwargs)
        if self._refuses(function, result):
            return result
        for tensor in result if isinstance(result, list | tuple) else (result,):
            if isinstance(tensor, Tensor) and tensor not in self._slots:
                slot = self._new(tensor, self._beside(tensor, given))
                call.made.append(slot)
                if not moving and self._keeps(slot, tensor):
                    self.held[slot] = tensor
        call.again = not moving and any(
            self._places[s] not in self._kept for s in (*call.made, *self._written(call))
        )
        call.result = self._slotted(result, given)
        if moving or call.writes:  # what is written into was something else before
            self._move(call)
        self.calls.append(call)
        return result

    def plan(self, outputs: tuple[Tensor, ...]) -> Run:
        """What gives the outputs for other inputs. Raises NotReplayableError."""
        if self._refused:
            raise NotReplayableError(self._refused)
        while not all([self._settled(call) for call in self.calls]):
            pass  # memory that is filled anew in each step moves, and so does what made it
        calls = [call for call in self.calls if self._moves(call) or call.again]
        for call in self.calls:
            self._check(call, self._moves(call))
        missing = [t for t in outputs if t not in self._slots]
        if missing:
            raise NotReplayableError("an output is not what an operation gave")
        return _compiled(calls, self.inputs, [self._slots[t] for t in outputs], self.held)

    def _refuses(self, function: Any, values: Any) -> bool:
        """Whether nothing is written down any more, as a tensor has no memory to tell it by."""
        leaves = [] if self._refused else tree_leaves(values)
        if any(isinstance(t, Tensor) and t.layout != torch.strided for t in leaves):
            self._refused = f"{function} takes or gives a tensor that is not dense"
        return bool(self._refused)

    def _new(self, tensor: Tensor, place: int | None = None) -> int:
        number = next(self._numbers)
        self._slots[tensor] = number
        self._places.append(number if place is None else place)
        return number

    def _of(self, tensor: Tensor) -> int:
        """The slot of a tensor; one that nothing here made is held as it is."""
        slot = self._slots.get(tensor)
        if slot is None:
            slot = self._new(tensor)
            self.outside.add(slot)
            self.held[slot] = tensor
            self._kept.add(slot)
            self._room += tensor.untyped_storage().nbytes()
        return slot

    def _keeps(self, slot: int, tensor: Tensor) -> bool:
        place, size = self._places[slot], tensor.untyped_storage().nbytes()
        if place not in self._kept and size <= self._room:
            self._room -= size
            self._kept.add(place)
        return place in self._kept

    def _beside(self, tensor: Tensor, given: list[Tensor]) -> int | None:
        """The memory that a result shares with what was given, None for memory of its own."""
        own = _memory(tensor)
        for other in given:
            if _memory(other) == own:
                return self._places[self._slots[other]]
        return None

    def _slotted(self, value: Any, given: list[Tensor]) -> Any:
        """The same with slots for tensors, which are added to `given`."""
        if isinstance(value, Tensor):
            given.append(value)
            return Slot(self._of(value))
        if isinstance(value, list | tuple):
            return [self._slotted(v, given) for v in value]
        return value

    def _moves(self, call: Call) -> bool:
        return any(self._places[s] in self._moving for s in (*call.read, *call.made))

    def _move(self, call: Call) -> None:
        self._moving.update(self._places[s] for s in call.made)
        self._moving.update(self._places[s] for s in self._written(call))

    def _settled(self, call: Call) -> bool:
        before = len(self._moving)
        if self._moves(call):
            self._move(call)
        return len(self._moving) == before

    def _written(self, call: Call) -> Iterator[int]:
        if not call.writes:
            return
        schema = call.function._schema.arguments
        named = {a.name: a for a in schema}
        given = [
            *zip(schema, call.args, strict=False),
            *((named[k], v) for k, v in call.kwargs.items()),
        ]
        for argument, value in given:
            if argument.alias_info is not None and argument.alias_info.is_write:
                yield from (v.number for v in _slots(value))

    def _check(self, call: Call, moves: bool) -> None:
        name = str(call.function)
        if any(s in self.outside for s in self._written(call)):
            raise NotReplayableError(f"{name} writes into a tensor of outside")
        tags = call.function.tags
        if torch.Tag.nondeterministic_seeded in tags:
            raise NotReplayableError(f"{name} draws numbers")
        if torch.Tag.inplace_view in tags:
            raise NotReplayableError(f"{name} turns a tensor into another view")
        if moves and (call.function.namespace not in ("aten", "prims") or call.function in UNSEEN):
            raise NotReplayableError(f"nobody knows what {name} reads")
        # An index of whole numbers has as many results as it has numbers.
        counted = call.function not in INDEX or call.masked
        if moves and torch.Tag.dynamic_output_shape in tags and counted:
            raise NotReplayableError(f"{name} gives as many numbers as its input says")
        if moves and not any(_slots(call.result)) and not call.writes:
            raise NotReplayableError(f"{name} reads a value into Python")


def _compiled(
    calls: list[Call], inputs: list[int], outputs: list[int], held: dict[int, Tensor]
) -> Run:
    """The calls as a function of Python, which lets go of each tensor after its last use."""
    same: dict[int, int] = {}

    def root(slot: int) -> int:
        return same.get(slot, slot)

    needed, kept = set(outputs), []
    for call in reversed(calls):
        if call.writes or needed.intersection(call.made):
            needed.update(call.read)
            kept.append(call)
    kept.reverse()
    for call in kept:
        if call.function in SAME:
            same[call.made[0]] = root(call.read[0])
    kept = [call for call in kept if call.function not in SAME]
    last = {root(s): i for i, call in enumerate(kept) for s in (*call.read, *call.made)}
    ends: dict[int, list[int]] = {}
    for slot, i in last.items():
        ends.setdefault(i, []).append(slot)
    made = {root(s) for call in kept for s in call.made}
    stay = {root(s) for s in outputs}
    names: dict[str, Any] = {}

    def name(value: object) -> str:
        names[f"c{len(names)}"] = value
        return f"c{len(names) - 1}"

    constants = {s: name(held[s].detach()) for s in {*last, *stay} - made - {*inputs}}

    def text(value: object) -> str:
        if isinstance(value, Slot):
            slot = root(value.number)
            return constants.get(slot, f"v{slot}")
        if isinstance(value, list):
            return f"[{', '.join(map(text, value))}]"
        return repr(value) if value is None or type(value) in (int, bool) else name(value)

    lines = []
    for i, call in enumerate(kept):
        # The operation itself, without a look at types.
        of = name(QUICK.get(call.function) or getattr(call.function, "_op", call.function))
        given = [*map(text, call.args), *(f"{k}={text(v)}" for k, v in call.kwargs.items())]
        to = f"{_target(call)} = " if call.made else ""
        lines.append(f"{to}{of}({', '.join(given)})")
        gone = [f"v{s}" for s in ends.get(i, ()) if s in made and s not in stay]
        lines += [f"del {', '.join(gone)}"] if gone else []
    lines.append(f"return {text([*map(Slot, outputs)])}")
    taken = ", ".join((*(f"v{s}" for s in inputs), *(f"{k}={k}" for k in names)))
    exec("\n    ".join((f"def plan({taken}):", *lines)), names)
    return names["plan"]


def _target(call: Call) -> str:
    """Where results go; those that are None, or that were there before, go nowhere."""
    made = set(call.made)

    def place(value: object) -> str:
        if isinstance(value, list):
            return f"[{', '.join(map(place, value))}]"
        return f"v{value.number}" if isinstance(value, Slot) and value.number in made else "_"

    return place(call.result)


def _slots(tree: object) -> Iterator[Slot]:
    if isinstance(tree, Slot):
        yield tree
    elif isinstance(tree, list):
        for part in tree:
            yield from _slots(part)


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata
