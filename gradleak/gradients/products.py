"""What is quadratic in a gradient h, for many attacks at once: <h, g> and |h|^2.

Both, and the derivative of whatever is made of them, take as few passes over the entries as there
are. Each row of g (M, ...) is shared by N / M consecutive attacks. From factors |h|^2 is made by
Gram matrices, without the gradient itself: the ghost norm (Goodfellow 2015; Li et al. 2022).
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.linalg import vector_norm

from gradleak.device import CACHED, blocks, pieces
from gradleak.gradients import entrywise

Moments = tuple[Tensor, Tensor]
"""<h, g> and |h|^2 of each attack, (N,) each."""


def of_tensors(h: Sequence[Tensor], g: Sequence[Tensor]) -> Moments:
    """The moments of several parameters together: h[i] (N, ...), g[i] (M, ...)."""
    return _OfTensors.apply(*h, *g)


def of_factors(delta: Tensor, a: Tensor, g: Tensor) -> Moments:
    """The same for h = sum_k delta_k outer a_k; delta (N, K, O), a (N, K, I), g (M, O, I)."""
    return _OfFactors.apply(delta, a, g)


def of_entries(delta: Tensor, a: Tensor, mask: Tensor | None, g: Tensor | None) -> Moments:
    """The moments of h = mask * sum_k delta_k outer a_k, entry by entry; no derivatives.

    They cost as much as h, of which a piece is made at a time. Without g, (M, O, I), <h, g> is 0.
    """
    inner, norm = a.new_zeros(2, len(a))
    for some, rows in pieces(len(a), delta.shape[2], 2 * a.shape[2], a.device):
        h = entrywise.product(delta[some, :, rows], a[some])
        own = entrywise.part_of(mask, some, rows, len(a))
        h = h if own is None else h.mul_(own)
        norm[some] += sq_norm(h)
        if g is not None:
            inner[some] += h.mul_(entrywise.shared(g, some, len(a))[:, rows]).flatten(1).sum(1)
    return inner, norm


def sq_norm(v: Tensor) -> Tensor:
    """|v|^2 of each row, (N,)."""
    # vector_norm makes no tensor of the parameter's size
    return vector_norm(v.reshape(len(v), -1), dim=1).square()


class _OfTensors(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *tensors: Tensor) -> Moments:
        ctx.save_for_backward(*tensors)
        products = (_grouped(a, b) * b.reshape(len(b), 1, -1) for a, b in _pairs(tensors))
        inner = sum(product.sum(2).flatten() for product in products)
        return inner, sum(sq_norm(a) for a, _ in _pairs(tensors))

    @staticmethod
    def backward(ctx: Any, of_inner: Tensor, of_norm: Tensor) -> tuple[Tensor | None, ...]:
        slopes = []
        for a, b in _pairs(ctx.saved_tensors):
            inner, norm = (v.view(len(b), -1, 1) for v in (of_inner, 2 * of_norm))
            slope = torch.addcmul(inner * b.reshape(len(b), 1, -1), norm, _grouped(a, b))
            slopes.append(slope.view_as(a))
        return *slopes, *[None] * len(slopes)


def _pairs(tensors: Sequence[Tensor]) -> Iterable[tuple[Tensor, Tensor]]:
    half = len(tensors) // 2
    return zip(tensors[:half], tensors[half:], strict=True)


def _grouped(a: Tensor, b: Tensor) -> Tensor:
    """The attacks a (N, ...) that share each row of b (M, ...): (M, N / M, entries)."""
    return a.reshape(len(b), -1, b.shape[1:].numel())


class _OfFactors(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, delta: Tensor, a: Tensor, g: Tensor) -> Moments:
        to_delta, to_a = _both_ways(*(v.reshape(len(g), -1, v.shape[2]) for v in (delta, a)), g)
        to_delta, to_a = to_delta.reshape(delta.shape), to_a.view(a.shape)
        grams = _gram(delta), _gram(a)
        ctx.save_for_backward(delta, a, to_delta, to_a, *grams)
        return (to_delta * delta).flatten(1).sum(1), (grams[0] * grams[1]).flatten(1).sum(1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_inner: Tensor, of_norm: Tensor) -> tuple[Tensor, Tensor, None]:
        delta, a, to_delta, to_a, gram_of_delta, gram_of_a = ctx.saved_tensors
        inner, norm = of_inner[:, None, None], 2 * of_norm[:, None, None]
        of_delta = _product(norm * gram_of_a, delta).addcmul_(inner, to_delta)
        return of_delta, _product(norm * gram_of_delta, a).addcmul_(inner, to_a), None


def _both_ways(delta: Tensor, a: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    """g a, shaped as delta, and delta g, shaped as a; delta (M, R, O), a (M, R, I)."""
    each = g.shape[1:].numel()
    if not g.is_cpu or 4 * each > CACHED["cpu"]:
        return torch.bmm(a, g.mT), torch.bmm(delta, g)
    # While a few rows of g are in the cache, they are read a second time at little cost.
    found = [
        (torch.bmm(g[some], a[some].mT), torch.bmm(delta[some], g[some]))
        for some in blocks(len(g), each, g.device)
    ]
    to_delta, to_a = (torch.cat(v) for v in zip(*found, strict=True))
    return to_delta.mT, to_a


def _gram(v: Tensor) -> Tensor:
    """The inner products of the K vectors of each attack, (N, K, K); v (N, K, size)."""
    return sq_norm(v)[:, None, None] if v.shape[1] == 1 else torch.bmm(v, v.mT)


def _product(gram: Tensor, v: Tensor) -> Tensor:
    # With one vector a broadcast product is several times faster than a matrix product.
    return gram * v if v.shape[1] == 1 else torch.bmm(gram, v)
