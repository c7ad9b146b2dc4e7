from .description import describe, digest, given, made
from .errors import UndescribableError
from .networks import Recipe
from .origins import LIBRARIES

__all__ = [
    "LIBRARIES",
    "Recipe",
    "UndescribableError",
    "describe",
    "digest",
    "given",
    "made",
]
