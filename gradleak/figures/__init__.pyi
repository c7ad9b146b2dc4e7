from .exhibits import arms, compared, found, frame, frames, gallery, means, tables
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
    "found",
    "frame",
    "frames",
    "gallery",
    "images",
    "intervals",
    "means",
    "panels",
    "strength",
    "table",
    "tables",
    "tradeoff",
]
