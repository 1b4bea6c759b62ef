"""Guess a number of candidates that were not tried from those that were: a Gaussian process over the places of choices.

Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006: equations 2.25 and 2.26 for mean and variance,
2.30 for the likelihood by which length scale and noise are chosen, 2.7 for the linear part: the prior is a plane over
all knobs, on which bumps of the squared exponential kernel sit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
LENGTHS = (0.3, 0.6, 1.2)
"""Length scales that are tried, in units of the diagonal of the space."""
NOISES = (0.05, 0.15, 0.3, 0.6)
"""Standard deviations of noise that are tried, in units of the numbers' own."""
BUMPS, PLANE = 0.5, 1.0
"""Prior standard deviations of the bumps and of the plane's slopes, in the same units."""


@dataclass(frozen=True, eq=False)
class Surrogate:
    """A fitted process.

    Args:
        places: of the candidates it knows, [candidates, knobs], each between 0 and 1.
        mean: of their numbers.
        spread: standard deviation of their numbers.
        weights: the kernel's inverse times the numbers.
        inverse: the kernel's inverse.
        length: the length scale of bumps.
    """

    places: Array
    mean: float
    spread: float
    weights: Array
    inverse: Array
    length: float

    @staticmethod
    def fitted(places: Sequence[Sequence[float]], numbers: Sequence[float]) -> Surrogate:
        """The process under whose length scale and noise what is known is likeliest.

        Args:
            places: of at least one candidate, a row each.
            numbers: one per row.
        """
        x, y = np.asarray(places, dtype=float).reshape(len(numbers), -1), np.asarray(numbers, dtype=float)
        mean, spread = float(y.mean()), float(y.std()) or 1.0
        unit = (y - mean) / spread
        best: tuple[float, Surrogate] | None = None
        for length in LENGTHS:
            kernel = _kernel(x, x, length)
            for noise in NOISES:
                inverse: Array = np.linalg.inv(kernel + noise**2 * np.eye(len(y))).astype(np.float64)
                weights: Array = inverse @ unit
                _, volume = np.linalg.slogdet(inverse)
                likelihood = float(volume - unit @ weights)
                if best is None or likelihood > best[0]:
                    best = (likelihood, Surrogate(x, mean, spread, weights, inverse, length))
        assert best is not None
        return best[1]

    def guess(self, places: Sequence[Sequence[float]]) -> tuple[Array, Array]:
        """The expected number of each candidate, and its standard deviation without noise."""
        x = np.asarray(places, dtype=float).reshape(len(places), -1)
        cross = _kernel(x, self.places, self.length)
        own = BUMPS**2 + PLANE**2 * (1 + (x - 0.5) ** 2 @ np.ones(x.shape[1]))
        variance = own - np.einsum("ij,jk,ik->i", cross, self.inverse, cross)
        return self.mean + self.spread * (cross @ self.weights), self.spread * np.sqrt(np.maximum(variance, 0.0))


def _kernel(a: Array, b: Array, length: float) -> Array:
    apart = ((a[:, None, :] - b[None, :, :]) ** 2).sum(2)
    plane = 1 + (a - 0.5) @ (b - 0.5).T
    return PLANE**2 * plane + BUMPS**2 * np.exp(-apart / (2 * length**2 * max(1, a.shape[1])))
