from . import convolution, entrywise, hooks, products, received
from .compute import general, gradient, path
from .container import Gradient, layer_of
from .hooks import Loss
from .outer import Outer
from .reading import Given

__all__ = [
    "Given",
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
    "received",
]
