"""A linear layer's gradient for many attacks, kept as the factors that make it up."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

AT_ONCE = 2**20  # entries of a gradient that are made at a time to be compared entry by entry


@dataclass(frozen=True)
class Outer:
    """sum_k delta[n, k] outer a[n, k] for each attack n, times a 0/1 mask (O, I) if there is one.

    delta (N, K, O) is the loss's derivative with respect to the layer's output, a (N, K, I) the
    layer's input; K counts the examples and places that share the weight. What is quadratic in
    the gradient is computed from the factors, so that no tensor (N, O, I) is ever made.
    """

    delta: Tensor
    a: Tensor
    mask: Tensor | None = None

    @property
    def shape(self) -> torch.Size:
        """(N, O, I), the shape of `dense()`."""
        return torch.Size((len(self.a), self.delta.shape[2], self.a.shape[2]))

    def dense(self) -> Tensor:
        """The gradient itself, (N, O, I)."""
        product = _product(self.delta, self.a)
        return product if self.mask is None else product * self.mask

    def masked(self, mask: Tensor) -> Outer:
        """Times a 0/1 mask (O, I)."""
        return replace(self, mask=mask if self.mask is None else self.mask * mask)

    def scaled(self, weight: float) -> Outer:
        """Times a number."""
        return replace(self, delta=weight * self.delta)

    def inner(self, g: Tensor) -> Tensor:
        """<self, g> of each attack, (N,); g (M, O, I) is already masked.

        Where M < N, each of its rows is shared by N / M consecutive attacks.
        """
        a = self.a.reshape(len(g), -1, self.a.shape[2])
        moved = torch.bmm(a, g.mT).reshape(self.delta.shape)
        return (moved * self.delta).flatten(1).sum(1)

    def abs_distance(self, g: Tensor) -> Tensor:
        """Sum of |self - g| for each attack, (N,); g (M, O, I) as in `inner`, but not masked."""
        return _AbsDistance.apply(self.delta, self.a, g, self.mask)

    def sq_norm(self) -> Tensor:
        """Squared norm of each attack's gradient, (N,)."""
        if self.mask is None:
            gram = torch.bmm(self.delta, self.delta.mT) * torch.bmm(self.a, self.a.mT)
            return gram.flatten(1).sum(1)
        if self.a.shape[1] == 1:
            kept = torch.nn.functional.linear(self.a.square(), self.mask)
            return (kept * self.delta.square()).flatten(1).sum(1)
        return self.dense().square().flatten(1).sum(1)


def _product(delta: Tensor, a: Tensor) -> Tensor:
    # With one example a broadcast product is several times faster than a matrix product.
    return delta.mT * a if a.shape[1] == 1 else torch.bmm(delta.mT, a)


class _AbsDistance(torch.autograd.Function):
    """The entrywise distance a few attacks at a time, value and derivatives in one go.

    Only tensors that fit a cache are made, and nothing of the gradient's size is kept for later.
    """

    @staticmethod
    def forward(ctx: Any, delta: Tensor, a: Tensor, g: Tensor, mask: Tensor | None) -> Tensor:
        value, of_delta, of_a = a.new_empty(len(a)), torch.empty_like(delta), torch.empty_like(a)
        each = len(a) // len(g)
        for rows in torch.arange(len(a)).split(max(1, AT_ONCE // g[0].numel())):
            some = slice(int(rows[0]), int(rows[-1]) + 1)
            shared = g[some] if each == 1 else g[rows // each]
            apart = _product(delta[some], a[some])
            apart = apart.sub_(shared) if mask is None else apart.mul_(mask).sub_(shared)
            sign = apart.sign()
            value[some] = apart.abs_().flatten(1).sum(1)
            sign = sign if mask is None else sign.mul_(mask)
            of_delta[some] = torch.bmm(a[some], sign.mT)
            of_a[some] = torch.bmm(delta[some], sign)
        ctx.save_for_backward(of_delta, of_a)
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, Tensor, None, None]:
        of_delta, of_a = ctx.saved_tensors
        slope = slope[:, None, None]
        return slope * of_delta, slope * of_a, None, None
