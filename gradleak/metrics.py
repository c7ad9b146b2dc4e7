"""How close a reconstruction is, and how sure a table is. Images lie in [0, 1].

Reconstructions are clipped to [0, 1] first. Everything is per image; means come afterwards.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from scipy.stats import bootstrap, wilcoxon
from skimage.metrics import structural_similarity
from statsmodels.stats.multitest import multipletests
from torch import Tensor

from gradleak.scales import WEIGHT, check_number, check_numbers, check_shapes, refuse


def mse(x_hat: Tensor, x: Tensor) -> Tensor:
    """Mean squared error of each image, (N,); x_hat and x are (N, ...)."""
    check_shapes(x_hat=x_hat, x=x)
    return (x_hat.clamp(0, 1) - x).square().flatten(1).mean(1)


def psnr(x_hat: Tensor, x: Tensor) -> Tensor:
    """10 log10(1 / MSE) of each image in dB, (N,); infinite for a perfect reconstruction."""
    return -10 * torch.log10(mse(x_hat, x))


def ssim(x_hat: Tensor, x: Tensor) -> Tensor:
    """Structural similarity of each image (N, C, H, W), (N,), by scikit-image.

    Uniform 7x7 windows, which fit all images from 8x8 pixels on (Wang et al. 2004).
    """
    check_shapes(x_hat=x_hat, x=x)
    if x.ndim != 4 or min(x.shape[2:]) < 7:
        raise ValueError(
            f"x must be images (N, C, H, W) of at least 7x7 pixels, got {tuple(x.shape)}; for "
            "other data use mse"
        )
    pairs = zip(x_hat.clamp(0, 1).cpu().double().numpy(), x.cpu().double().numpy(), strict=True)
    values = [structural_similarity(a, b, data_range=1.0, channel_axis=0) for a, b in pairs]
    return torch.tensor(values)


def scores(x_hat: Tensor, x: Tensor) -> dict[str, Tensor]:
    """What records say of reconstructions: mse, psnr and ssim of each image, (N,) each."""
    return {f.__name__: f(x_hat, x) for f in (mse, psnr, ssim)}


def within(x_hat: Tensor, x: Tensor, delta: float) -> Tensor:
    """Whether each reconstruction is in the delta-ball, |x_hat - x|_2 <= delta in pixels, (N,).

    The paper's risk is one minus the mean of this.
    """
    check_shapes(x_hat=x_hat, x=x)
    check_number("delta", delta, WEIGHT)
    return (x_hat.clamp(0, 1) - x).flatten(1).norm(dim=1) <= delta


def nearest(x: Tensor, among: Tensor) -> Tensor:
    """The place in `among` (M, ...) of the image nearest to each of x (N, ...), (N,)."""
    check_shapes(x=x[:1], among=among[:1])
    return torch.cdist(x.flatten(1), among.flatten(1)).argmin(1)


def match(x_hat: Tensor, x: Tensor) -> Tensor:
    """Reorder each client's reconstructions (N, B, ...) to its images: least total MSE.

    One assignment (Hungarian) that all metrics share. It looks at x, so it is an oracle.
    """
    check_shapes(x_hat=x_hat, x=x)
    if x.ndim < 3:
        raise ValueError(f"x must be clients' batches (N, B, ...), got {tuple(x.shape)}")
    error = (x_hat.clamp(0, 1).unsqueeze(2) - x.unsqueeze(1)).square().flatten(3).mean(3)
    order = [torch.as_tensor(linear_sum_assignment(e.T.cpu().numpy())[1]) for e in error]
    return torch.stack([images[o] for images, o in zip(x_hat, order, strict=True)])


@dataclass(frozen=True)
class Interval:
    """A mean over n images with its bootstrap interval (low, high) at 95 %."""

    mean: float
    low: float
    high: float
    n: int

    def __format__(self, spec: str) -> str:
        """For example f'{interval:.1f}' is '20.1 [19.5, 20.8]'."""
        mean, low, high = (format(v, spec or ".2f") for v in (self.mean, self.low, self.high))
        return f"{mean} [{low}, {high}]"


def interval(values: Sequence[float]) -> Interval:
    """The mean and its 95 % interval, by the bias-corrected and accelerated bootstrap (SciPy).

    A single value or equal values have no spread to resample: the interval is the mean.
    """
    values = _numbers("values", values)
    if not values.size or not np.isfinite(values).all():
        raise ValueError(f"an interval needs finite values, got {values}")
    mean = float(values.mean())
    if np.ptp(values) <= 1e-12 * abs(mean):
        return Interval(mean, mean, mean, values.size)
    # Resampling is part of the result, so its seed is fixed.
    result = bootstrap((values,), np.mean, rng=np.random.default_rng(0)).confidence_interval
    return Interval(mean, float(result.low), float(result.high), values.size)


def crossing(means: Mapping[float, Interval], target: float) -> float | None:
    """Where means that fall with a quantity first reach a target, on a log scale; None: nowhere."""
    check_number("target", target, "(-inf, inf)")
    check_numbers("means", list(means), "(0, inf)", "its keys are on a log scale")
    points = [(at, value.mean) for at, value in means.items()]
    for (before, high), (after, low) in pairwise(points):
        if high >= target >= low and high > low:
            return before * (after / before) ** ((high - target) / (high - low))
    return None


def _numbers(name: str, values: Sequence[float]) -> np.ndarray:
    """One number an image, as an array."""
    array = np.asarray(values)
    if array.ndim != 1 or array.dtype.kind not in "biuf":
        refuse(name, "a sequence of numbers, one an image", values)
    return array.astype(float)


@dataclass(frozen=True)
class Paired:
    """Mean difference over the same images, its interval, and Wilcoxon's signed-rank p-value."""

    difference: Interval
    p: float


def holm(p: Sequence[float]) -> list[float]:
    """p-values of a family of tests, corrected for their number (Holm 1979, by statsmodels).

    Rejecting where they are below 5 % keeps the chance of any false rejection below 5 %.
    """
    p = _numbers("p", p)
    check_numbers("p", p.tolist(), "[0, 1]")
    return [float(v) for v in multipletests(list(p), method="holm")[1]] if len(p) else []


def paired(a: Sequence[float], b: Sequence[float]) -> Paired:
    """Compare a with b image by image: a - b."""
    a, b = _numbers("a", a), _numbers("b", b)
    if len(a) != len(b):
        raise ValueError(f"paired values must match: {len(a)} and {len(b)}")
    difference = a - b
    p = 1.0 if not difference.any() else float(wilcoxon(difference).pvalue)
    return Paired(interval(difference), p)


def floors(
    x: Tensor, public: Tensor, metric: Callable[[Tensor, Tensor], Tensor] = psnr
) -> dict[str, Interval]:
    """What can be had without a gradient: mid-grey and the mean of public images (M, C, H, W)."""
    check_shapes(x=x[:1], public=public[:1])
    guesses = {"mid-grey": torch.full_like(x, 0.5), "mean image": public.mean(0).expand_as(x)}
    return {name: interval(metric(guess, x).tolist()) for name, guess in guesses.items()}
