"""Which device computes."""

import torch


def named(name: str = "auto") -> torch.device:
    """`cpu`, `cuda`, or the better of those present for `auto`.

    Raises ValueError for `cuda` where there is none.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("there is no graphics card that PyTorch sees here: use auto or cpu")
    return torch.device(name)
