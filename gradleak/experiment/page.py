"""What every chapter begins and ends with."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from gradleak.names import choose


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
