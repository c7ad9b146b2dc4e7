from .denoiser import Denoiser, read_denoiser, trained_denoiser
from .fit import fit, log_uniform
from .mixture import GaussianMixture, Mixture
from .ppca import LowRankGaussian
from .score import Learned
from .simple import Box, BoxPenalty, Flat, Prior, Sum, TotalVariation, at, sources
from .unet import UNet, waves

__all__ = [
    "Box",
    "BoxPenalty",
    "Denoiser",
    "Flat",
    "GaussianMixture",
    "Learned",
    "LowRankGaussian",
    "Mixture",
    "Prior",
    "Sum",
    "TotalVariation",
    "UNet",
    "at",
    "fit",
    "log_uniform",
    "read_denoiser",
    "sources",
    "trained_denoiser",
    "waves",
]
