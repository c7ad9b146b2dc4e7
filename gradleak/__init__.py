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
from gradleak.distributions import Laplace, Normal, PointMass
from gradleak.experiment import Trial, device
from gradleak.gradients import Gradient, gradient
from gradleak.lowrank import LowRankGaussian
from gradleak.metrics import holm, interval, mse, paired, psnr, ssim, within
from gradleak.presets import bayes, dlg, inverting_gradients, l1, prior_only
from gradleak.priors import Box, BoxPenalty, Flat, Sum, TotalVariation
from gradleak.pruning import MagnitudePruning, Soteria
from gradleak.undoing import undo
from gradleak.version import __version__

__all__ = [
    "ATS",
    "Adam",
    "Adversary",
    "Ball",
    "Box",
    "BoxPenalty",
    "Client",
    "Direction",
    "Flat",
    "GaussianNoise",
    "Gradient",
    "Ignore",
    "Laplace",
    "LaplaceNoise",
    "LayerDirections",
    "LayerWeights",
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
    "__version__",
    "analytic",
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
    "mse",
    "paired",
    "plane",
    "plot",
    "precision",
    "precode",
    "prior_only",
    "profile",
    "psnr",
    "records",
    "search",
    "ssim",
    "train",
    "tuning",
    "undo",
    "widgets",
    "within",
]
