"""Copies of a network that attackers compute with, made once for as long as it stays as it is."""

from collections.abc import Callable, Hashable
from weakref import WeakKeyDictionary

from torch import nn

from gradleak.gradients.turns import alone

PLAIN = {type(None), bool, int, float, str}
Copies = dict[Hashable, nn.Module | None]

_HELD: WeakKeyDictionary[nn.Module, tuple[object, Copies]] = WeakKeyDictionary()


@alone
def kept(model: nn.Module, kind: Hashable, make: Callable[[], nn.Module | None]) -> nn.Module:
    """make(), or the model itself where it gives None: called once for each kind of copy.

    Copies are forgotten when the model's weights, buffers or forward change.
    """
    weights = tuple((v.data_ptr(), v._version) for v in (*model.parameters(), *model.buffers()))
    now = weights, fingerprint(model)
    if model not in _HELD or _HELD[model][0] != now:
        _HELD[model] = now, {}
    copies = _HELD[model][1]
    if kind not in copies:
        copies[kind] = make()
    copy = copies[kind]
    return model if copy is None else copy


def fingerprint(model: nn.Module) -> tuple[object, ...]:
    """What a model's forward may depend on besides its numbers: another one after a change of it.

    Its modules with their attributes, parameters, hooks and forwards. What changes inside of an
    attribute, such as a list, is not seen.
    """
    told: list[object] = []
    for module in model.modules():
        kind = type(module)
        told += kind, kind.forward
        for value in vars(module).values():
            if type(value) in PLAIN:
                told.append(value)
            elif not isinstance(value, dict):
                told.append(id(value))
            elif value:  # parameters, buffers, modules or hooks
                for name, part in value.items():
                    told += name, id(part), getattr(part, "requires_grad", None)
    return tuple(told)
