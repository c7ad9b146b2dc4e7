"""What a network has to be, so that its gradient is a function of x and y alone."""

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import is_dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from gradleak.gradients.half import in_float32
from gradleak.gradients.turns import ALONE, alone


@alone
def check(model: nn.Module) -> None:
    """ValueError, which names the cure, for a network whose gradient would not be what was meant.

    Those are wrapped or compiled ones, in train mode where that matters, not initialised, complex,
    with hooks on parameters or none in them, of inference mode, or without a trainable parameter.
    """
    for name, module in model.named_modules():
        if inside := _inside(module):
            raise ValueError(
                f"'{name}' ({type(module).__name__}) stands for a network whose gradients cannot "
                f"be differentiated from outside; give {inside}"
            )
    check_mode(model)
    for name, p in model.named_parameters():
        if nn.parameter.is_lazy(p):
            raise ValueError(f"'{name}' has no size yet: run the model once on an x, then attack")
        if p.requires_grad and p.is_complex():
            raise ValueError(
                f"'{name}' is complex; hold it as two real parameters and join them in the forward "
                "(torch.view_as_complex)"
            )
        if p._backward_hooks or p._post_accumulate_grad_hooks:
            raise ValueError(
                f"'{name}' has a hook, which may change its gradient unseen: remove it, and say "
                "what it does as a defense, gradleak.Client(model, defense)"
            )
        if p.is_inference():
            raise ValueError(
                f"'{name}' was made in inference mode, so it has no gradient: make the model "
                "outside of torch.inference_mode(), or copy.deepcopy it there"
            )
        if p.requires_grad and not p.numel():
            raise ValueError(
                f"'{name}' is trainable and holds no number: give it requires_grad_(False), or "
                "leave it out of the model"
            )
    first_trainable(model)


@alone
def first_trainable(model: nn.Module) -> nn.Parameter:
    """The first trainable parameter. Raises ValueError where there is none."""
    for p in model.parameters():
        if p.requires_grad:
            return p
    raise ValueError("the model has no trainable parameters, so it releases no gradient")


@alone
def check_finite(model: nn.Module) -> None:
    """ValueError for weights, or buffers, that are not finite."""
    for name, v in (*model.named_parameters(), *model.named_buffers()):
        if not v.isfinite().all():
            raise ValueError(
                f"'{name}' of the model is not finite, so no x has a gradient there: load the "
                "weights at which the gradient was taken"
            )


@alone
def check_same(believed: nn.Module, own: nn.Module, x: Tensor) -> None:
    """Raise ValueError where an adversary's network is not the view's, by weights and output at x.

    x: (1, *shape) of the right shape. Loss and defense may differ: those are beliefs. So may the
    precision in which the same weights are held.
    """
    if believed is own:
        return
    believed, own = in_float32(believed), in_float32(own)
    ours, theirs = _state(believed), _state(own)
    apart = [f"'{k}'" for k in theirs if k not in ours or not _equal(ours[k], theirs[k])]
    apart += [f"'{k}'" for k in ours if k not in theirs]
    if not apart:
        x = x.to(next(own.parameters()))
        with torch.no_grad():
            same = all(map(_close, *(_tensors(call(model, {}, x)) for model in (believed, own))))
        apart = [] if same else ["what comes out of the same weights"]
    if apart:
        raise ValueError(
            f"the adversary's network is not the one of the view's client: {apart[0]} differs; "
            "make the adversary from view.client, such as "
            "gradleak.inverting_gradients(view.client)"
        )


@alone
def check_mode(model: nn.Module) -> int:
    """How many modules are in train mode; ValueError if one of them is random or mixes examples."""
    training = [module for module in model.modules() if module.training]
    for module in training:
        if isinstance(module, nn.modules.dropout._DropoutNd | nn.modules.batchnorm._BatchNorm):
            name = next(k for k, m in model.named_modules() if m is module)
            raise ValueError(
                f"'{name}' ({type(module).__name__}) is in train mode, where a gradient "
                "depends on more than x and y; call model.eval() first"
            )
    return len(training)


@contextmanager
def left_as_found(model: nn.Module) -> Iterator[None]:
    """What a forward keeps on its modules (a count, a feature, a pruned weight) is gone after."""
    # cuDNN's recurrent layers know no derivative in eval mode, and no second one.
    recurrent = any(isinstance(module, nn.RNNBase) for module in model.modules())
    with ALONE:
        found = [(module, dict(vars(module))) for module in model.modules()]
        cudnn = torch.backends.cudnn.enabled
        torch.backends.cudnn.enabled = cudnn and not recurrent
        try:
            yield
        finally:
            torch.backends.cudnn.enabled = cudnn
            for module, attributes in found:
                vars(module).clear()
                vars(module).update(attributes)


@alone
def call(model: nn.Module, tensors: Mapping[str, Tensor], x: Tensor) -> object:
    """The model at x with other tensors, by name, for its parameters and buffers.

    Each stands in every place of its parameter. `functional_call` finds tied ones by itself, but of
    a module that is there under two names it puts its own tensors back in the end.
    """
    own = {id(t): k for k, t in (*model.named_parameters(), *model.named_buffers())}
    swaps = {
        f"{path}.{kind}".lstrip("."): tensors[own[id(t)]]
        for path, module in model.named_modules()
        for kind, t in (*module._parameters.items(), *module._buffers.items())
        if t is not None and own[id(t)] in tensors
    }
    with left_as_found(model):
        return functional_call(model, swaps, (x,), tie_weights=False)


def random_states(device: torch.device) -> list[object]:
    """Where the generators stand that a forward may draw from."""
    kind, *state = np.random.get_state()
    states = [kind, *(part.tolist() if isinstance(part, np.ndarray) else part for part in state)]
    states += [random.getstate(), torch.get_rng_state().tolist()]
    return [*states, torch.cuda.get_rng_state(device).tolist()] if device.type == "cuda" else states


def _inside(module: nn.Module) -> str | None:
    """What to attack in the place of a wrapper, None for other modules."""
    if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
        return "the network inside, which is its .module"
    if isinstance(module, torch.jit.ScriptModule):
        return "the module that was scripted or traced"
    if "_orig_mod" in module._modules:
        return "the network that was compiled, which is its ._orig_mod"
    if module._compiled_call_impl is not None:
        return "a network on which .compile() was not called"
    return None


def _state(model: nn.Module) -> dict[str, Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def _equal(a: Tensor, b: Tensor) -> bool:
    alike = (a.device, a.dtype, a.requires_grad) == (b.device, b.dtype, b.requires_grad)
    return alike and torch.equal(a, b)


def _close(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, rtol=1e-3, atol=1e-6, equal_nan=True)


def _tensors(output: object) -> list[Tensor]:
    """Those of a network's output, which may hold them in dicts, tuples or dataclasses."""
    if isinstance(output, Tensor):
        return [output]
    if is_dataclass(output):
        output = vars(output)
    if isinstance(output, Mapping):
        output = list(output.values())
    parts = output if isinstance(output, list | tuple) else ()
    return [v for part in parts for v in _tensors(part)]
