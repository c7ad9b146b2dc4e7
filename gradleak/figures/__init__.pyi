from .exhibits import committed, compared, floors, frame, gallery, means
from .html import Frame, Row
from .plot import COLORS, curves, differences, images, intervals, panels, table, tradeoff
from .slider import strength

__all__ = [
    "COLORS",
    "Frame",
    "Row",
    "committed",
    "compared",
    "curves",
    "differences",
    "floors",
    "frame",
    "gallery",
    "images",
    "intervals",
    "means",
    "panels",
    "strength",
    "table",
    "tradeoff",
]
