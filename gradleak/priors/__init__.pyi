from .gaussians import GaussianMixture, LowRankGaussian, Mixture
from .networks import UNet, fit, log_uniform, waves
from .prior import (
    END,
    IMAGES,
    Box,
    BoxPenalty,
    Flat,
    Moment,
    Prior,
    Sourced,
    Sum,
    TotalVariation,
    check_prior,
)
from .score import Denoiser, Learned, Trained, read_denoiser, trained_denoiser

__all__ = [
    "END",
    "IMAGES",
    "Box",
    "BoxPenalty",
    "Denoiser",
    "Flat",
    "GaussianMixture",
    "Learned",
    "LowRankGaussian",
    "Mixture",
    "Moment",
    "Prior",
    "Sourced",
    "Sum",
    "TotalVariation",
    "Trained",
    "UNet",
    "check_prior",
    "fit",
    "log_uniform",
    "read_denoiser",
    "trained_denoiser",
    "waves",
]
