from . import cases, floor, loop
from .measure import run, run_compiled, write

__all__ = [
    "cases",
    "floor",
    "loop",
    "run",
    "run_compiled",
    "write",
]
