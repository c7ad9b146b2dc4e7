from .denoiser import Denoiser, read_denoiser, trained_denoiser
from .fit import fit, log_uniform
from .gaussians import GaussianMixture, LowRankGaussian, Mixture
from .prior import END, Moment, Prior, Sourced
from .score import Learned, Trained
from .simple import Box, BoxPenalty, Flat, Sum, TotalVariation
from .unet import UNet, waves

__all__ = [
    "END",
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
    "fit",
    "log_uniform",
    "read_denoiser",
    "trained_denoiser",
    "waves",
]
