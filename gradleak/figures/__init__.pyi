from .exhibits import arms, compared, frame, frames, gallery, means, memory, tables
from .html import Frame, Row
from .plot import COLORS, curves, differences, images, intervals, panels, table, tradeoff
from .slider import strength

__all__ = [
    "COLORS",
    "Frame",
    "Row",
    "arms",
    "compared",
    "curves",
    "differences",
    "frame",
    "frames",
    "gallery",
    "images",
    "intervals",
    "means",
    "memory",
    "panels",
    "strength",
    "table",
    "tables",
    "tradeoff",
]
