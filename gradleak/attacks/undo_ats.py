"""What a transformed image says about its transformation, and about the image behind it.

The gradient of T(x) depends on x and T through u = T(x) alone, so p(T, x | g) is p(T, x | u) once
an attack has found u. ATS draws T from a finite set. Where images are a Gaussian of low rank and T
is affine, both p(T | u) and E[x | T, u] are closed forms, and marginalising over T is a sum.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import LowRankMultivariateNormal

from gradleak.attacks.attack import Attack, Reconstruction, answered, asked, check_view
from gradleak.client import ServerView
from gradleak.defenses import ATS, Transformation
from gradleak.device import ordinary
from gradleak.priors import LowRankGaussian
from gradleak.scales import POSITIVE, check_call, check_kind, check_number

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


@dataclass(frozen=True)
class Averaged:
    """Answer with E[x | u], the mean over all transformations."""

    def __call__(self, undone: Undone) -> Tensor:
        """(N, C, H, W)."""
        return undone.averaged


@dataclass(frozen=True)
class Picked:
    """Answer with E[x | T, u] at the most probable transformation T."""

    def __call__(self, undone: Undone) -> Tensor:
        """(N, C, H, W)."""
        return undone.picked


@dataclass(frozen=True)
class UndoATS(Attack):
    """Find u = T(x) by another attack, and undo T.

    inner: finds u. ats: the transform believed in. images: what images are, fitted to others.
    noise: how far inner ends from T(x), the standard deviation in pixels. answer: which of the two.
    """

    inner: Attack
    ats: ATS
    images: LowRankGaussian
    noise: float
    answer: Callable[[Undone], Tensor] = Averaged()

    def __post_init__(self) -> None:
        check_kind("inner", self.inner, Attack, "any attack that finds u = T(x)")
        _check(self.ats, self.images, self.noise)
        check_call("answer", self.answer)

    @ordinary
    def attack(self, view: ServerView, seed: int = 0) -> Reconstruction:
        """The images before their transformation."""
        begin = time.perf_counter()
        check_view(view, seed)
        u = asked(self.inner, view, seed).x
        undone = undo(u.cpu(), self.ats, self.images, self.noise)
        return answered(self.answer(undone).to(u), begin)


def undo(u: Tensor, ats: ATS, images: LowRankGaussian, noise: float) -> Undone:
    """Undo the transformation of N images u (N, C, H, W) that an attack found.

    noise: the standard deviation of u around T(x), in pixels. What of an image is in no direction
    of the Gaussian is treated as if T moved and scaled pixels one by one. Raises ValueError for
    policies with operations that are not affine in x.
    """
    _check(ats, images, noise)
    transformations, chances = ats.every()
    used = {name for t in transformations for name, _ in t.operations}
    if wrong := used & set(NOT_AFFINE):
        raise ValueError(
            f"{', '.join(sorted(wrong))} cannot be undone in closed form: they "
            f"are not affine in x; the operations that cannot are {', '.join(NOT_AFFINE)}"
        )
    u = u.double()
    log_joint = torch.stack([_Affine(t, images, noise).log_prob(u) for t in transformations], 1)
    posterior = (log_joint + chances.log()).softmax(1)
    best, averaged, picked = posterior.argmax(1), torch.zeros_like(u), torch.zeros_like(u)
    summed = torch.zeros(len(u), 1, 1, 1).to(u)
    for k, t in enumerate(transformations):
        (who,) = ((posterior[:, k] > 1e-4) | (best == k)).nonzero(as_tuple=True)
        if len(who):
            x, mine = _Affine(t, images, noise).mean(u[who]), best[who] == k
            chance = posterior[who, k].view(-1, 1, 1, 1)
            averaged[who] += chance * x
            summed[who] += chance
            picked[who[mine]] = x[mine]
    return Undone(transformations, posterior, picked.float(), (averaged / summed).float())


def _check(ats: ATS, images: LowRankGaussian, noise: float) -> None:
    check_kind("ats", ats, ATS)
    check_kind("images", images, LowRankGaussian, "see LowRankGaussian.fit")
    check_number("noise", noise, POSITIVE, "it is the deviation of u around T(x)")


class _Affine:
    """u = T(x) + noise as a Gaussian of u, and what it tells of x."""

    def __init__(self, t: Transformation, images: LowRankGaussian, noise: float) -> None:
        self.t, self.images = t, images
        grey, ones = torch.full_like(images.mean, 0.5), torch.ones_like(images.mean)
        along = torch.stack([images.mean - grey, ones, *images.directions])
        moved = t(torch.cat([grey.unsqueeze(0), grey + STEP * along]))
        of_mean, gain, *slopes = (moved[1:] - moved[0]).flatten(1) / STEP
        self.directions = torch.stack(slopes)
        self.law = LowRankMultivariateNormal(
            moved[0].flatten() + of_mean,
            self.directions.T,
            gain.square() * images.variance + noise**2,
            validate_args=False,
        )

    def log_prob(self, u: Tensor) -> Tensor:
        """log p(u | T), (N,)."""
        return self.law.log_prob(u.flatten(1))

    @torch.enable_grad()
    def mean(self, u: Tensor) -> Tensor:
        """E[x | T, u] = E[x] + Cov(x, u) Cov(u)^-1 (u - E[u]), (N, C, H, W)."""
        u = u.detach().requires_grad_()
        weighted = -torch.autograd.grad(self.log_prob(u).sum(), u)[0]  # Cov(u)^-1 (u - E[u])
        z = weighted.flatten(1) @ self.directions.T
        x = self.images.mean + torch.einsum("nk,kchw->nchw", z, self.images.directions)
        grey = torch.full_like(u, 0.5).requires_grad_()
        (transposed,) = torch.autograd.grad(self.t(grey), grey, weighted)  # of T's linear part
        return x + self.images.variance * transposed
