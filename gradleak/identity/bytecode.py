"""What a function does, read off its bytecode.

Comments, docstrings, line numbers and the names of locals do not enter. Another minor version of
Python compiles otherwise.
"""

import builtins
import dis
import importlib
import itertools
import types
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from gradleak.identity.origins import library

IDLE = {"RESUME", "NOP", "CACHE", "EXTENDED_ARG", "PUSH_NULL"}  # they do nothing by themselves
GLOBAL = {"LOAD_GLOBAL", "LOAD_NAME"}
ATTRIBUTE = {"LOAD_ATTR", "LOAD_METHOD", "IMPORT_FROM"}
LOCAL, JUMP = {*dis.haslocal, *dis.hasfree}, {*dis.hasjrel, *dis.hasjabs}
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
    steps = _steps(code)
    offsets = [step.offset for step in steps]

    def argument(step: dis.Instruction) -> Any:
        value = step.argval
        if step.opcode in dis.hasconst:
            value = code.co_consts[step.arg]
            inner = isinstance(value, types.CodeType)
            return instructions(value, constant, numbers) if inner else constant(value)
        if step.opcode in JUMP:
            return str(bisect_left(offsets, value))
        if step.opcode in LOCAL:  # from Python 3.13 on it may be two
            names = value if isinstance(value, tuple) else (value,)
            return [numbers.setdefault(name, str(len(numbers))) for name in names]
        return str(value if step.opcode in dis.hasname else step.arg)

    told = [[step.opname, argument(step)] for step in steps]
    caught = getattr(dis.Bytecode(code), "exception_entries", ())  # from Python 3.11 on
    caught = [[str(bisect_left(offsets, at)) for at in (e.start, e.end, e.target)] for e in caught]
    kinds = (code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags & VARIADIC)
    return [list(arguments), list(map(str, kinds)), told, caught]


def references(code: types.CodeType, namespace: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The values outside of it that a function refers to, by name.

    Where it reaches into a module that is no library, as in `helpers.clipped`, that is a value. A
    module that it uses as a whole is returned itself.
    """
    value, name, imported = None, "", None
    steps = _steps(code)
    for step, after in itertools.zip_longest(steps, steps[1:]):
        if step.opname in GLOBAL:
            name = step.argval
            value = namespace.get(name, getattr(builtins, name, "not there"))
        elif step.opname == "IMPORT_NAME":
            name = step.argval
            value = imported = _imported(name)
        elif step.opname in ATTRIBUTE:
            whole = imported if step.opname == "IMPORT_FROM" else value
            open_ = isinstance(whole, types.ModuleType) and not library(whole.__name__)
            value = getattr(whole, step.argval, "not there") if open_ else None
            name = f"{name}.{step.argval}"
        else:
            value = None
        module = isinstance(value, types.ModuleType)
        if module and library(value.__name__):
            yield name, f"module {value.__name__}"  # whatever it is called here
        elif value is not None and not (module and after and after.opname in ATTRIBUTE):
            yield name, value
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            yield from references(inner, namespace)


def _imported(name: str) -> Any:
    """A module that a function imports when it runs; else a string, as of one that is not there."""
    try:
        return importlib.import_module(name)
    except (ImportError, ValueError):
        return "not there"


def _steps(code: types.CodeType) -> list[dis.Instruction]:
    return [step for step in dis.get_instructions(code) if step.opname not in IDLE]
