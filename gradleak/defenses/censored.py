"""What an adversary believes about a gradient whose small entries were set to zero."""

from dataclasses import dataclass

import torch
from torch import Tensor

from gradleak.defenses.distributions import Density, Laplace, Normal
from gradleak.defenses.noise import GaussianNoise, LaplaceNoise
from gradleak.gradients import Gradient
from gradleak.scales import per_attack

FALL = 20.0  # by which the density of sizes may fall where entries begin to survive


@dataclass(frozen=True)
class Censored:
    """Entries that are zero in g were hidden because they were small, as pruning hides them.

    Before pruning each entry was the gradient's with this noise, GaussianNoise or LaplaceNoise.
    What survived has its density. A zero says that the entry was smaller than t, the smallest
    survivor of its parameter: for Gaussian noise the chance Phi((t - h) / scale) -
    Phi((-t - h) / scale) (Tobin 1958). This is the density of noise that is pruned afterwards, by
    a share, by a number of entries, or by a threshold, in some parameters or in all; where nothing
    survived nothing is said. Of a client that adds no noise the scale is the belief's own, as a
    width: a third of t did well. A client that adds noise afterwards leaves no zeros and has a
    density itself: believe in it.

    Zeros of a mask say nothing about size, nor do those of `Soteria`. Raises ValueError for other
    noise, and in `log_prob` where zeros look like those of a random mask.
    """

    noise: GaussianNoise | LaplaceNoise

    def __post_init__(self) -> None:
        if not isinstance(self.noise, GaussianNoise | LaplaceNoise):
            raise ValueError(
                f"what was pruned needs GaussianNoise or LaplaceNoise, got {self.noise}; without "
                "noise give a width: Censored(GaussianNoise(scale=0.01))"
            )

    def __call__(self, gradient: Gradient) -> Density:
        """The belief about g around this gradient."""
        noisy = self.noise(gradient)
        return Density(lambda g: _log_prob(noisy, g))


def _log_prob(noisy: Normal | Laplace, g: Gradient) -> Tensor:
    """The survivors' log densities and the log chances of what was hidden, (N,)."""
    each = noisy.loc.attacks // g.attacks

    def of(name: str, least: Tensor, count: Tensor) -> Tensor:
        bound = least.repeat_interleave(each)

        def term(apart: Tensor, g: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
            # Where g is zero, apart is minus the entry, and the chance is an even function of it.
            hidden, hidden_slope = noisy.within(apart, per_attack(bound[rows], apart), rows)
            sent, sent_slope = noisy.entry(apart, rows)
            total = torch.where(g != 0, sent, hidden).reshape(len(apart), -1).sum(1)
            return total, torch.where(g != 0, sent_slope, hidden_slope)

        total = noisy.loc.only(name).entrywise(term, g.only(name))
        return total + count.repeat_interleave(each) * noisy.log_constant

    least, count = g.once(_smallest), g.once(_survivors)
    return torch.stack([of(name, least[name], count[name]) for name in g]).sum(0)


def _survivors(g: Gradient) -> dict[str, Tensor]:
    """How many entries of each parameter are not zero, (M,)."""
    return {name: (v != 0).reshape(len(v), -1).sum(1) for name, v in g.items()}


def _smallest(g: Gradient) -> dict[str, Tensor]:
    """The smallest magnitude in each parameter that is not zero, (M,); infinite where all are."""
    for name, v in g.items():
        for n, row in enumerate(v):
            if _cut_at_random(row):
                raise ValueError(
                    f"the zeros in '{name}' of client {n} are not its smallest entries: the "
                    "survivors begin far below the rest, as under a random mask, whose zeros say "
                    "nothing about size. Believe in gradleak.Survivors or gradleak.UnknownMask, or "
                    f"leave it out: gradleak.Ignore('{name}', then=Censored(...))"
                )
    return {
        name: torch.where(v == 0, torch.inf, v.abs()).reshape(len(v), -1).min(1).values
        for name, v in g.items()
    }


def _cut_at_random(v: Tensor) -> bool:
    """Whether zeros of one parameter, (*shape), look like those of a mask and not of pruning.

    Pruning leaves no gap: the density of sizes at the smallest survivor is about that below it. Of
    a mask the smallest survivor is almost nothing. Looks at linear layers only, whose own zeros
    are whole rows and columns, which do not count; those of a convolution may be anywhere.
    """
    if v.ndim != 2:
        return False
    zero = v == 0
    hidden = int((zero & ~zero.all(0) & ~zero.all(1, keepdim=True)).sum())
    sizes = v[v != 0].abs()
    few = len(sizes) // 10
    if few < 5 or hidden < few:  # too few of either to judge by
        return False
    tenth = sizes.kthvalue(few + 1).values
    return bool(tenth > FALL * sizes.min())
