"""Names that a user types, checked early and with the near miss named."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from types import SimpleNamespace
from typing import Any


def choose(what: str, name: str, names: Iterable[str]) -> str:
    """Return `name` if it is one of `names`; raise ValueError with the nearest one otherwise."""
    names = list(names)
    if name in names:
        return name
    near = difflib.get_close_matches(str(name), names, n=1)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    raise ValueError(f"unknown {what} '{name}'{hint} (one of: {', '.join(names)})")


def profile(name: str, profiles: Mapping[str, Mapping[str, Any]], **given: Any) -> SimpleNamespace:
    """The sizes of a profile, with those that were given (not empty and not 0) in their place.

    Of few `images`, no more can be `shown` or `swept` by a slider. Raises ValueError for a size
    below 0.
    """
    sizes = dict(profiles[choose("profile", name, profiles)])
    sizes |= {k: v for k, v in given.items() if v}
    for what, value in sizes.items():
        if isinstance(value, int) and value < 0:
            raise ValueError(f"{what} must not be negative, got {value}; 0 takes the profile's")
    for part in sizes.keys() & {"shown", "swept"}:
        sizes[part] = min(sizes[part], sizes["images"])
    return SimpleNamespace(**sizes)
