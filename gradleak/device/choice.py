"""Which device computes."""

import torch

from gradleak.scales import check_kind


def named(name: str = "auto") -> torch.device:
    """`cpu`, `cuda`, or the better of those present for `auto`.

    Raises ValueError for what is no name, and for `cuda` where there is none.
    """
    check_kind("device", name, str, 'such as "cpu"')
    there = torch.cuda.is_available()
    if name == "cuda" and not there:
        raise ValueError("there is no graphics card that PyTorch sees here: take auto or cpu")
    if name == "auto":
        name = "cuda" if there else "cpu"
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"no device is called {name!r:.99}; take auto, cpu or cuda") from error
