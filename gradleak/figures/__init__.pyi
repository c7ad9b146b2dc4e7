from .exhibits import ahead, arms, compared, found, frame, frames, gallery, means, memory, tables
from .html import Frame, Row
from .plane import plane_frame, planes
from .plot import COLORS, curves, differences, images, panels, table, tradeoff
from .slider import strength

__all__ = [
    "COLORS",
    "Frame",
    "Row",
    "ahead",
    "arms",
    "compared",
    "curves",
    "differences",
    "found",
    "frame",
    "frames",
    "gallery",
    "images",
    "means",
    "memory",
    "panels",
    "plane_frame",
    "planes",
    "strength",
    "table",
    "tables",
    "tradeoff",
]
