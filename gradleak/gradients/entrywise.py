"""Sums over the entries of gradients, for beliefs that judge each entry by itself.

A few attacks are done at a time, value and slope in one go, so that only tensors which fit a
cache are made and nothing of the gradient's size is kept for later.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from gradleak.device import blocks, pieces

Term = Callable[[Tensor, Tensor, slice], tuple[Tensor, Tensor]]
"""term(apart, g, rows): the sum over each attack's entries (n,), and its derivative in `apart`.

apart = g - h (n, ...), where h are the gradients of the attacks `rows`; it may be overwritten.
g (n or 1, ...) is what was released.
"""


def absolute(apart: Tensor, _: Tensor, __: slice) -> tuple[Tensor, Tensor]:
    """The sum of |g - h|, and the sign."""
    return apart.abs().reshape(len(apart), -1).sum(1), apart.sign_()


def square(apart: Tensor, _: Tensor, __: slice) -> tuple[Tensor, Tensor]:
    """The sum of (g - h)^2, and its slope."""
    return apart.square().reshape(len(apart), -1).sum(1), apart.mul_(2)


def of_tensor(term: Term, h: Tensor, g: Tensor) -> Tensor:
    """The sum over each attack's entries, (N,); h (N, ...), g (M, ...), each row for N / M."""
    return _OfTensor.apply(h, g, term)


def of_factors(term: Term, delta: Tensor, a: Tensor, mask: Tensor | None, g: Tensor) -> Tensor:
    """The same for h = mask * sum_k delta_k outer a_k; g (M, O, I), mask (O, I) or (M, O, I)."""
    return _OfFactors.apply(delta, a, mask, g, term)


def product(delta: Tensor, a: Tensor) -> Tensor:
    """sum_k delta_k outer a_k, (N, O, I); delta (N, K, O), a (N, K, I)."""
    # With one example a broadcast product is several times faster than a matrix product.
    return delta.mT * a if a.shape[1] == 1 else torch.bmm(delta.mT, a)


def _apart(g: Tensor, delta: Tensor, a: Tensor, mask: Tensor | None, out: Tensor) -> Tensor:
    """g - mask * sum_k delta_k outer a_k, with as few passes over the entries as there are."""
    if mask is not None:
        return torch.addcmul(g, product(delta, a), mask, value=-1, out=out)
    if a.shape[1] == 1:
        return torch.addcmul(g, delta.mT, a, value=-1, out=out)
    return torch.baddbmm(g.expand_as(out), delta.mT, a, alpha=-1, out=out)


def part_of(mask: Tensor | None, some: slice, rows: slice, attacks: int) -> Tensor | None:
    """The rows of a mask, (O, I) or (M, O, I), that some of N attacks meet there."""
    if mask is None or mask.ndim == 2:
        return mask if mask is None else mask[rows]
    return shared(mask, some, attacks)[:, rows]


def shared(values: Tensor, some: slice, attacks: int) -> Tensor:
    """The rows of `values` (M, ...) that belong to some of N attacks, each shared by N / M."""
    each = attacks // len(values)
    return values[some] if each == 1 else values[torch.arange(some.start, some.stop) // each]


class _OfTensor(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, h: Tensor, g: Tensor, term: Term) -> Tensor:
        total, kept = h.new_empty(len(h)), ctx.needs_input_grad[0]
        slopes = torch.empty_like(h) if kept else None
        for some in blocks(len(h), 2 * g[0].numel(), g.device):
            released = shared(g, some, len(h))
            total[some], slope = term(released - h[some], released, some)
            if kept:
                slopes[some] = slope
        ctx.save_for_backward(slopes)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
        (slope,) = ctx.saved_tensors
        return -upstream.reshape(-1, *[1] * (slope.ndim - 1)) * slope, None, None


class _OfFactors(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, delta: Tensor, a: Tensor, mask: Tensor | None, g: Tensor, term: Term
    ) -> Tensor:
        total, of_delta, of_a = a.new_zeros(len(a)), torch.empty_like(delta), torch.zeros_like(a)
        every = list(pieces(len(a), g.shape[1], 2 * g.shape[2], g.device))
        some, rows = every[0]
        work = g.new_empty(some.stop, rows.stop, g.shape[2])  # stays in the cache
        for some, rows in every:
            released = shared(g, some, len(a))[:, rows]
            out = work[: some.stop - some.start, : rows.stop - rows.start]
            own = part_of(mask, some, rows, len(a))
            own_delta = delta[some, :, rows]
            apart = _apart(released, own_delta, a[some], own, out)
            value, slope = term(apart, released, some)
            total[some] += value
            slope = slope if own is None else slope.mul_(own)
            of_delta[some, :, rows] = torch.bmm(a[some], slope.mT)
            of_a[some].baddbmm_(own_delta, slope)
        ctx.save_for_backward(of_delta, of_a)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        of_delta, of_a = (-upstream[:, None, None] * part for part in ctx.saved_tensors)
        return of_delta, of_a, None, None, None
