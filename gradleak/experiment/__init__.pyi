from . import ats_search, records
from .comparison import Comparison
from .exported import Exported, made
from .limits import limit, limits
from .page import Page, page, said
from .records import Plain, Records
from .runs import measured, run
from .trials import Trial, grid
from .tuning import tune

__all__ = [
    "Comparison",
    "Exported",
    "Page",
    "Plain",
    "Records",
    "Trial",
    "ats_search",
    "grid",
    "limit",
    "limits",
    "made",
    "measured",
    "page",
    "records",
    "run",
    "said",
    "tune",
]
