from . import convolution, entrywise, hooks, networks, plain, products
from .agreement import LoopWarning
from .compute import general, gradient, path
from .container import Gradient, layer_of
from .hooks import Loss
from .outer import Outer

__all__ = [
    "Gradient",
    "LoopWarning",
    "Loss",
    "Outer",
    "convolution",
    "entrywise",
    "general",
    "gradient",
    "hooks",
    "layer_of",
    "networks",
    "path",
    "plain",
    "products",
]
