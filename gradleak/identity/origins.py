"""Whose code something is: this package's, a library's, or anybody else's."""

import functools
import operator
import sys
import sysconfig
import types
from typing import Any

from torch import nn

LIBRARIES = {"torch", "torchvision", "numpy", "scipy", "sklearn", "skimage", "pandas", "tqdm"}
"""What enters by name, besides Python itself."""

ASIDE = {"_abc_impl", "__repr__", "__str__", "__annotate__", "__annotate_func__"}
# The methods that `dataclass` writes, which follow from the fields.
WRITTEN = {"__init__", "__eq__", "__lt__", "__le__", "__gt__", "__ge__", "__hash__",
           "__setattr__", "__delattr__"}  # fmt: skip
CODE = (types.FunctionType, staticmethod, classmethod, property, functools.cached_property)


def ours(module: str | None) -> bool:
    """Whether a module is this package's."""
    return f"{module}.".startswith("gradleak.")


@functools.cache
def library(module: str) -> str:
    """The library that a module belongs to, or nothing."""
    top = module.partition(".")[0]
    if top in LIBRARIES or top not in sys.stdlib_module_names:
        return top if top in LIBRARIES else ""
    file = getattr(sys.modules.get(top), "__file__", None)  # a user may have a profile.py, too
    return top if file is None or file.startswith(sysconfig.get_path("stdlib")) else ""


def found(what: type) -> bool:
    """Whether a class is where its name says: code that is executed from a text may lie."""
    try:
        return operator.attrgetter(what.__qualname__)(sys.modules[what.__module__]) is what
    except (KeyError, AttributeError):
        return False


def decides(value: Any) -> bool:
    """Whether a value decides anything: a class of this package may say that its objects do not."""
    return not ours(type(value).__module__) or getattr(type(value), "decides", True)


def plainly_torchs(what: Any) -> bool:
    """Whether it is an object of PyTorch that is all in its attributes."""
    compiled = any(base.__module__.startswith("torch._C") for base in type(what).__mro__)
    return library(type(what).__module__) == "torch" and hasattr(what, "__dict__") and not compiled


def members(what: type) -> list[tuple[str, Any]]:
    """What a class says by itself: its methods and constants, sorted by name."""
    return [
        (name, value)
        for name, value in sorted(vars(what).items())
        if name not in ASIDE
        and (isinstance(value, CODE) or not name.startswith("__"))
        and not _generated(what, value)
        and decides(value)
    ]


def asks_for_training(layer: type[nn.Module]) -> bool:
    """Whether a layer does different things in train and in eval mode."""
    own = layer.__mro__[: layer.__mro__.index(nn.Module)]
    functions = [f for base in own for f in vars(base).values() if isinstance(f, CODE[0])]
    return any("training" in f.__code__.co_names for f in functions)


def _generated(what: type, value: Any) -> bool:
    """Whether `dataclass` wrote a method of a class."""
    code = getattr(value, "__code__", None)
    if code is None or "__dataclass_params__" not in vars(what):
        return False
    if hasattr(code, "co_qualname"):
        return code.co_qualname.startswith("__create_fn__")
    # Before Python 3.11 its text is told by having no file, which other code may not have either.
    return code.co_filename == "<string>" and code.co_name in WRITTEN
