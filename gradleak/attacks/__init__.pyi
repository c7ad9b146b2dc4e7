from . import analytic, exact, grid, latents
from .adam import Adam
from .adversary import AT_ONCE, Adversary, attack_all, score_all
from .amortised import Amortised
from .analytic import FirstLayer, labels, layer_input, tokens
from .attack import Attack, Reconstruction, SlopeWarning, answered, asked
from .exact import ExactAnswer, FinitePrior
from .features import Features
from .langevin import Langevin, Mean, MostWithin, PosteriorSamples, Sample
from .latents import FreshLatents, Joint, Known, ReadOff, StandardNormal, latent
from .lbfgs import LBFGS
from .maximise import Optimizer, maximize
from .posterior import log_posterior
from .predictive import Fit, fit
from .presets import bayes, dlg, inverting_gradients, l1, prior_only
from .race import Race
from .rounded import Rounded
from .smoothing import Ball, Smoothing
from .stack import mergeable
from .undo_ats import Averaged, Picked, UndoATS, undo
from .unrolled import Unrolled

__all__ = [
    "AT_ONCE",
    "LBFGS",
    "Adam",
    "Adversary",
    "Amortised",
    "Attack",
    "Averaged",
    "Ball",
    "ExactAnswer",
    "Features",
    "FinitePrior",
    "FirstLayer",
    "Fit",
    "FreshLatents",
    "Joint",
    "Known",
    "Langevin",
    "Mean",
    "MostWithin",
    "Optimizer",
    "Picked",
    "PosteriorSamples",
    "Race",
    "ReadOff",
    "Reconstruction",
    "Rounded",
    "Sample",
    "SlopeWarning",
    "Smoothing",
    "StandardNormal",
    "UndoATS",
    "Unrolled",
    "analytic",
    "answered",
    "asked",
    "attack_all",
    "bayes",
    "dlg",
    "exact",
    "fit",
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
    "prior_only",
    "score_all",
    "tokens",
    "undo",
]
