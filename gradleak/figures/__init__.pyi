from .exhibits import arms, compared, frame, frames, gallery, means, tables
from .html import Frame, Row
from .plot import COLORS, curves, differences, images, panels, table, tradeoff
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
    "means",
    "panels",
    "strength",
    "table",
    "tables",
    "tradeoff",
]
