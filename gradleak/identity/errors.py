"""What is said of something that has no stable description."""

from __future__ import annotations

import pathlib
import types
from typing import Any

CURE = "make it a frozen dataclass or a module-level function"
MADE = "note how the network was made, by gradleak.identity.made"


class UndescribableError(ValueError):
    """Something that decides a result has no stable description."""


def refusal(what: Any, way: str, in_network: bool) -> UndescribableError:
    """The error that names the part and the cure; way: such as client.loss."""
    whole, _, part = way.lstrip(".").partition(".")
    where = f"the {whole}'s {part}" if part else f"the {whole}" if whole else "this"
    is_, cure = f"an object of {type(what).__qualname__}", CURE
    if isinstance(what, types.FunctionType):
        named = what.__name__ != "<lambda>"
        is_ = "a closure, a function that holds values of its own" if named else "a lambda"
    if isinstance(what, pathlib.PurePath):
        cure = "read the file: what it holds decides, and not its name"
    if isinstance(what, types.ModuleType):
        is_, cure = f"the module {what.__name__}", "import by name what is used of it"
    if in_network:
        cure = f"{cure}, or {MADE}"
    return UndescribableError(f"{where} is {is_}, which has no stable description: {cure}")
