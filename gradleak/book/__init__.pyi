from .chapter import PROFILES, BookError, Chapter, chapters, find, root
from .execute import run
from .published import publish, publish_records
from .render import build
from .values import Parameter, parameters

__all__ = [
    "PROFILES",
    "BookError",
    "Chapter",
    "Parameter",
    "build",
    "chapters",
    "find",
    "parameters",
    "publish",
    "publish_records",
    "root",
    "run",
]
