"""Whether an answer explains what was released: a posterior predictive check (Gelman et al. 1996).

If the public description is right and the attack has found x, what was released looks like what the
client would release at x. Where it does not, either the description is wrong (several local steps,
another optimiser, other weights, a forgotten learning rate) or the attack stopped far from x.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from gradleak.attacks.attack import Reconstruction, check_view
from gradleak.client import ServerView
from gradleak.defenses import Distribution
from gradleak.device import ordinary
from gradleak.gradients import Gradient

DRAWS = 20  # of each client's release
ENTRIES = 2**24  # of them that are held at a time
MISFIT, UNLIKELY = 0.2, 5  # what is more than both is not explained


@dataclass(frozen=True)
class Fit:
    """How well N answers explain what was released.

    residual: how far the mean release at the answer is from that behind g, over its own length,
        |E g - E g'| / |E g'|, (N,): noise is taken off, so it may round to zero. None where nothing
        can be drawn: for beliefs that no client holds, such as directions.
    deviations: by how many standard deviations log p(g | x, y) lies above (below, if negative)
        that of draws from p(. | x, y), (N,). None where there is no density.
    """

    residual: Tensor | None
    deviations: Tensor | None

    @property
    def explained(self) -> Tensor | None:
        """Whether each answer explains its gradient, (N,); None where that cannot be judged.

        Not explained is a residual above 0.2 that no noise makes: 5 deviations below, where there
        is a density. Smaller ones are left by any search that stops.
        """
        if self.residual is None:
            return None
        close = self.residual <= MISFIT
        return close if self.deviations is None else close | (self.deviations >= -UNLIKELY)


@ordinary
@torch.no_grad()
def fit(view: ServerView, found: Reconstruction | Tensor, seed: int = 0) -> Fit:
    """How well an answer, or any x (N, *shape), explains the view under its own client.

    x is what the network sees, as attacks answer. Costs two dozen draws of a release, no search.
    Raises ValueError where labels are hidden, for views that tell nothing (`ServerView.check`), for
    what is no tensor, and for x of another shape.
    """
    check_view(view, seed)
    x = found.x if isinstance(found, Reconstruction) else found
    x, y = view.client.placed(x, view.labels)
    if x.shape != (len(view), *view.shape):
        raise ValueError(
            f"x is what the network sees of each client, {(len(view), *view.shape)}, got "
            f"{tuple(x.shape)}"
        )
    step = max(1, ENTRIES // view.g.size)
    parts = [slice(k, k + step) for k in range(0, len(view), step)]
    found = zip(*(_fit(view[rows], x[rows], y[rows], seed) for rows in parts), strict=True)
    return Fit(*(None if each[0] is None else torch.cat(each) for each in found))


def _fit(view: ServerView, x: Tensor, y: Tensor, seed: int) -> tuple[Tensor | None, Tensor | None]:
    law = view.client.distribution(x, y)
    # A zero at the end of a key changes nothing, and would repeat the client's own noise.
    drawn = (law.sample([(seed, k, draw) for k in view.key]) for draw in range(1, DRAWS + 1))
    mean, square, scores = None, 0.0, []
    try:
        for g in drawn:
            mean = g.map(_share) if mean is None else mean.map(_add, g)
            square = square + g.sq_norm() / DRAWS
            scores.append(_log_prob(law, g))
    except NotImplementedError:
        return None, None
    noise = (square - mean.sq_norm()).clamp_min(0) * DRAWS / (DRAWS - 1)  # of one release, squared
    apart = mean.sq_distance(view.g.only(*mean)) - noise * (1 + 1 / DRAWS)
    length = mean.sq_norm() - noise / DRAWS
    residual = (apart.clamp_min(0) / length.clamp_min(torch.finfo(length.dtype).tiny)).sqrt()
    if scores[0] is None:
        return residual, None
    others = torch.stack(scores)
    return residual, (law.log_prob(view.g) - others.mean(0)) / others.std(0)


def _share(v: Tensor) -> Tensor:
    return v / DRAWS


def _add(total: Tensor, v: Tensor) -> Tensor:
    return total + _share(v)


def _log_prob(law: Distribution, g: Gradient) -> Tensor | None:
    try:
        return law.log_prob(g)
    except NotImplementedError:
        return None
