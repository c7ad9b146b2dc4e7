"""A linear layer's gradient for many attacks, kept as the factors that make it up."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gradleak.gradients import entrywise, products


@dataclass(frozen=True)
class Outer:
    """sum_k delta[n, k] outer a[n, k] for each attack n, times a 0/1 mask if there is one.

    A mask is (O, I), or (M, O, I): each of M is then shared by N / M consecutive attacks.

    delta (N, K, O) is the loss's derivative with respect to the layer's output, a (N, K, I) the
    layer's input; K counts the examples and places that share the weight. What is quadratic in
    the gradient is computed from the factors, so that no tensor (N, O, I) is ever made.

    exact: compute it entry by entry, some at a time, and without derivatives. What is the
    difference of two sums over factors is rounding alone where two gradients nearly agree.
    """

    delta: Tensor
    a: Tensor
    mask: Tensor | None = None
    exact: bool = False

    @property
    def shape(self) -> torch.Size:
        """(N, O, I), the shape of `dense()`."""
        return torch.Size((len(self.a), self.delta.shape[2], self.a.shape[2]))

    def dense(self) -> Tensor:
        """The gradient itself, (N, O, I)."""
        product = entrywise.product(self.delta, self.a)
        return product if self.mask is None else times(product, self.mask)

    def exactly(self) -> Outer:
        """The same by its entries, without derivatives."""
        return replace(self, delta=self.delta.detach(), a=self.a.detach(), exact=True)

    def float(self) -> Outer:
        """The same in float32."""
        return replace(self, delta=self.delta.float(), a=self.a.float())

    def masked(self, mask: Tensor) -> Outer:
        """Times a 0/1 mask (O, I), (M, O, I), or (M, 1, I) to hide whole columns."""
        if mask.ndim == 3 and mask.shape[1] == 1:  # a column is hidden with its input
            return replace(self, a=times(self.a, mask))
        return replace(self, mask=mask if self.mask is None else self.mask * mask)

    def __rmul__(self, weight: float) -> Outer:
        return replace(self, delta=weight * self.delta)

    def moments(self, g: Tensor) -> products.Moments:
        """<self, g> and |self|^2 of each attack, (N,) each; g (M, O, I) is already masked.

        Where M < N, each of its rows is shared by N / M consecutive attacks.
        """
        if self.exact:
            return products.of_entries(self.delta, self.a, self.mask, g)
        inner, sq_norm = products.of_factors(self.delta, self.a, g)
        return inner, sq_norm if self.mask is None else self.sq_norm()

    def entrywise(self, term: entrywise.Term, g: Tensor) -> Tensor:
        """Sum of a term over each attack's entries, (N,); g (M, O, I), not masked."""
        return entrywise.of_factors(term, self.delta, self.a, self.mask, g)

    def sq_norm(self) -> Tensor:
        """Squared norm of each attack's gradient, (N,)."""
        if self.exact:
            return products.of_entries(self.delta, self.a, self.mask, None)[1]
        if self.mask is None:
            gram = torch.bmm(self.delta, self.delta.mT) * torch.bmm(self.a, self.a.mT)
            return gram.flatten(1).sum(1)
        if self.a.shape[1] == 1:
            mask = self.mask.reshape(-1, *self.mask.shape[-2:])
            kept = torch.bmm(self.a.square().reshape(len(mask), -1, mask.shape[2]), mask.mT)
            return (kept.reshape(self.delta.shape) * self.delta.square()).flatten(1).sum(1)
        return self.dense().square().flatten(1).sum(1)


def times(v: Tensor, mask: Tensor) -> Tensor:
    """v (N, ...) times a mask (...), or times M masks (M, ...), each shared by N / M rows."""
    if mask.ndim < v.ndim:
        return v * mask
    return (v.unflatten(0, (len(mask), -1)) * mask.unsqueeze(1)).flatten(0, 1)
