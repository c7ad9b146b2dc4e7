from .description import Recipe, UndescribableError, describe, digest, given, made
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
