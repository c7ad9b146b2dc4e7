from . import ats_search, records
from .answering import answers
from .exported import Exported, made
from .page import profile
from .records import Plain, Records
from .runs import accuracies, measured, run
from .trials import Trial, digest, grid
from .tuning import check_disjoint, tune

__all__ = [
    "Exported",
    "Plain",
    "Records",
    "Trial",
    "accuracies",
    "answers",
    "ats_search",
    "check_disjoint",
    "digest",
    "grid",
    "made",
    "measured",
    "profile",
    "records",
    "run",
    "tune",
]
