"""Gradients and weights that were not made here, as tensors by the names that the model has."""

import re
from collections.abc import Iterator, Mapping, Sequence, ValuesView
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from gradleak.device import usable
from gradleak.names import nearest
from gradleak.scales import is_plain

Given = Mapping[str, object] | Sequence[object] | str | PathLike[str]
"""Arrays or tensors by parameter name, or in the parameters' order, or a file of them."""

# What DistributedDataParallel, Opacus, torch.compile, FSDP and checkpointing put into names.
WRAPPERS = {"module", "_module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}


def read(what: str, given: Given, model: nn.Module) -> dict[str, Tensor]:
    """Parameter name -> tensor of any shape, as many as were given; buffers are left out.

    given: a dict (None stands for nothing); a list in the order of the trainable parameters, of all
    parameters, or of the state; the path of a safetensors or npz file. what: its name in errors.
    Wrappers' parts of names ("module.", "_module.", "_orig_mod.") do not count. Raises ValueError
    for what is none of these, unknown names, and values that are no numbers.
    """
    if isinstance(given, str | PathLike):
        given = _loaded(Path(given))
    owners = _owners(model)
    named = given if isinstance(given, Mapping) else _in_order(what, given, model, owners)
    names = _known(what, [k for k, v in named.items() if v is not None], owners)
    found: dict[str, Tensor] = {}
    for name, key in names.items():
        if (owner := owners[key]) is None:
            continue
        value = _tensor(f"'{name}' of the {what}", named[name])
        if owner in found and not torch.equal(found[owner], value):
            raise ValueError(f"the {what} gives '{owner}' twice, and not alike: leave one out")
        found[owner] = value
    return found


def _owners(model: nn.Module) -> dict[str, str | None]:
    """Every name in the model's state -> its parameter's first name; None for buffers."""
    buffers = [name for name, _ in model.named_buffers(remove_duplicate=False)]
    owners: dict[str, str | None] = dict.fromkeys([*model.state_dict(), *buffers])
    first: dict[int, str] = {}
    for name, p in model.named_parameters(remove_duplicate=False):
        owners[name] = first.setdefault(id(p), name)
    return owners


def _in_order(
    what: str, given: Sequence[object], model: nn.Module, owners: Mapping[str, str | None]
) -> dict[str, object]:
    if isinstance(given, Tensor | np.ndarray | bytes) or not isinstance(
        given, Sequence | Iterator | ValuesView
    ):
        raise ValueError(
            f"the {what} must be a dict (name -> tensor or array), a list of them in the "
            f"parameters' order, or the path of a safetensors or npz file, got "
            f"{type(given).__name__}; a flat vector: torch.split it at the parameters' sizes"
        )
    given = list(given)
    if given and isinstance(given[0], Mapping | list | tuple):
        raise ValueError(
            f"the {what} is a list of {type(given[0]).__name__}s; of several clients: "
            "{name: torch.stack([g[name] for g in gradients]) for name in gradients[0]}, of pairs: "
            "dict(pairs)"
        )
    parameters = dict(model.named_parameters())
    trainable = [k for k, p in parameters.items() if p.requires_grad]
    for names in (trainable, list(parameters), list(model.state_dict())):
        if len(names) == len(given):
            return dict(zip(names, given, strict=True))
    raise ValueError(
        f"the {what} is a list of {len(given)}, the model has {len(trainable)} trainable "
        f"parameters; give a dict by their names, which are {', '.join(trainable)}"
    )


def _known(what: str, names: Sequence[object], owners: Mapping[str, str | None]) -> dict[str, str]:
    """Each name that was given -> the model's own."""
    bare: dict[str, list[str]] = {}
    for name in owners:
        bare.setdefault(_bare(name), []).append(name)
    found, unknown = {}, []
    for name in names:
        match = [name] if name in owners else bare.get(_bare(str(name)), [])
        if len(match) == 1:
            found[name] = match[0]
        else:
            unknown.append(name)
    if unknown:
        known = [k for k, owner in owners.items() if owner == k]
        told = ", ".join(f"{str(k)!r:.60}{nearest(str(k), known)}" for k in unknown[:5])
        raise ValueError(
            f"the {what} names {told}, which the client's model has not; rename or leave out: the "
            f"parameters are {', '.join(known)}"
        )
    return found


def _bare(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def _tensor(what: str, value: object) -> Tensor:
    try:
        check_unmasked(value)
        if isinstance(value, Tensor):
            tensor = usable(value.detach().to_dense())
        else:
            array = np.asarray(value)
            if array.dtype.kind in "bcmMOSU":  # which NumPy would cast without a word
                raise TypeError(f"an array of {array.dtype}")
            plain = array.dtype.kind == "f" and array.itemsize <= 8
            kind = array.dtype.newbyteorder("=") if plain else np.float64
            tensor = torch.tensor(np.array(array, dtype=kind, order="C"))
        if tensor.is_complex() or tensor.dtype is torch.bool or not is_plain(tensor):
            raise TypeError(f"a tensor of {tensor.dtype} on {tensor.device}")
    except (TypeError, ValueError, RuntimeError, NotImplementedError) as error:
        raise ValueError(
            f"{what} is no tensor or array of real numbers but {type(value).__name__} ({error}); "
            "give such a one: value.float(), .dequantize(), torch.as_tensor(value)"
        ) from error
    return tensor


def check_unmasked(value: object) -> None:
    """TypeError for a masked array, or a list of them, whose hidden numbers would count."""
    parts = value if isinstance(value, list | tuple) else [value]
    if any(isinstance(part, np.ma.MaskedArray) for part in parts):
        raise TypeError("an array with a mask; fill in what it hides, value.filled(0)")


def _loaded(path: Path) -> dict[str, object] | list[object]:
    try:
        path = path.expanduser()
        there = path.is_file()
    except (OSError, RuntimeError, ValueError):  # a name too long, a user who is none
        there = False
    if not there:
        raise FileNotFoundError(f"there is no file {path!s:.200}; give a path that exists")
    readers = {".safetensors": load_file, ".npz": _npz}
    if path.suffix.lower() not in readers:
        raise ValueError(
            f"{path} is neither .safetensors nor .npz, and nothing is unpickled here; write it "
            "with safetensors.torch.save_file(dict, path) or numpy.savez(path, **arrays)"
        )
    try:
        return readers[path.suffix.lower()](path)
    except Exception as error:  # each library has many of its own
        raise ValueError(
            f"{path} is damaged or no {path.suffix} file of plain arrays "
            f"({type(error).__name__}); write it again"
        ) from None  # NumPy advises to unpickle


def _npz(path: Path) -> dict[str, object] | list[object]:
    """Arrays by name, or in the order in which `numpy.savez` was given them without names."""
    with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
        arrays = dict(file)
    if all(re.fullmatch(r"arr_\d+", name) for name in arrays):
        return [arrays[f"arr_{k}"] for k in range(len(arrays))]
    return arrays
