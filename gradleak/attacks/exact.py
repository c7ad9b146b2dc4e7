"""Exact Bayes risk on a finite prior: what the best possible adversary achieves, computed.

The prior is N examples, so the posterior is a sum of N terms and the optimal adversary an argmax.
Every adversary here answers with one of the examples, and errs if its answer is farther than delta
from the private one. Logarithms and chances are float64.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from gradleak.attacks.attack import Attack, Reconstruction, answered, check_view
from gradleak.client import Client, ServerView
from gradleak.defenses import Defense, NoDefense
from gradleak.device import ordinary
from gradleak.gradients import Gradient
from gradleak.randomness import NOISE, generator
from gradleak.scales import (
    POSITIVE,
    WEIGHT,
    check_kind,
    check_number,
    check_numbers,
    check_whole,
)


@dataclass(frozen=True, eq=False)
class FinitePrior:
    """Example n is the private one with probability p[n]; nothing else is possible.

    x (N, *shape), y (N,), p (N,) or None for equal chances. Raises ValueError if there is no
    example, if two are equal, or if p is no distribution.
    """

    x: Tensor
    y: Tensor
    p: Tensor | None = None

    def __post_init__(self) -> None:
        for name in ("x", "y"):
            check_kind(name, getattr(self, name), Tensor, "use torch.as_tensor(...)")
        shapes = tuple(self.x.shape), tuple(self.y.shape)
        if not (self.x.ndim and self.x.numel()) or shapes[1] != shapes[0][:1]:
            raise ValueError(
                f"a finite prior needs labelled examples, x (N, *shape) and y (N,), got "
                f"{shapes[0]} and {shapes[1]}"
            )
        if self.p is not None:
            check_kind("p", self.p, Tensor, "one chance for each example, torch.as_tensor(...)")
        n = len(self.x)
        if not (self.x.isfinite().all() and self.y.isfinite().all()):
            raise ValueError("some examples are not finite; leave them out")
        rows = torch.cat([self.x.flatten(1).double(), self.y.reshape(n, 1).double()], 1)
        if len(rows.unique(dim=0)) < n:
            raise ValueError("some examples are equal; keep one of each and add their chances")
        p = self.chances
        if p.shape != (n,) or not ((p >= 0).all() and abs(float(p.sum()) - 1) <= 1e-6):
            raise ValueError(
                f"p must be {n} chances that sum to one, got shape {tuple(p.shape)} with sum "
                f"{float(p.sum()):.6g}; divide by the sum"
            )

    def __len__(self) -> int:
        return len(self.x)

    def __repr__(self) -> str:
        chances = "equal" if self.p is None else "given"
        return f"FinitePrior({len(self)} examples, chances {chances})"

    @property
    def chances(self) -> Tensor:
        """p in float64, (N,)."""
        n = len(self.x)
        return torch.as_tensor(torch.full((n,), 1 / n) if self.p is None else self.p).double()

    def log_prob(self, y: Tensor | None = None) -> Tensor:
        """log p(example), (N,); for M attackers who know the labels y (M,), log p(. | y), (M, N).

        Minus infinity where an example has another label. Raises ValueError for labels that no
        example has which is possible.
        """
        log_p = self.chances.log()
        if y is None:
            return log_p
        return log_p.where(self._of_label(y), -torch.inf).log_softmax(1)

    def gradients(self, client: Client, chunk: int = 100) -> Gradient:
        """The true gradient of each example, as tensors (N, *parameter shape) on its device."""
        check_whole("chunk", chunk, 1)
        x, y = client.placed(self.x, self.y)
        pairs = zip(x.split(chunk), y.split(chunk), strict=True)
        with torch.no_grad():
            first, *rest = [client.gradient(x, y) for x, y in pairs]
        return first.map(lambda *v: torch.cat(v), *rest)

    def nearest(self, x: Tensor, y: Tensor) -> Tensor:
        """The example of label y (M,) that is nearest to each x (M, *shape), (M,)."""
        if x.shape[1:] != self.x.shape[1:] or y.shape != (len(x),):
            raise ValueError(
                f"x must be (M, {', '.join(map(str, self.x.shape[1:]))}) and y (M,), got "
                f"{tuple(x.shape)} and {tuple(y.shape)}"
            )
        apart = torch.cdist(x.flatten(1), self.x.flatten(1))
        return apart.where(self._of_label(y), torch.inf).argmin(1)

    def _of_label(self, y: Tensor) -> Tensor:
        """Which of the possible examples have each label y (M,), (M, N)."""
        same = (self.y == y[:, None].to(self.y)) & (self.chances > 0).to(self.y.device)
        if (missing := y[~same.any(1).to(y.device)]).numel():
            raise ValueError(
                f"no possible example of the prior has the label {missing[0].item():g}; add some, "
                "or leave examples without a chance out"
            )
        return same

    def near(self, delta: float) -> Tensor:
        """1 where two examples are within delta, |x_j - x_k|_2 <= delta in pixels, (N, N).

        With delta 0, or any below the closest pair, only the private example itself is right: the
        0-1 loss. Warns where that is so though delta is not 0; raises ValueError if it is negative.
        """
        check_number("delta", delta, WEIGHT, "it is a distance in pixels")
        x = self.x.flatten(1).double()
        apart = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")
        near = (apart <= delta).double().fill_diagonal_(1)
        if delta > 0 and near.sum() == len(near) > 1:
            closest = apart.fill_diagonal_(torch.inf).min()
            warnings.warn(
                f"no two examples are within {delta:g}, the closest are {closest:.3g} apart: only "
                "the private example itself is right, as with delta 0",
                stacklevel=2,
            )
        return near


def posterior(log_likelihood: Tensor, log_prior: Tensor) -> Tensor:
    """Bayes' rule: p(example | g), (..., N), from log p(g | example) + const and log p(example)."""
    if log_likelihood.shape[-1:] != log_prior.shape[-1:]:
        raise ValueError(
            f"log_likelihood {tuple(log_likelihood.shape)} and log_prior {tuple(log_prior.shape)} "
            "must have a column for each of N examples"
        )
    return (log_likelihood.double() + log_prior).softmax(-1)


def answer(belief: Tensor, near: Tensor) -> Tensor:
    """The example with the most mass within delta, (...,): optimal under a posterior (..., N).

    The argmax of the paper's section 4, over the examples. The first of equals.
    """
    if near.shape != (belief.shape[-1],) * 2:
        raise ValueError(
            f"near must be (N, N) for a belief {tuple(belief.shape)}, got {tuple(near.shape)}"
        )
    return (belief @ near).argmax(-1)


def risk(answers: Tensor, truth: Tensor, near: Tensor) -> Tensor:
    """The chance, given g, that each answer (...,) is wrong, under the true posterior (..., N).

    Its mean over g is the adversarial risk of the paper's section 3.
    """
    if answers.shape != truth.shape[:-1] or near.shape != (truth.shape[-1],) * 2:
        raise ValueError(
            f"answers (...,), truth (..., N) and near (N, N) do not fit: {tuple(answers.shape)}, "
            f"{tuple(truth.shape)} and {tuple(near.shape)}"
        )
    return 1 - (near[answers] * truth).sum(-1)


def log_likelihoods(belief: Defense, gradients: Gradient, g: Gradient) -> Tensor:
    """log p(g | example) of M released gradients under each of N examples, (M, N).

    belief: any that has a density, else it raises NotImplementedError. gradients: the examples',
    N; g: M. Nothing is approximated. The result is on the CPU.
    """
    with torch.no_grad():
        held = belief(gradients)
        each = [held.log_prob(g.rows(slice(m, m + 1))) for m in range(g.attacks)]
        return torch.stack(each).cpu()


@dataclass(frozen=True)
class ExactAnswer(Attack):
    """The optimal answer where the private example is one of a list: nobody can do better.

    client: believed in; its defense needs a density. delta: what counts as right, in pixels (L2).
    """

    client: Client
    prior: FinitePrior
    delta: float = 0.0

    def __post_init__(self) -> None:
        check_kind("client", self.client, Client)
        check_kind("prior", self.prior, FinitePrior)
        check_number("delta", self.delta, WEIGHT, "it is a distance in pixels")

    @ordinary
    def attack(self, view: ServerView, seed: int = 0) -> Reconstruction:
        """The best example, with the logarithm of its chance; hidden labels leave all possible."""
        check_view(view, seed)
        view.check_belief(self.client)
        if view.shape != self.prior.x.shape[1:]:
            raise ValueError(
                f"examples of shape {tuple(self.prior.x.shape[1:])} cannot be the x of clients "
                f"that hold {view.shape}; give the prior such examples"
            )
        begin, examples = time.perf_counter(), self.prior.gradients(self.client)
        likelihoods = log_likelihoods(self.client.defense, examples, view.g)
        held = posterior(likelihoods, self.prior.log_prob(view.y))
        who = answer(held, self.prior.near(self.delta))
        x, _ = self.client.placed(self.prior.x[who], self.prior.y[who])
        return answered(x, begin, held[torch.arange(len(who)), who].log().to(x))


@dataclass(frozen=True)
class GaussianLaw:
    """What g = f_i + scale * noise tells beliefs that compare it with h_1 ... h_N.

    Such beliefs (Gaussian ones, and the cosine) ask for the inner products <g, h_j> alone. Those
    are Gaussian, with means <f_i, h_j> and covariances scale^2 <h_j, h_k>: the Gram matrix holds
    everything, and no noise of the gradient's size is ever drawn.

    gram: <h_j, h_k>, (K * N, K * N) for K kinds of h, of which the first is f. examples: N.
    """

    gram: Tensor
    examples: int

    @classmethod
    def between(cls, released: Gradient, *others: Gradient) -> GaussianLaw:
        """Of clients that release f = `released` plus noise.

        Beliefs of kind 0 compare with f itself; those of kind 1, 2, ... with the `others`, such as
        gradients without a mask.
        """
        gram = 0.0
        for name in released:
            flat = (each[name].reshape(each.attacks, -1) for each in (released, *others))
            entries = [each.split(2**14, dim=1) for each in flat]
            for part in map(torch.cat, zip(*entries, strict=True)):
                gram = gram + (part @ part.T).double()
        if not gram.isfinite().all():
            raise ValueError(
                "some gradients are not finite, or their squares are not: check the model's "
                "weights and the loss, and leave such examples out"
            )
        return cls(gram.cpu(), released.attacks)

    @cached_property
    def _root(self) -> Tensor:
        values, vectors = torch.linalg.eigh(self.gram)
        return vectors * values.clamp_min(0).sqrt()

    def noise(self, seed: int = 0) -> Tensor:
        """<noise, h_j> for one release of each example, (N, K, N)."""
        check_whole("seed", seed)
        shape = (self.examples, len(self.gram))
        draws = torch.randn(shape, generator=generator(NOISE, seed), dtype=torch.double)
        return (draws @ self._root.T).unflatten(1, (-1, self.examples))

    def products(self, scale: float, noise: Tensor) -> Tensor:
        """<g, h_j> for one release of each example, (N, K, N)."""
        check_number("scale", scale, POSITIVE)
        means = self.gram[: self.examples].unflatten(1, (-1, self.examples))
        return means + scale * noise

    def gaussian(self, products: Tensor, scale: float, kind: int = 0) -> Tensor:
        """log N(g; h_j, scale^2) + const for each g, (N, N)."""
        check_number("scale", scale, POSITIVE)
        self._check(kind)
        return (products[:, kind] - self._squares[kind] / 2) / scale**2

    def cosine(self, products: Tensor, kind: int = 0) -> Tensor:
        """The cosine of g and h_j times |g|, (N, N)."""
        self._check(kind)
        return products[:, kind] / self._squares[kind].sqrt()

    def _check(self, kind: int) -> None:
        check_whole("kind", kind)
        if kind >= (kinds := len(self.gram) // self.examples):
            raise ValueError(f"kind must be below the number of kinds, {kinds}, got {kind}")

    @property
    def _squares(self) -> Tensor:
        return self.gram.diagonal().unflatten(0, (-1, self.examples))


def gaussian_risks(
    client: Client, prior: FinitePrior, scales: Sequence[float], delta: float = 0.0, rounds: int = 5
) -> dict[float, float]:
    """The least risk that any adversary has who knows the label, by the scale of Gaussian noise.

    client: its network and loss, whatever its defense; delta and rounds as in `near` and `risks`.
    """
    bare = replace(client, defense=NoDefense())
    law = GaussianLaw.between(prior.gradients(bare))
    found = risks(law, {"": law.gaussian}, prior, scales, prior.near(delta), rounds)[""]
    return {scale: sum(each) / len(each) for scale, each in found.items()}


def risks(
    law: GaussianLaw, beliefs: Mapping[str, Callable[[Tensor, float], Tensor]], prior: FinitePrior,
    scales: Sequence[float], near: Tensor, rounds: int = 10,
) -> dict[str, dict[float, list[float]]]:  # fmt: skip
    """The risk of each belief at each noise scale, estimated once a round.

    belief(products (N, K, N), scale): log p(g | example) + const, (N, N), for each g.
    In a round every example releases once, and each answer is judged by the true posterior and not
    by luck. Attackers know the labels. Rounds differ by the noise alone, so their spread is all of
    the estimate's error. All scales see the same noise, enlarged.
    """
    check_numbers("scales", scales, POSITIVE)
    check_whole("rounds", rounds, 1)
    log_prior = prior.log_prob(prior.y)
    found = {name: {scale: [] for scale in scales} for name in beliefs}
    for seed in range(rounds):
        noise = law.noise(seed)
        for scale in scales:
            products = law.products(scale, noise)
            truth = posterior(law.gaussian(products, scale), log_prior)
            for name, belief in beliefs.items():
                answers = answer(posterior(belief(products, scale), log_prior), near)
                found[name][scale].append(float(prior.chances @ risk(answers, truth, near)))
    return found
