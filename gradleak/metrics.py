"""How close a reconstruction is, and how sure a table is.

One example a row: x_hat and x are (N, F) tables, (N, C, L) series or (N, C, H, W) images. A
reconstruction of an image in [0, 1] is clipped to [0, 1] first, all others are taken as they are.
For clients that average over B examples, (N, B, ...), `match` comes first. Everything is per
example; means come afterwards.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from scipy.stats import bootstrap, wilcoxon
from skimage.metrics import structural_similarity
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint
from torch import Tensor

from gradleak.scales import (
    check_call,
    check_kind,
    check_number,
    check_numbers,
    check_shapes,
    refuse,
)

ROUNDING = 1e-5  # what a resized or turned image may be beyond [0, 1]
WINDOW = 7  # pixels a side of SSIM's windows


def mse(x_hat: Tensor, x: Tensor) -> Tensor:
    """Mean squared error of each example, (N,), in squared units of x.

    Raises ValueError for shapes that differ, and for more axes than images have.
    """
    _check(x_hat, x)
    return _mse(x_hat, x)


def psnr(x_hat: Tensor, x: Tensor, peak: float | None = None) -> Tensor:
    """10 log10(peak^2 / MSE) of each example in dB, (N,); infinite for a perfect reconstruction.

    peak: the range of the data, in units of x; None: 1, for x in [0, 1]. Raises ValueError for
    other x without a peak, a peak that is not positive, and where `mse` does.
    """
    error = mse(x_hat, x)
    if peak is None and not in_range(x).all():
        raise ValueError(
            f"x lies in [{x.min():.3g}, {x.max():.3g}] and not in [0, 1], so PSNR needs the range "
            "of your data: psnr(x_hat, x, peak=...), such as peak=1 for standardised data, which "
            "compares with one standard deviation; or take mse"
        )
    if peak is not None:
        check_number("peak", peak, "(0, inf)", "it is the range of the data")
    return 20 * math.log10(1 if peak is None else peak) - 10 * torch.log10(error)


def ssim(x_hat: Tensor, x: Tensor) -> Tensor:
    """Structural similarity of each image (N, C, H, W) in [0, 1], (N,), by scikit-image.

    Uniform 7x7 windows (Wang et al. 2004). Not a number for what has none: other data than images,
    values outside of [0, 1], and images of less than 7 pixels a side. Raises ValueError where
    `mse` does.
    """
    _check(x_hat, x)
    if x.ndim != 4 or min(x.shape[2:]) < WINDOW:
        return torch.full((len(x),), torch.nan, dtype=torch.double)
    a, b = (v.detach().cpu().double().numpy() for v in (x_hat.clamp(0, 1), x))
    pairs = zip(a, b, strict=True)
    values = [structural_similarity(a, b, data_range=1.0, channel_axis=0) for a, b in pairs]
    return torch.tensor(values).where(in_range(x).cpu(), torch.nan)


def scores(x_hat: Tensor, x: Tensor) -> dict[str, Tensor]:
    """What records say of reconstructions: mse, psnr and ssim of each example, (N,) each.

    x: (N, ...), with one axis or more an example. The peak of PSNR is 1 for all data, so that the
    score of an example depends on no other.
    """
    check_kind("x_hat", x_hat, Tensor)
    check_kind("x", x, Tensor)
    if x.ndim > 4:
        x_hat, x = x_hat.flatten(1), x.flatten(1)
    return {"mse": mse(x_hat, x), "psnr": psnr(x_hat, x, peak=1.0), "ssim": ssim(x_hat, x)}


def within(x_hat: Tensor, x: Tensor, delta: float) -> Tensor:
    """Whether each reconstruction is in the delta-ball, |x_hat - x|_2 <= delta, (N,).

    delta: in units of x. The paper's risk is one minus the mean of this. Raises as `mse` does.
    """
    _check(x_hat, x)
    check_number("delta", delta, "[0, inf)", "in units of x")
    return (_clipped(x_hat, x) - x).flatten(1).norm(dim=1) <= delta


def nearest(x: Tensor, among: Tensor) -> Tensor:
    """The place in `among` (M, ...) of the image nearest to each of x (N, ...), (N,)."""
    check_kind("x", x, Tensor)
    check_kind("among", among, Tensor)
    if x.ndim < 2 or among.ndim < 2:
        refuse("x and among", "images (N, ...) and (M, ...)", (x.shape, among.shape))
    check_shapes(x=x[:1], among=among[:1])
    kind = torch.promote_types(torch.promote_types(x.dtype, among.dtype), torch.float32)
    return torch.cdist(x.flatten(1).to(kind), among.flatten(1).to(kind)).argmin(1)


def match(x_hat: Tensor, x: Tensor) -> Tensor:
    """Reorder each client's reconstructions (N, B, ...) to its examples: least total MSE.

    One assignment (Hungarian) that all metrics share: psnr(match(x_hat, x).flatten(0, 1),
    x.flatten(0, 1)). It looks at x, so it is an oracle. Raises ValueError for shapes that differ
    or without both axes.
    """
    check_kind("x_hat", x_hat, Tensor)
    check_kind("x", x, Tensor)
    if x_hat.shape != x.shape or x.ndim < 3:
        raise ValueError(
            f"x_hat and x are (N, B, ...), N clients of B examples each; they are "
            f"{tuple(x_hat.shape)} and {tuple(x.shape)}"
        )
    check_shapes(x_hat=x_hat, x=x)
    return torch.stack([found[_order(found, true)] for found, true in zip(x_hat, x, strict=True)])


def _order(x_hat: Tensor, x: Tensor) -> Tensor:
    """Which of x_hat (B, ...) belongs to each of x (B, ...), (B,)."""
    error = torch.stack([_mse(x_hat, one.expand_as(x_hat)) for one in x]).double()
    # What is not finite is equally far from every example, so any number does.
    error = error.nan_to_num(nan=0, posinf=0)
    return torch.as_tensor(linear_sum_assignment(error.cpu().numpy())[1], device=x.device)


def _mse(x_hat: Tensor, x: Tensor) -> Tensor:
    return (_clipped(x_hat, x) - x).square().flatten(1).mean(1)


def _clipped(x_hat: Tensor, x: Tensor) -> Tensor:
    """x_hat (N, ...), clipped to [0, 1] where x is an image that lies there."""
    if x.ndim != 4:
        return x_hat
    return x_hat.clamp(0, 1).where(in_range(x).view(-1, 1, 1, 1), x_hat)


def in_range(x: Tensor) -> Tensor:
    """Whether each of x (N, ...) lies in [0, 1], up to rounding, (N,)."""
    return ((x >= -ROUNDING) & (x <= 1 + ROUNDING)).reshape(len(x), -1).all(1)


def _check(x_hat: Tensor, x: Tensor) -> None:
    check_shapes(x_hat=x_hat, x=x)
    if not 2 <= x.ndim <= 4:
        raise ValueError(
            f"metrics take one example a row, (N, F), (N, C, L) or (N, C, H, W), not "
            f"{tuple(x.shape)}; of clients that average over B examples, match and flatten first: "
            "psnr(match(x_hat, x).flatten(0, 1), x.flatten(0, 1)); of volumes take x.flatten(1)"
        )


@dataclass(frozen=True)
class Interval:
    """A mean or share over n images with its interval (low, high) at 95 %."""

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

    A single value or equal values have no spread to resample: the interval is the mean. Raises
    ValueError for values that are not finite, and for those that are true or false: see `share`.
    """
    values = _array("values", values)
    if values.dtype == bool:
        raise ValueError("values are true or false, and their mean a share: use metrics.share")
    values = _numbers("values", values)
    if not values.size or not (np.abs(values) < 1e150).all():  # so are their squares
        raise ValueError(f"an interval needs finite values, got {values}")
    mean = float(values.mean())
    if np.ptp(values) <= 1e-12 * abs(mean):
        return Interval(mean, mean, mean, values.size)
    # Resampling is part of the result, so its seed is fixed.
    result = bootstrap((values,), np.mean, rng=np.random.default_rng(0)).confidence_interval
    return Interval(mean, float(result.low), float(result.high), values.size)


def share(values: Sequence[bool]) -> Interval:
    """The share of true values and its 95 % interval (Wilson 1927, by statsmodels).

    For shares, as of leaks, where resampling fails: of none in twelve its upper end is 24 %.
    Raises ValueError for no values, and for values that are not true or false.
    """
    values = _array("values", values)
    if not values.size or not np.isin(values, (0, 1)).all():
        raise ValueError(f"a share needs values that are true or false, got {values}")
    count, n = int(values.sum()), values.size
    low, high = proportion_confint(count, n, method="wilson")
    return Interval(count / n, float(low), float(high), n)


def crossing(means: Mapping[float, Interval], target: float) -> float | None:
    """Where means that fall with a quantity first reach a target, on a log scale; None: nowhere."""
    check_number("target", target, "(-inf, inf)")
    check_kind("means", means, Mapping, "such as {scale: interval(values)}")
    check_numbers("means", list(means), "(0, inf)", "its keys are on a log scale")
    for value in means.values():
        check_kind("means", value, Interval, "see metrics.interval")
    points = [(at, means[at].mean) for at in sorted(means)]
    for (before, high), (after, low) in pairwise(points):
        if high >= target >= low and high > low:
            return before * (after / before) ** ((high - target) / (high - low))
    return None


def _array(name: str, values: object) -> np.ndarray:
    """What holds numbers as an array; a tensor of any kind that holds them."""
    try:
        if isinstance(values, Tensor):
            values = values.detach().to_dense().cpu()
            values = values.double() if values.is_floating_point() else values
        if np.ma.isMaskedArray(values):
            raise ValueError("what its mask hides would count: use .compressed()")
        array = np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:
        refuse(name, "a sequence of numbers, one an image", values, str(error))
    plain = isinstance(values, Sequence) and array.dtype.kind in "iuf"
    if plain and any(isinstance(v, bool | np.bool_) for v in values):
        refuse(name, "numbers, or all true or false", values)
    return array


def _numbers(name: str, values: Sequence[float]) -> np.ndarray:
    """One number an image, as an array."""
    array = _array(name, values)
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
    p = _array("p", p)
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
    check_kind("x", x, Tensor)
    check_kind("public", public, Tensor)
    check_shapes(x=x[:1], public=public[:1])
    check_call("metric", metric)
    guesses = {"mid-grey": torch.full_like(x, 0.5), "mean image": public.mean(0).expand_as(x)}
    found = {name: metric(guess, x) for name, guess in guesses.items()}
    for values in found.values():
        check_kind("what metric returns", values, Tensor, "one number for each of x, (N,)")
    return {name: interval(values) for name, values in found.items()}
