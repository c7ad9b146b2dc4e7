"""A computation recorded once and replayed: its operations alone, without what arranged them.

A step of a climb is some hundreds of small operations, and for few attacks most of its time goes
to autograd, hooks and modules, which arrange the same ones each time. `Replayed` writes them down
as PyTorch dispatches them, leaves out those that do not depend on the inputs, and calls the rest.
"""

import math
import os
import time
import warnings
from functools import cache

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from gradleak.device import out_of_memory
from gradleak.gradients import compute, plain
from gradleak.gradients.recording import NotReplayableError, Record, Run

FEW = 10  # calls that nothing is measured for

READ = {Tensor.numpy, Tensor.tolist, Tensor.__array__}
"""What hands numbers over to Python without that anything is dispatched."""


class Replayed:
    """run(*inputs), recorded at its first call, compared at the second, replayed from then on.

    Where that is impossible, `refused` says why and each call is run as it stands: a value was read
    into Python, numbers were drawn, a tensor of outside was written into, or the replay failed
    or differs. So it is for inputs of another shape, layout, precision or device than the first.
    """

    def __init__(self, run: Run) -> None:
        self.run, self.refused = run, ""
        self._plan: Run | None = None
        self._like: list[object] = []
        self._compared = False

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """What run gives."""
        if self.refused or (self._plan is not None and _likeness(inputs) != self._like):
            return self.run(*inputs)
        if self._plan is None:
            return self._recorded(inputs)
        if self._compared:
            return self._again(inputs)
        self._compared, expected = True, self.run(*inputs)
        try:
            if all(map(_equal, self._again(inputs), expected)):
                return expected
            self.refused = "what was replayed differs from what was run"
        except Exception as error:  # an operation that runs only where autograd looks on
            if out_of_memory(error):
                raise
            self.refused = str(error)
        warnings.warn(f"the climb goes on without its record: {self.refused}", stacklevel=2)
        return expected

    @torch.enable_grad()  # nothing here requires it, and some kernels keep what autograd would need
    def _again(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return self._plan(*(t.detach() for t in inputs))

    def _recorded(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        self._like = _likeness(inputs)
        record, reads = Record(inputs), _Reads()
        with record, reads:
            found = self.run(*inputs)
        try:
            if reads.seen:
                raise NotReplayableError(f"{reads.seen} reads a value into Python")
            self._plan = record.plan(found)
        except NotReplayableError as why:
            self.refused = str(why)
        return found


def repays(calls: int) -> bool:
    """Whether so many calls take less time recorded and replayed than run as they stand.

    The environment variable GRADLEAK_REPLAY=0 says no to all.
    """
    few = calls < FEW or os.environ.get("GRADLEAK_REPLAY") == "0"
    return not few and calls >= _calls_that_repay()


@cache
def _calls_that_repay() -> float:
    """How many, measured on a small network: what a call saves grows as what its record costs."""
    with torch.random.fork_rng(devices=[]):
        layers = [nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 2)]
    model = nn.Sequential(*layers)
    x, y = torch.full((1, 1, 8), 0.5), torch.zeros(1, 1).long()

    @torch.enable_grad()
    def run(x: Tensor) -> tuple[Tensor, ...]:
        x = x.detach().requires_grad_()
        return (plain.slope(compute.gradient(model, x, y).sq_norm().sum(), x),)

    def seconds(of: Run) -> float:
        begin = time.thread_time()
        of(x)
        return time.thread_time() - begin

    replayed = Replayed(run)
    run(x), replayed(x), replayed(x)
    recorded, whole, alone = (
        min(seconds(make()) for _ in range(5))
        for make in (lambda: Replayed(run), lambda: run, lambda: replayed)
    )
    return (recorded - whole) / (whole - alone) if whole > alone else math.inf


class _Reads(TorchFunctionMode):
    """Notices tensors that are read into Python or NumPy."""

    seen = ""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function in READ:
            self.seen = function.__name__
        return function(*args, **(kwargs or {}))


def _likeness(inputs: tuple[Tensor, ...]) -> list[object]:
    return [(t.shape, t.stride(), t.dtype, t.device) for t in inputs]


def _equal(a: Tensor, b: Tensor) -> bool:
    return torch.equal(a.nan_to_num(), b.nan_to_num()) and torch.equal(a.isnan(), b.isnan())
