"""A computation recorded once and replayed: its operations alone, without what arranged them.

A step of a climb is some hundreds of small operations, and for few attacks most of its time goes
to autograd, hooks and modules, which arrange the same ones each time. `Replayed` writes them down
as PyTorch dispatches them, leaves out those that do not depend on the inputs, and calls the rest.
"""

import math
import os
import time
import warnings
from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from gradleak.device import out_of_memory
from gradleak.gradients import compute, plain
from gradleak.gradients.recording import NotReplayableError, Record, Run

FEW = 10  # calls that nothing is measured for
AGAIN = {10**k for k in range(1, 9)}  # calls at which a replay is compared once more

READ = {
    Tensor.numpy, Tensor.tolist, Tensor.__array__, Tensor.__dlpack__,
    Tensor.tensor_split, torch.tensor_split,
}  # fmt: skip
"""What hands numbers over, or reads them itself, without that anything is dispatched."""


class ReplayError(Exception):
    """A replay went another way than its computation does, some calls after it was recorded."""


class Replayed:
    """run(*inputs), recorded at its first call, compared at the second, replayed from then on.

    Where that is impossible, `refused` says why and each call is run as it stands: a value was read
    into Python, numbers were drawn, a tensor of outside was written into, what is computed has as
    many numbers as another says, or the replay failed or differs. So it is for inputs of another
    shape, layout, precision or device than the first.

    What the record cannot show, such as Python's own numbers, may change later. So it is compared
    again each time that there were ten times as many calls, and whenever `check` asks for it:
    before a result is relied on. Raises ReplayError where that fails.
    """

    def __init__(self, run: Run) -> None:
        self.run, self.refused, self.calls = run, "", 0
        self._plan: Run | None = None
        self._like: list[object] = []

    def __call__(self, *inputs: Tensor, check: bool = False) -> tuple[Tensor, ...]:
        """What run gives."""
        if self.refused or (self._plan is not None and _likeness(inputs) != self._like):
            return self.run(*inputs)
        self.calls += 1
        if self._plan is None:
            return self._recorded(inputs)
        first = self.calls == 2
        if not (check or first or self.calls in AGAIN):
            return self._followed(inputs)
        expected = self.run(*inputs)
        try:
            if not all(map(_equal, self._followed(inputs), expected)):
                raise ReplayError("what was replayed differs from what was run")
        except ReplayError as error:
            if not first:
                raise
            self.refused = str(error)
            warnings.warn(f"the climb goes on without its record: {error}", stacklevel=2)
        return expected

    def _followed(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        try:
            return self._again(inputs)
        except Exception as error:  # shapes that fit no more; what runs only under autograd's eyes
            if out_of_memory(error):
                raise
            raise ReplayError(str(error)) from error

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
                raise NotReplayableError(reads.seen)
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
    """Notices tensors that are read into Python or NumPy, and derivatives that may do so."""

    seen = ""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function in READ:
            self.seen = f"{function.__name__} reads a value into Python"
        if function is torch.autograd.grad and (name := _own_function(args[0])):
            self.seen = f"nobody knows what the derivative of {name} reads"  # unseen from here
        return function(*args, **(kwargs or {}))


def _own_function(outputs: Tensor | Sequence[Tensor]) -> str:
    """A torch.autograd.Function of one's own that the outputs were made with; "" without one."""
    left = [t.grad_fn for t in ([outputs] if isinstance(outputs, Tensor) else outputs)]
    met = set(left)
    while left:
        node = left.pop()
        function = getattr(node, "_forward_cls", None)
        if function and not function.__module__.startswith(("gradleak.", "torch.")):
            return function.__qualname__
        new = {after for after, _ in getattr(node, "next_functions", ())} - met
        met |= new
        left += new
    return ""


def _likeness(inputs: tuple[Tensor, ...]) -> list[object]:
    return [(t.shape, t.stride(), t.dtype, t.device) for t in inputs]


def _equal(a: Tensor, b: Tensor) -> bool:
    return torch.equal(a.nan_to_num(), b.nan_to_num()) and torch.equal(a.isnan(), b.isnan())
