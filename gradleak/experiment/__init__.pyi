from . import ats_search, records
from .comparison import Comparison
from .exported import Exported, made
from .page import Page, page, said
from .records import Plain, Records
from .runs import accuracies, measured, run
from .trials import Trial, digest, grid
from .tuning import check_disjoint, tune

__all__ = [
    "Comparison",
    "Exported",
    "Page",
    "Plain",
    "Records",
    "Trial",
    "accuracies",
    "ats_search",
    "check_disjoint",
    "digest",
    "grid",
    "made",
    "measured",
    "page",
    "records",
    "run",
    "said",
    "tune",
]
