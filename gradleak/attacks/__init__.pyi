from . import analytic, exact, grid, latents
from .adversary import AT_ONCE, Adversary, Reconstruction, attack_all, log_posterior
from .amortised import Amortised
from .analytic import first_layer, labels, layer_input
from .langevin import Langevin, most_within, posterior_samples
from .latents import FreshLatents, Joint, Known, ReadOff, StandardNormal, latent
from .maximise import Adam, maximize
from .presets import bayes, dlg, inverting_gradients, l1, prior_only
from .smoothing import Ball, Smoothing
from .stack import mergeable
from .undo_ats import undo
from .unrolled import Unrolled

__all__ = [
    "AT_ONCE",
    "Adam",
    "Adversary",
    "Amortised",
    "Ball",
    "FreshLatents",
    "Joint",
    "Known",
    "Langevin",
    "ReadOff",
    "Reconstruction",
    "Smoothing",
    "StandardNormal",
    "Unrolled",
    "analytic",
    "attack_all",
    "bayes",
    "dlg",
    "exact",
    "first_layer",
    "grid",
    "inverting_gradients",
    "l1",
    "labels",
    "latent",
    "latents",
    "layer_input",
    "log_posterior",
    "maximize",
    "mergeable",
    "most_within",
    "posterior_samples",
    "prior_only",
    "undo",
]
