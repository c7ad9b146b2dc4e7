"""Which device computes."""

import torch

from gradleak.scales import check_kind


def named(name: str = "auto") -> torch.device:
    """`cpu`, `cuda`, or the better of those present for `auto`. ValueError for what is no name."""
    check_kind("device", name, str, 'such as "cpu"')
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"no device is called {name!r:.99}; take auto, cpu or cuda") from error
