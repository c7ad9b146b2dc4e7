"""Which device computes."""

import torch


def named(name: str = "auto") -> torch.device:
    """`cpu`, `cuda`, or the better of those present for `auto`."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)
