"""Why a search found no network that keeps its constraints: what ended the candidates, and how near they came."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from .figures import value_text
from .objectives import Constraint
from .records import Record

SHOWN = 3
"""Reasons that are told."""


def why(records: Sequence[Record], constraints: Sequence[Constraint]) -> str:
    """The commonest reasons why candidates ended, the nearest to each constraint among those it ended, and a mend."""
    paid = [r for r in records if r.paid]
    counts = Counter(r.reason.split(":")[0] for r in paid if r.reason)
    if not counts:
        return "Give the search more trials."
    listed = ", ".join(f"{reason} ({'once' if n == 1 else f'{n} times'})" for reason, n in counts.most_common(SHOWN))
    told = [said for c in constraints if (said := nearest(paid, c))]
    return " ".join([f"They ended because of: {listed}.", *told])


def nearest(records: Sequence[Record], constraint: Constraint) -> str | None:
    """Which candidate missed a constraint by the least, and what helps; None where none missed it."""
    name = str(constraint)
    missed = [r for r in records if r.violations.get(name, 0.0) > 0]
    if not missed:
        return None
    best = min(missed, key=lambda r: (r.violations[name], r.number))
    value = value_text(constraint.metric, best.figures[constraint.metric.name].value)
    offer = "more bits (--space) or training (--train-epochs)"
    if not constraint.metric.is_quality:
        offer = "fewer bits (--space) or smaller layers (--widths)"
    return (
        f"Nearest to {name} of those that miss it comes trial {best.label} with {value}: loosen the constraint, or "
        f"offer {offer}."
    )
