from . import convolution, entrywise, hooks, products
from .compute import general, gradient, path
from .container import HALF, Gradient, layer_of
from .hooks import Loss
from .outer import Outer

__all__ = [
    "HALF",
    "Gradient",
    "Loss",
    "Outer",
    "convolution",
    "entrywise",
    "general",
    "gradient",
    "hooks",
    "layer_of",
    "path",
    "products",
]
