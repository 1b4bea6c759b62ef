"""Pipelines of passes as text: `resize{stem=24} | quantize{layers=fc*, weights=i4} | calibrate{method=mse}`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from ..ir import InvalidGraph, UsageError, verify
from ..ir.errors import did_you_mean
from .network import Network
from .passes import PASSES, Context, Pass
from .passes.base import split

Observer = Callable[[int, Pass, Network, float], None]
"""Called after each pass with its index, the pass, the network it left, and the seconds it took."""


@dataclass(frozen=True)
class Pipeline:
    """Passes in order. `str` gives the canonical text: options in the order of the pass, defaults left out."""

    passes: tuple[Pass, ...]

    def __str__(self) -> str:
        return " | ".join(map(str, self.passes))

    def complete(self) -> str:
        """The text with all defaults filled in: what digests are taken of."""
        return " | ".join(p.text(complete=True) for p in self.passes)

    def __add__(self, other: Pipeline) -> Pipeline:
        return Pipeline(self.passes + other.passes)

    def split(self) -> tuple[Pipeline, Pipeline]:
        """The passes before the first that needs data, and the rest."""
        at = next((i for i, p in enumerate(self.passes) if p.needs_data), len(self.passes))
        return Pipeline(self.passes[:at]), Pipeline(self.passes[at:])

    def run(self, network: Network, context: Context, *, observe: Observer | None = None) -> Network:
        """Apply the passes in order, and verify the graph after each.

        Raises:
            PassError: a pass refuses the network.
            UsageError: the passes cannot stand in this order; nothing has run.
            InvalidGraph: a pass left an invalid graph; the message names the pass.
        """
        expect_order(self.passes, rounded=network.graph.quantized)
        if context.source is None:
            context = replace(context, source=network)
        for index, step in enumerate(self.passes):
            start = time.perf_counter()
            before = network.graph
            try:
                network = step.run(network, context)
            except InvalidGraph as error:
                raise InvalidGraph(error.faults, after=str(step)) from error
            if network.graph is not before:
                verify(network.graph, after=str(step))
            if observe:
                observe(index, step, network, time.perf_counter() - start)
        return network


def parse_pipeline(text: str) -> Pipeline:
    """Read a pipeline.

    Raises:
        UsageError: an unknown pass or option, a text that is no pipeline, or passes in an order that no network allows;
            says where.
    """
    if not text.strip():
        return Pipeline(())
    parts = list(split(text, "|"))
    if not all(parts):
        place = "ends with" if not parts[-1] else "begins with" if not parts[0] else "has nothing between two"
        raise UsageError(f"pipeline: {text.strip()!r} {place} '|'", mend="Write PASS | PASS, or leave the '|' out.")
    passes = tuple(map(_parse_pass, parts))
    expect_order(passes)
    return Pipeline(passes)


def expect_order(passes: Iterable[Pass], *, rounded: bool = False) -> None:
    """Refuse passes that need the real-numbered network behind a `train` that leaves none.

    Args:
        passes: in order.
        rounded: whether the network that they start from is quantized.

    Raises:
        UsageError: there is one; names both.
    """
    trained: Pass | None = None
    for step in passes:
        rounded = rounded or step.name == "quantize"
        if step.name == "train" and rounded:
            trained = step
        if trained is not None and step.needs_real_numbers:
            raise UsageError(
                f"pipeline: {step} stands behind {trained}, which trains with the rounding in place and leaves no"
                " real-numbered network to compare with",
                mend=f"Put `{step.name}` before `train`, which starts from what it mends, or leave it out.",
            )


def _parse_pass(text: str) -> Pass:
    name, brace, rest = text.partition("{")
    name = name.strip()
    if brace and not rest.endswith("}"):
        raise UsageError(f"pipeline: {text!r} lacks its closing brace", mend="Write NAME{OPTION=VALUE, …}.")
    if name not in PASSES:
        raise UsageError(f"pipeline: there is no pass {name!r}", mend=did_you_mean(name, sorted(PASSES)))
    options: dict[str, str] = {}
    for part in split(rest[:-1], ",") if rest[:-1].strip() else ():
        key, equals, value = part.partition("=")
        key = key.strip()
        if not equals or not key or not value.strip():
            raise UsageError(f"pipeline: {name}: expected OPTION=VALUE, found {part!r}")
        if key in options:
            raise UsageError(f"pipeline: {name}: the option {key!r} is given twice")
        options[key] = value.strip()
    return PASSES[name].of(options)
