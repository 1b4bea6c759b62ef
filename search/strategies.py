"""Search strategies: Optuna's samplers by name, each seeded so that a continued search goes on as if never stopped."""

from __future__ import annotations

import hashlib
import random
import warnings
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from ..ir.errors import UsageError, did_you_mean
from .space import Assignment, Space

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial, TrialState

STRATEGIES: Mapping[str, str] = {
    "tpe": "tree-structured Parzen estimator: models which choices the better candidates make; the default",
    "random": "independent uniform draws",
    "brute-force": "every configuration once, in random order; ends when all are done",
    "grid": "every configuration of the grid, in an order shuffled by the seed",
    "qmc": "a Sobol sequence: draws that cover the space evenly",
    "nsga2": "genetic search for several objectives (NSGA-II)",
    "nsga3": "genetic search for many objectives (NSGA-III)",
    "gp": "Gaussian process; good with few trials",
    "cma-es": "covariance matrix adaptation; one objective only",
    "ilp": "an integer program: the bits that hurt least within a budget, by what each choice hurts alone",
}
GRID_LIMIT = 100_000
"""Configurations up to which `grid` makes its list."""
PATIENCE = 25
"""How many known candidates a strategy may propose in a row before the search picks an unknown one itself."""
ENUMERATION_LIMIT = 100_000
"""Size up to which what is left of a space is listed; larger ones are drawn from until something is new."""
POPULATION = 20
_NEEDS = {"cma-es": "cmaes", "gp": "scipy", "qmc": "scipy"}


def expect_strategy(name: str) -> None:
    """Refuse a strategy that is unknown or lacks a module.

    Raises:
        UsageError: no such strategy, or a module it needs is missing.
    """
    if name not in STRATEGIES:
        raise UsageError(f"there is no search strategy {name!r}", mend=did_you_mean(name, list(STRATEGIES)))
    if (needed := _NEEDS.get(name)) and find_spec(needed) is None:
        raise UsageError(
            f"the strategy {name} needs the module {needed!r}, which is not installed", mend=f"pip install {needed}"
        )


def check_strategy(name: str, space: Space, *, objectives: int) -> None:
    """Refuse a strategy that is unknown, or that cannot do what is asked.

    Raises:
        UsageError: see `expect_strategy`; too many objectives or configurations for it.
    """
    expect_strategy(name)
    if name == "cma-es" and objectives > 1:
        raise UsageError(
            f"the strategy cma-es takes one objective, found {objectives}",
            mend="Give the objectives weights (accuracy:max:1.0), which makes them one, or choose nsga2.",
        )
    if name == "grid" and space.size > GRID_LIMIT:
        raise UsageError(
            f"the strategy grid lists all configurations, and this space has {space.size:,}",
            mend=f"Narrow it below {GRID_LIMIT:,} with --space, or choose qmc, which covers any space evenly.",
        )


def seed_of(seed: int, *what: object) -> int:
    """A seed between 0 and 2^32 - 1 for one purpose; equal arguments give equal seeds everywhere."""
    digest = hashlib.sha256("/".join(map(str, (seed, *what))).encode()).digest()
    return int.from_bytes(digest[:4], "big")


def distributions(space: Space) -> dict[str, BaseDistribution]:
    """The space for Optuna: each free knob as the number of its choice, whose order is that of bits and sizes."""
    from optuna.distributions import IntDistribution

    return {k.name: IntDistribution(0, len(k.choices) - 1) for k in space.free}


def parameters(space: Space, assignment: Assignment) -> dict[str, int]:
    """An assignment as Optuna's parameters."""
    return {k.name: k.choices.index(assignment[k.name]) for k in space.free}


def assignment_of(space: Space, parameters: Mapping[str, Any]) -> Assignment:
    """The inverse of `parameters`."""
    return {k.name: k.choices[parameters[k.name] if len(k.choices) > 1 else 0] for k in space.knobs}


def sampler(name: str, space: Space, seed: int, told: int) -> BaseSampler:
    """The sampler for the next candidate.

    Optuna does not store the state of a sampler's random numbers. So a fresh sampler is made for every candidate, from
    the seed and the number of trials told: what it proposes depends on these and on the study alone, and a search
    that is continued proposes what it would have proposed without the break. Samplers keep everything else they
    learn (populations, positions in sequences) in the study.

    Args:
        name: one of `STRATEGIES`.
        space: what to sample from.
        seed: the search's.
        told: trials that have been told so far.
    """
    from optuna import samplers
    from optuna.exceptions import ExperimentalWarning

    fresh, fixed = seed_of(seed, "sampler", told), seed_of(seed, "sampler")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        make: dict[str, Callable[[], BaseSampler]] = {
            "tpe": lambda: samplers.TPESampler(seed=fresh, multivariate=True, n_startup_trials=10),
            "random": lambda: samplers.RandomSampler(seed=fresh),
            "brute-force": lambda: _brute_force()(seed=fresh),
            "grid": lambda: _grid()({k.name: list(range(len(k.choices))) for k in space.free}, seed=fixed),
            "qmc": lambda: samplers.QMCSampler(seed=fixed, scramble=True, warn_independent_sampling=False),
            "nsga2": lambda: samplers.NSGAIISampler(seed=fresh, population_size=POPULATION),
            "nsga3": lambda: samplers.NSGAIIISampler(seed=fresh, population_size=POPULATION),
            "gp": lambda: samplers.GPSampler(seed=fresh, warn_independent_sampling=False),
            "ilp": lambda: samplers.RandomSampler(seed=fresh),  # for widths and biases, and when budgets give no more
            "cma-es": lambda: samplers.CmaEsSampler(
                seed=fresh, warn_independent_sampling=False, with_margin=True, consider_pruned_trials=False
            ),
        }
        return make[name]()


def _brute_force() -> type[Any]:
    from optuna.samplers import BruteForceSampler

    class BruteForce(BruteForceSampler):
        """As Optuna's, without stopping the study: with `ask` and `tell` there is no loop to stop."""

        def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Any) -> None:
            """Nothing to do."""

    return BruteForce


def _grid() -> type[Any]:
    from optuna.samplers import GridSampler

    class Grid(GridSampler):
        """As Optuna's, without stopping the study, and without asking for the grid's number of enqueued trials."""

        def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Any) -> None:
            """Nothing to do."""

    return Grid


def unseen(space: Space, seen: set[int], seed: int, told: int) -> Iterator[Assignment]:
    """Assignments that have not been tried, in random order: all that are left of a small space, draws from a large.

    Args:
        space: what to draw from.
        seen: the numbers (`Space.index`) of the assignments that were tried.
        seed: the search's.
        told: trials that have been told so far.
    """
    draw = random.Random(seed_of(seed, "unseen", told))
    if space.size <= ENUMERATION_LIMIT:
        left = [index for index in range(space.size) if index not in seen]
        draw.shuffle(left)
        yield from map(space.at, left)
        return
    drawn = set(seen)
    while len(drawn) < space.size:
        index = draw.randrange(space.size)
        if index not in drawn:
            drawn.add(index)
            yield space.at(index)
