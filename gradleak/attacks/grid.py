"""Posteriors in two dimensions, where everything can be seen: density, mass, and three answers."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from scipy.signal import fftconvolve
from torch import Tensor

from gradleak.attacks.adam import Adam
from gradleak.attacks.maximise import maximize
from gradleak.priors import Box, Moment
from gradleak.scales import WEIGHT, check_call, check_number, check_whole


@dataclass(frozen=True)
class Plane:
    """A density at the midpoints of n x n square cells.

    axis (n,): the midpoints along each side. density (n, n): at (axis[i], axis[j]); its sum times
    the cell's area is one. log_density: what it was made of, see `on_plane`.
    """

    axis: Tensor
    density: Tensor
    log_density: Callable[[Tensor], Tensor] = field(repr=False)

    @property
    def cell(self) -> float:
        """The area of a cell."""
        return float(self.axis[1] - self.axis[0]) ** 2

    @property
    def mode(self) -> Tensor:
        """Where the density is highest, (2,): the MAP answer."""
        return self._at(self.density)

    @property
    def mean(self) -> Tensor:
        """The mean, (2,): the answer with the least squared error."""
        return torch.stack([self.density.sum(1 - i) @ self.axis for i in (0, 1)]) * self.cell

    def mass(self, delta: float) -> Tensor:
        """The chance of being within delta of each midpoint, (n, n).

        A cell counts by its midpoint. Raises ValueError if delta is smaller than a cell.
        """
        check_number("delta", delta, WEIGHT)
        width = float(self.axis[1] - self.axis[0])
        if delta < width:
            raise ValueError(f"delta {delta:.3g} is smaller than a cell, {width:.3g}: use more")
        cells = min(int(delta / width), len(self.axis) - 1)  # there are none farther away
        reach = torch.arange(-cells, cells + 1) * width
        ball = (reach[:, None] ** 2 + reach**2 <= delta**2).double()
        found = fftconvolve(self.density.numpy() * self.cell, ball.numpy(), mode="same")
        return torch.from_numpy(found).clamp(0, 1)

    def best(self, delta: float) -> Tensor:
        """The point with the most mass within delta, (2,): the delta-ball optimum."""
        return self._at(self.mass(delta))

    def answers(self, delta: float) -> dict[str, Tensor]:
        """The three answers by name, (2,) each; the optimum is that for delta."""
        return {"MAP": self.mode, "posterior mean": self.mean, "optimum": self.best(delta)}

    def chances(self, delta: float) -> dict[str, float]:
        """The chance of each answer to be within delta of the truth, by the density itself."""
        return {name: self.within(at, delta) for name, at in self.answers(delta).items()}

    def within(self, point: Tensor, delta: float) -> float:
        """The chance of being within delta of a point (2,)."""
        check_number("delta", delta, WEIGHT)
        far = (self.axis[:, None] - point[0]) ** 2 + (self.axis - point[1]) ** 2
        return float(self.density[far <= delta**2].sum()) * self.cell

    def climb(self, start: Tensor, optimizer: Adam) -> Tensor:
        """The points (steps, 2) that an attack visits from a start (2,) inside the unit square."""
        path = []

        def visited(x: Tensor, _: Moment) -> Tensor:
            path.append(x.detach()[0])
            return self.log_density(x)

        maximize(visited, start[None].double(), optimizer, Box().project)
        return torch.stack(path)

    def _at(self, values: Tensor) -> Tensor:
        row, column = divmod(int(values.argmax()), len(self.axis))
        return torch.stack([self.axis[row], self.axis[column]])


def on_plane(
    log_density: Callable[[Tensor], Tensor], low: float = 0.0, high: float = 1.0, n: int = 200
) -> Plane:
    """The density proportional to exp(log_density) on the square [low, high]^2.

    log_density takes points (M, 2), float64, and returns (M,), up to a constant. What lies outside
    the square is left out.
    """
    check_call("log_density", log_density)
    check_number("low", low, "(-1e18, 1e18)")
    check_number("high", high, "(-1e18, 1e18)")
    if not low < high:
        raise ValueError(f"low must be below high, got {low} and {high}")
    check_whole("n", n, 2)
    width = (high - low) / n
    axis = low + width * (torch.arange(n, dtype=torch.double) + 0.5)
    with torch.no_grad():
        log_p = log_density(torch.cartesian_prod(axis, axis)).double()
    if log_p.shape != (n * n,) or not log_p.logsumexp(0).isfinite():
        raise ValueError(
            "log_density must take points (M, 2) and return (M,), finite somewhere and nowhere nan "
            f"or inf; got {tuple(log_p.shape)} for {n * n} points"
        )
    return Plane(axis, log_p.softmax(0).reshape(n, n) / width**2, log_density)
