"""Names that a user types, checked early and with the near miss named."""

import difflib
from collections.abc import Iterable


def choose(what: str, name: str, names: Iterable[str]) -> str:
    """Return `name` if it is one of `names`; raise ValueError with the nearest one otherwise."""
    names = list(names)
    if name in names:
        return name
    name = str(name)[:99]  # a longer one is none
    hint = nearest(name, names)
    raise ValueError(f"unknown {what} '{name}'{hint} (one of: {', '.join(names)})")


def nearest(name: str, names: Iterable[str]) -> str:
    """The question whether the nearest of `names` was meant; empty where none is near."""
    near = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean '{near[0]}'?" if near else ""
