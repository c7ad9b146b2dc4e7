"""What a function does, read off its bytecode.

Comments, docstrings, line numbers and the names of locals do not enter. Another minor version of
Python compiles otherwise.
"""

from __future__ import annotations

import builtins
import dis
import itertools
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from gradleak.identity.origins import library

IDLE = {"RESUME", "NOP", "CACHE", "EXTENDED_ARG"}  # instructions that do nothing by themselves
GLOBAL = {"LOAD_GLOBAL", "LOAD_NAME"}
ATTRIBUTE = {"LOAD_ATTR", "LOAD_METHOD", "IMPORT_FROM"}
VARIADIC = 0x04 | 0x08  # takes *args, **kwargs


def instructions(
    code: types.CodeType, constant: Callable[[Any], Any], outer: Mapping[str, str] | None = None
) -> list:
    """The signature and the instructions, in lists of lists and strings.

    constant: describes a constant. outer: how the locals of the function around it are numbered.
    """
    count = code.co_argcount + code.co_kwonlyargcount + (code.co_flags & VARIADIC).bit_count()
    arguments = code.co_varnames[:count]
    numbers = {name: f"^{(outer or {}).get(name, name)}" for name in code.co_freevars}
    numbers |= {name: str(k) for k, name in enumerate(arguments)}

    def number(name: str | tuple[str, ...]) -> Any:
        if isinstance(name, tuple):
            return [number(each) for each in name]
        return numbers.setdefault(name, str(len(numbers)))

    steps, place = [], {}
    for step in dis.get_instructions(code):
        place[step.offset] = len(steps)
        if step.opname not in IDLE:
            steps.append(step)

    def argument(step: dis.Instruction) -> Any:
        if step.opcode in dis.hasconst:
            value = code.co_consts[step.arg]
            inner = isinstance(value, types.CodeType)
            return instructions(value, constant, numbers) if inner else constant(value)
        if step.opcode in dis.hasjrel or step.opcode in dis.hasjabs:
            return str(place.get(step.argval, len(steps)))
        if step.opcode in dis.haslocal or step.opcode in dis.hasfree:
            return number(step.argval)
        return str(step.argval if step.opcode in dis.hasname else step.arg)

    told = [[step.opname, argument(step)] for step in steps]
    caught = [
        [str(place.get(at, len(steps))) for at in (e.start, e.end, e.target)]
        for e in getattr(dis.Bytecode(code), "exception_entries", ())  # from Python 3.11 on
    ]
    kinds = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags & 12)
    return [list(arguments), [str(k) for k in kinds], told, caught]


def references(code: types.CodeType, namespace: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The values outside of it that a function refers to, by name.

    Where it reaches into a module that is no library, as in `helpers.clipped`, that is a value. A
    module that it uses as a whole is returned itself.
    """
    value, name, imported = None, "", None
    idle = IDLE | {"PUSH_NULL"}
    steps = [step for step in dis.get_instructions(code) if step.opname not in idle]
    for step, after in itertools.zip_longest(steps, steps[1:]):
        if step.opname in GLOBAL:
            name = step.argval
            value = namespace.get(name, getattr(builtins, name, "not there"))
        elif step.opname == "IMPORT_NAME":
            name = step.argval
            value = imported = sys.modules.get(name, "not there")
        elif step.opname in ATTRIBUTE:
            whole = imported if step.opname == "IMPORT_FROM" else value
            value = getattr(whole, step.argval, "not there") if _open(whole) else None
            name = f"{name}.{step.argval}"
        else:
            value = None
        looked_into = _open(value) and after is not None and after.opname in ATTRIBUTE
        if value is not None and not looked_into and not _known(value):
            yield name, value
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            yield from references(inner, namespace)


def _open(value: Any) -> bool:
    """Whether to look into a value for what is reached in it."""
    return isinstance(value, types.ModuleType) and not library(value.__name__)


def _known(value: Any) -> bool:
    """Whether the name says everything: modules of libraries, and what is built in."""
    if isinstance(value, types.ModuleType):
        return bool(library(value.__name__))
    return getattr(value, "__module__", None) == "builtins" and hasattr(builtins, value.__name__)
