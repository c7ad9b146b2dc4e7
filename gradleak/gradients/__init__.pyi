from . import convolution, entrywise, hooks, networks, plain, products
from .agreement import LoopWarning
from .compute import general, gradient, path
from .container import Gradient, layer_of
from .half import HALF, in_float32
from .hooks import Loss
from .outer import Outer

__all__ = [
    "HALF",
    "Gradient",
    "LoopWarning",
    "Loss",
    "Outer",
    "convolution",
    "entrywise",
    "general",
    "gradient",
    "hooks",
    "in_float32",
    "layer_of",
    "networks",
    "path",
    "plain",
    "products",
]
