import torch

from gradleak.device import Dispatched


def test_a_mode_sees_each_operation_and_is_not_wrapped_for_the_compiler():
    def seen(self, function, types, args=(), kwargs=None):
        self.names.append(function.__name__)
        return function(*args, **(kwargs or {}))

    mode = type("Seeing", (Dispatched,), {"__torch_dispatch__": seen})()
    mode.names, x = [], torch.ones(3)
    with mode:
        found = (x + 1).sum()
    assert found == 6
    assert mode.names == ["add.Tensor", "sum.default"]
    # PyTorch wraps other modes in a function that imports torch._dynamo when it is first called.
    assert type(mode).__torch_dispatch__ is seen
