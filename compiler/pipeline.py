"""Pipelines of passes as text: `resize{stem=24} | quantize{layers=fc*, weights=i4} | calibrate{method=mse}`."""

from __future__ import annotations

import time
from collections.abc import Callable
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
            InvalidGraph: a pass left an invalid graph; the message names the pass.
        """
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
        UsageError: an unknown pass or option, or a text that is no pipeline; says where.
    """
    return Pipeline(tuple(_parse_pass(part) for part in split(text, "|") if part))


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
