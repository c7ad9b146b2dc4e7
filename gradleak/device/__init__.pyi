from . import precision
from .choice import named
from .chunks import CACHED, as_many_as_fit, blocks, in_chunks, out_of_memory, pieces
from .dispatch import Dispatched
from .memory import LiveMemory, MovedMemory, free, keep_blocks
from .precision import PRECISIONS, MatrixInputs, ordinary, products, unrounded, usable
from .threads import cores, follows, proceed, side_by_side, threads

__all__ = [
    "CACHED",
    "PRECISIONS",
    "Dispatched",
    "LiveMemory",
    "MatrixInputs",
    "MovedMemory",
    "as_many_as_fit",
    "blocks",
    "cores",
    "follows",
    "free",
    "in_chunks",
    "keep_blocks",
    "named",
    "ordinary",
    "out_of_memory",
    "pieces",
    "precision",
    "proceed",
    "products",
    "side_by_side",
    "threads",
    "unrounded",
    "usable",
]
