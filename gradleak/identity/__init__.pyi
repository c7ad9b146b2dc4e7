from .description import UndescribableError, describe, digest, given, made
from .origins import LIBRARIES

__all__ = [
    "LIBRARIES",
    "UndescribableError",
    "describe",
    "digest",
    "given",
    "made",
]
