"""Gradient-leakage attacks as Bayes' rule: clients, defenses, priors and adversaries."""

from gradleak import (
    analytic,
    data,
    entrywise,
    exact,
    exhibits,
    experiment,
    factored,
    memory,
    metrics,
    models,
    plane,
    plot,
    precision,
    precode,
    records,
    search,
    train,
    tuning,
    widgets,
)
from gradleak.amortised import Amortised
from gradleak.answering import answers
from gradleak.ats import ATS
from gradleak.attacks import (
    Adversary,
    Reconstruction,
    attack_all,
    log_posterior,
)
from gradleak.ball import Ball
from gradleak.beliefs import (
    Direction,
    Ignore,
    LayerDirections,
    LayerWeights,
    Survivors,
    Uninformative,
    UnknownMask,
)
from gradleak.choice import choose, profile
from gradleak.client import Client, ServerView
from gradleak.climb import Adam, maximize
from gradleak.defenses import (
    GaussianNoise,
    LaplaceNoise,
    LearnedNoise,
    NoDefense,
    RandomMask,
    learned_noise,
)
from gradleak.denoiser import Denoiser, read_denoiser, trained_denoiser
from gradleak.distributions import Laplace, Normal, PointMass
from gradleak.experiment import Trial, device
from gradleak.gradients import Gradient, gradient
from gradleak.langevin import Langevin, most_within, posterior_samples
from gradleak.learned import Learned
from gradleak.lowrank import LowRankGaussian
from gradleak.metrics import holm, interval, mse, paired, psnr, ssim, within
from gradleak.mixture import GaussianMixture
from gradleak.presets import bayes, dlg, inverting_gradients, l1, prior_only
from gradleak.priors import Box, BoxPenalty, Flat, Sum, TotalVariation
from gradleak.pruning import MagnitudePruning, Soteria
from gradleak.undoing import undo
from gradleak.unrolled import Unrolled
from gradleak.version import __version__

__all__ = [
    "ATS",
    "Adam",
    "Adversary",
    "Amortised",
    "Ball",
    "Box",
    "BoxPenalty",
    "Client",
    "Denoiser",
    "Direction",
    "Flat",
    "GaussianMixture",
    "GaussianNoise",
    "Gradient",
    "Ignore",
    "Langevin",
    "Laplace",
    "LaplaceNoise",
    "LayerDirections",
    "LayerWeights",
    "Learned",
    "LearnedNoise",
    "LowRankGaussian",
    "MagnitudePruning",
    "NoDefense",
    "Normal",
    "PointMass",
    "RandomMask",
    "Reconstruction",
    "ServerView",
    "Soteria",
    "Sum",
    "Survivors",
    "TotalVariation",
    "Trial",
    "Uninformative",
    "UnknownMask",
    "Unrolled",
    "__version__",
    "analytic",
    "answers",
    "attack_all",
    "bayes",
    "choose",
    "data",
    "device",
    "dlg",
    "entrywise",
    "exact",
    "exhibits",
    "experiment",
    "factored",
    "gradient",
    "holm",
    "interval",
    "inverting_gradients",
    "l1",
    "learned_noise",
    "log_posterior",
    "maximize",
    "memory",
    "metrics",
    "models",
    "most_within",
    "mse",
    "paired",
    "plane",
    "plot",
    "posterior_samples",
    "precision",
    "precode",
    "prior_only",
    "profile",
    "psnr",
    "read_denoiser",
    "records",
    "search",
    "ssim",
    "train",
    "trained_denoiser",
    "tuning",
    "undo",
    "widgets",
    "within",
]
