"""What was written down as PyTorch dispatched it does the same again, for other numbers."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from gradleak.device import LiveMemory
from gradleak.gradients import plain
from gradleak.gradients.recording import NotReplayableError, Record


def recorded(run, *inputs):
    record = Record(inputs)
    with record:
        found = run(*inputs)
    return record.plan(found), found


STEPS = {
    "add": lambda a, b: a + b,
    "in place": lambda a, b: a.clone().mul_(b).add_(1),
    "view": lambda a, b: (a.t() * 2).t() + b[:1],
    "write into a row": lambda a, b: torch.zeros_like(a).index_copy_(0, torch.tensor([1]), b[:1]),
    "gather up": lambda a, b: a.new_zeros(4).add_(a.sum(0)).expand(3, 4) * b,
    "out": lambda a, b: a + torch.mul(a.detach(), b, out=torch.empty_like(b)),
    "split": lambda a, b: torch.cat(a.split([1, 2])[::-1]) - b,
    "constants": lambda a, b: a * torch.arange(4).cos() + b.new_ones(4),
    "layer": lambda a, b: F.layer_norm(a, (4,)) + F.softmax(b, 1),
    "max": lambda a, b: torch.where(a > b, a, b).max(1, keepdim=True).values + a,
}


@settings(max_examples=40)
@given(st.lists(st.sampled_from(sorted(STEPS)), min_size=1, max_size=6))
def test_any_computation_is_replayed_to_the_bit(names):
    def run(a, b):
        a = a.detach().requires_grad_()
        with torch.enable_grad():
            z = a
            for name in names:
                z = STEPS[name](z, b)
            return z.detach(), plain.slope(z.square().sum(), a)

    plan, _ = recorded(run, torch.rand(3, 4), torch.rand(3, 4))
    for k in range(3):
        some = [(torch.rand(3, 4) + k).sin(), torch.rand(3, 4) - k]
        for found, expected in zip(plan(*some), run(*some), strict=True):
            assert found.equal(expected)


KEPT = torch.zeros(3)
REFUSED = {
    "item": (lambda x: (x * x.sum().item(),), "_local_scalar_dense.default reads a value into"),
    "numbers": (lambda x: (x + torch.rand(3),), "draws numbers"),
    "outside": (lambda x: (KEPT.add_(x) * 0 + x,), "writes into a tensor of outside"),
    "a constant": (lambda x: (KEPT.add_(1) * 0 + x,), "writes into a tensor of outside"),
    "not made": (lambda x: (KEPT,), "is not what an operation gave"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_replayed_says_why(name):
    run, why = REFUSED[name]
    with pytest.raises(NotReplayableError, match=why):
        recorded(run, torch.rand(3))


def test_what_does_not_depend_on_the_inputs_is_done_once():
    done = []

    class Noted(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            done.append(x)
            return x.cos()

    weight = torch.rand(3)
    plan, _ = recorded(lambda x: (Noted.apply(weight) + x,), torch.rand(3))
    x = torch.rand(3)
    assert plan(x)[0].equal(weight.cos() + x)
    weight.zero_()  # its cosine was taken once
    assert not plan(x)[0].equal(1 + x)
    assert len(done) == 1


def test_tensors_are_let_go_after_their_last_use():
    def run(x):
        for _ in range(20):
            x = x.cos()
        return (x,)

    plan, _ = recorded(run, torch.rand(1000))
    with LiveMemory() as memory:
        plan(torch.rand(1000))
    assert memory.peak <= 3 * 4000


def test_no_more_is_held_than_lies_outside():
    g = torch.rand(1, 1000)

    def run(x):
        rows = [(g[torch.zeros(1).long()] - x[k : k + 1]).square().sum() for k in range(50)]
        return (torch.stack(rows),)

    with LiveMemory() as memory:
        plan, _ = recorded(run, torch.rand(50, 1000))
        held = memory.live
        x = torch.rand(50, 1000)
        assert plan(x)[0].equal(run(x)[0])
    assert held <= 4000 + 50 * 16 + 100


def test_what_is_written_after_it_was_made_is_made_again():
    def run(x):
        large = torch.ones(1000)
        large[1:3].add_(1)
        return (x + large[:4],)

    plan, found = recorded(run, torch.zeros(4))
    assert found[0].tolist() == [1, 2, 2, 1]
    assert plan(torch.ones(4))[0].tolist() == [2, 3, 3, 2]
