"""The executable book: find the chapters, run them, render the site, publish the outputs.

Attacks, defenses and figures live in the modules beside this folder and know nothing of it.
"""

from gradleak.book.chapter import (
    PROFILES,
    BookError,
    Chapter,
    Parameter,
    chapters,
    find,
    parameters,
    root,
)
from gradleak.book.execute import run
from gradleak.book.published import publish, publish_records
from gradleak.book.render import build

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
