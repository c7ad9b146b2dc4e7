from . import convolution, entrywise, hooks, network, plain, products, reading, received, replay
from .agreement import LoopWarning
from .compute import general, gradient, path
from .container import Gradient, layer_of
from .half import HALF, in_float32, in_float64
from .hooks import Loss
from .outer import Outer
from .plain import slope
from .reading import Given
from .rounding import rounded
from .turns import ALONE

__all__ = [
    "ALONE",
    "HALF",
    "Given",
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
    "in_float64",
    "layer_of",
    "network",
    "path",
    "plain",
    "products",
    "reading",
    "received",
    "replay",
    "rounded",
    "slope",
]
