"""What a transformed image says about its transformation, and about the image behind it.

The gradient of T(x) depends on x and T through u = T(x) alone, so p(T, x | g) is p(T, x | u) once
an attack has found u. ATS draws T from a finite set. Where images are a Gaussian of low rank and T
is affine, both p(T | u) and E[x | T, u] are closed forms, and marginalising over T is a sum.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gradleak.defenses import ATS, Transformation
from gradleak.priors import LowRankGaussian

STEP = 1e-3  # T is affine except where it clips, so around mid-grey any small step gives its slope
NOT_AFFINE = ("posterize", "solarize", "autocontrast", "equalize")


@dataclass(frozen=True, eq=False)
class Undone:
    """What N images u say: the K transformations, the chance of each (N, K), and x.

    picked: E[x | T, u] at the most probable T, (N, C, H, W). averaged: the mean over T, E[x | u].
    Both up to a mirror image, as the flip cannot be told.
    """

    transformations: list[Transformation]
    chances: Tensor
    picked: Tensor
    averaged: Tensor


def undo(u: Tensor, ats: ATS, images: LowRankGaussian, noise: float) -> Undone:
    """Undo the transformation of N images u (N, C, H, W) that an attack found.

    noise: the standard deviation of u around T(x), in pixels. What of an image is in no direction
    of the Gaussian is treated as if T moved and scaled pixels one by one. Raises ValueError for
    policies with operations that are not affine in x.
    """
    transformations, chances = ats.every()
    used = {name for t in transformations for name, _ in t.operations}
    if used & set(NOT_AFFINE):
        raise ValueError(
            f"{', '.join(sorted(used & set(NOT_AFFINE)))} cannot be undone in closed form: they "
            f"are not affine in x; the operations that cannot are {', '.join(NOT_AFFINE)}"
        )
    if not noise > 0:
        raise ValueError(f"noise is the deviation of u around T(x) and must be positive: {noise}")
    u = u.double()
    log_joint = torch.stack([_Affine(t, images, noise).log_prob(u) for t in transformations], 1)
    posterior = (log_joint + chances.log()).softmax(1)
    best, averaged, picked = posterior.argmax(1), torch.zeros_like(u), torch.zeros_like(u)
    summed = torch.zeros(len(u), 1, 1, 1).to(u)
    for k, t in enumerate(transformations):
        (who,) = ((posterior[:, k] > 1e-4) | (best == k)).nonzero(as_tuple=True)
        if not len(who):
            continue
        x = _Affine(t, images, noise).mean(u[who])
        chance = posterior[who, k].view(-1, 1, 1, 1)
        averaged[who] += chance * x
        summed[who] += chance
        mine = best[who] == k
        picked[who[mine]] = x[mine]
    return Undone(transformations, posterior, picked.float(), (averaged / summed).float())


class _Affine:
    """u = T(x) + noise as a Gaussian of u: offset + directions z + independent rest."""

    def __init__(self, t: Transformation, images: LowRankGaussian, noise: float) -> None:
        self.t, self.images = t, images
        grey, ones = torch.full_like(images.mean, 0.5), torch.ones_like(images.mean)
        along = torch.stack([images.mean - grey, ones, *images.directions])
        moved = t(torch.cat([grey.unsqueeze(0), grey + STEP * along]))
        of_mean, gain, *slopes = (moved[1:] - moved[0]).flatten(1) / STEP
        self.offset = moved[0] + of_mean.view_as(grey)
        self.directions = torch.stack(slopes)
        self.rest = gain.square() * images.variance + noise**2
        weighted = self.directions / self.rest
        identity = torch.eye(len(weighted)).double()
        self.weighted, self.factor = (
            weighted,
            torch.linalg.cholesky(identity + weighted @ self.directions.T),
        )

    def log_prob(self, u: Tensor) -> Tensor:
        """log p(u | T) + const, (N,)."""
        error = (u - self.offset).flatten(1)
        told = torch.linalg.solve_triangular(self.factor, self.weighted @ error.T, upper=False)
        misfit = (error.square() / self.rest).sum(1) - told.square().sum(0)
        log_det = self.rest.log().sum() + 2 * self.factor.diagonal().log().sum()
        return -0.5 * (misfit + log_det)

    def mean(self, u: Tensor) -> Tensor:
        """E[x | T, u], (N, C, H, W)."""
        error = (u - self.offset).flatten(1)
        z = torch.cholesky_solve(self.weighted @ error.T, self.factor).T
        left = (error - z @ self.directions) / self.rest
        x = self.images.mean + torch.einsum("nk,kchw->nchw", z, self.images.directions)
        return x + self.images.variance * self._transposed(left.view_as(u))

    @torch.enable_grad()
    def _transposed(self, v: Tensor) -> Tensor:
        """The transpose of T's linear part, applied to v."""
        x = torch.full_like(v, 0.5).requires_grad_()
        return torch.autograd.grad(self.t(x), x, v)[0]
