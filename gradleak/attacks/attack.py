"""The one verb: every attack is asked the same way, and answers in the same words."""

import time
import warnings
from dataclasses import dataclass, field

import torch
from torch import Tensor

from gradleak import look
from gradleak.client import ServerView
from gradleak.priors import Sourced
from gradleak.scales import check_kind, check_number, is_plain, refuse


class SlopeWarning(UserWarning):
    """Some climbs had no slope to follow, so their answers are not what was searched for."""


@dataclass(frozen=True)
class Reconstruction:
    """What an attack found for N clients.

    x: (N, *shape); of several restarts, that with the highest log-posterior.
    log_posterior: (N,), at temperature 1, up to a constant. restarts: (N, R), every restart's
    log-posterior. Both are not a number where an attack never computes it.
    seconds: wall-clock time of the computation, an equal share of it where several shared one.
    samples: (N, K, *shape), the draws that x was made of, if it was.
    Of climbs alone, else None. stopped: (N, R), the step since which a restart's slope was not
    finite, so that it stood still; -1 where it was to the end. blind: (N, R), whether g told
    nothing at the start, where the slope of its log-density was zero. climbs: N names, of the climb
    that found x; of a race, the winner's.
    """

    x: Tensor
    log_posterior: Tensor
    restarts: Tensor
    seconds: float
    samples: Tensor | None = field(default=None, repr=False)
    stopped: Tensor | None = None
    blind: Tensor | None = None
    climbs: tuple[str, ...] | None = None


class Attack(Sourced):
    """g -> x_hat: inherit from it as a frozen dataclass whose repr tells all, and say `attack`."""

    def attack(self, view: ServerView, seed: int = 0) -> Reconstruction:
        """Attack every client of the view; each answer depends on its own client and the seed.

        Raises ValueError where labels are hidden and the attack needs them.
        """
        raise NotImplementedError(f"{type(self).__name__} needs a method attack(view, seed=0)")

    def columns(self) -> dict[str, str | int | float]:
        """What records say of it, by column."""
        return {"attack": repr(self)}


def asked(attack: Attack, view: ServerView, seed: int = 0) -> Reconstruction:
    """What an attack answers. Raises ValueError where one's own answers in another form."""
    found = attack.attack(view, seed)
    if type(attack).__module__.startswith("gradleak."):
        return found
    if not isinstance(found, Reconstruction):
        raise ValueError(
            f"{attack!r:.100} must answer with a Reconstruction, got {type(found).__name__}; end "
            "it with gradleak.attacks.answered(x, begin)"
        )
    for name in ("x", "log_posterior", "restarts"):
        value = getattr(found, name)
        if not (isinstance(value, Tensor) and value.is_floating_point() and is_plain(value)):
            raise ValueError(
                f"{attack!r:.99} must answer {name} as a dense floating-point tensor, got "
                f"{value!r:.99}; end it with gradleak.attacks.answered(x, begin)"
            )
    check_number(f"the seconds that {attack!r:.100} answers", found.seconds, "[0, 1e18]")
    image = view.client.image(found.x.new_zeros(1, *view.shape)).shape[1:]
    if found.x.shape not in ((len(view), *view.shape), (len(view), *image)):
        raise ValueError(
            f"{attack!r:.100} must answer x of one image a client, {(len(view), *image)}, got "
            f"{tuple(found.x.shape)}"
        )
    scores = found.log_posterior.shape, found.restarts.shape[:1]
    if scores != ((len(view),), (len(view),)):
        raise ValueError(
            f"{attack!r:.100} must answer log_posterior ({len(view)},) and "
            f"restarts ({len(view)}, R); end it with gradleak.attacks.answered(x, begin)"
        )
    if len(view) > 1 and look.due(type(attack)):
        look.done(type(attack))
        alone = attack.attack(view[:1], seed).x
        if not look.close(found.x[:1], alone):
            warnings.warn(
                f"{attack!r:.100} answers a client otherwise alone than beside others, so rows "
                "depend on what was computed with them; key its randomness by seed and view.key",
                stacklevel=2,
            )
    return found


def check_view(view: ServerView, seed: int = 0) -> None:
    """ValueError for what is no view, and for one that tells nothing: see `ServerView.check`."""
    check_kind("view", view, ServerView, "what `Client.release` and `Client.view` return")
    view.check(seed)


def answered(
    x: Tensor, begin: float, log_posterior: Tensor | None = None, samples: Tensor | None = None
) -> Reconstruction:
    """One answer x for each client, by an attack that began at `begin` (`time.perf_counter`)."""
    if not isinstance(x, Tensor) or not x.is_floating_point():
        refuse("x", "a floating-point tensor, one image a client", x)
    if log_posterior is None:
        log_posterior = x.new_full((len(x),), torch.nan)
    seconds = time.perf_counter() - begin
    return Reconstruction(x, log_posterior, log_posterior.unsqueeze(1), seconds, samples)


def refuse_blind(blind: Tensor) -> None:
    """ValueError if all of N starts are blind, (N,): their likelihood has the slope zero."""
    if blind.all():
        raise ValueError(
            "the slope of log p(g | x, y) in x is zero at every start, so an attack would answer "
            "with the prior alone: the model ignores x, its first layer is dead or cuts slopes "
            "off (argmax, round, detach), or the belief tells nothing so far from g (a larger "
            "scale does). For the prior alone believe gradleak.Uninformative()"
        )
