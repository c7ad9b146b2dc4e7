from . import ats_search, records
from .page import profile
from .records import Plain, copy_used, write_facts
from .runs import accuracies, measured, run
from .trials import Trial, digest, grid
from .tuning import check_disjoint, tune

__all__ = [
    "Plain",
    "Trial",
    "accuracies",
    "ats_search",
    "check_disjoint",
    "copy_used",
    "digest",
    "grid",
    "measured",
    "profile",
    "records",
    "run",
    "tune",
    "write_facts",
]
