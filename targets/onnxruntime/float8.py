"""Whether ONNX Runtime's products of 8-bit floats hold on this device: small networks, run and compared with numpy.

Their kernel exists where the runtime was built with it and runs where the device has units for it, and neither says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from textwrap import shorten
from typing import Any, Protocol

import numpy as np

from ...ir import Graph, parse
from ..base import Array, Inputs
from ..onnx import emit
from ..onnx.elements import element
from ..onnx.style import Style
from .device import compute_capability
from .session import OnnxRuntimeSession

LEAST = (8, 9)
"""The compute capability from which on NVIDIA's devices multiply 8-bit floats (cuBLAS, "8-bit Floating Point Data Types
Usage")."""
ROWS = (32, 1, 5)
"""Lengths of the batch that are tried: it is the one length that need not be a multiple of anything."""
ACCURACY = 2.0**-7
"""Largest error over the sum of the products' magnitudes. Fast accumulation keeps some 13 bits behind the largest of 32
products, so that these are off by 2^-8 of it at most; with another layout or scale they are off by a large part of it.
"""
SINGLE = (("f8e4m3", "f8e4m3"),)
MIXED = (("f8e4m3", "f8e5m2"), ("f8e5m2", "f8e4m3"))
"""Formats of inputs and weights."""
SHOWN = 400
"""Characters of the runtime's message."""
INPUT_STEP, WEIGHT_STEP = 0.25, 0.375
"""Different ones, that a scale which is not used shows."""


class Runs(Protocol):
    """What is asked of a loaded network."""

    def run(self, inputs: Inputs) -> list[Array]:
        """The outputs for some inputs."""
        ...


@lru_cache(maxsize=8)
def unused(provider: str, options: tuple[tuple[str, Any], ...], mixed: bool) -> str:
    """Why products of 8-bit floats are not used on the device of a provider; empty: they are. Tried once per process.

    Args:
        provider: the execution provider, which must be available.
        options: its options.
        mixed: whether of `f8e4m3` with `f8e5m2`, or of `f8e4m3` alone.
    """
    if mixed and (why := unused(provider, options, False)):
        return why
    found = compute_capability()
    if found is not None and found < LEAST:
        return f"the device has compute capability {found[0]}.{found[1]}, they need {LEAST[0]}.{LEAST[1]}"

    def load(model: bytes) -> Runs:
        return OnnxRuntimeSession(model, (provider, dict(options)), placed=False)

    return probe(load, MIXED if mixed else SINGLE)


def probe(load: Callable[[bytes], Runs], pairs: Sequence[tuple[str, str]] = SINGLE) -> str:
    """Run small networks and compare; empty: all gave the right numbers, else what went wrong.

    Args:
        load: opens a model.
        pairs: formats of inputs and weights.
    """
    for pair in pairs:
        if why := _probed(load, *pair):
            return f"{' x '.join(pair)}: {why}"
    return ""


def _probed(load: Callable[[bytes], Runs], inputs: str, weights: str) -> str:
    graph = network(inputs, weights)
    numbers = Numbers(graph)
    model = emit(graph, numbers, style=Style(gemm_float8=True)).SerializeToString()
    try:
        session = load(model)
        found = [session.run([numbers.rows(rows)]) for rows in ROWS]
    except Exception as error:  # the runtime's own errors have no base in common; whatever happens is a reason
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        return f"the runtime fails: {shorten(said, SHOWN, placeholder=' ...')}"
    for rows, results in zip(ROWS, found, strict=True):
        for name, result in zip(graph.outputs, results, strict=True):
            worst = numbers.error(name, rows, result)
            if not worst <= ACCURACY:
                return f"the runtime's results for {rows} rows are off by {worst:.2g} of their terms"
    return ""


def network(inputs: str, weights: str) -> Graph:
    """Three layers: with one step and a bias, with a step per output, and over more than two axes."""
    return parse(f"""nasc 1
graph @float8(%x: f32[N, 64]) {{
  %q: {inputs}<{INPUT_STEP}>[N, 64] = quantize %x
  %a.w: {weights}<{WEIGHT_STEP}>[48, 64] = weight
  %a.b: f32[48] = weight
  %a: f32[N, 48] = linear %q, %a.w, %a.b
  %b.w: {weights}<per 0>[16, 64] = weight
  %b: f32[N, 16] = linear %q, %b.w
  %z: f32[N, 2, 32] = reshape %x {{shape=[N, 2, 32]}}
  %z.q: {inputs}<{INPUT_STEP}>[N, 2, 32] = quantize %z
  %c.w: {weights}<{WEIGHT_STEP}>[32, 32] = weight
  %c: f32[N, 2, 32] = linear %z.q, %c.w
  return %a, %b, %c
}}""")


class Numbers:
    """Random numbers for a probe; implements `nasc.ir.Weights`.

    Args:
        graph: see `network`.
    """

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        random = np.random.default_rng(0)
        codes = element(graph.types["a.w"].format)[1]
        self._arrays: Mapping[str, Array] = {
            "a.w": random.normal(0, 1, (48, 64)).astype(codes),
            "a.b": random.normal(0, 1, 48).astype(np.float32),
            "b.w": random.normal(0, 1, (16, 64)).astype(codes),
            "c.w": random.normal(0, 1, (32, 32)).astype(codes),
        }
        self._steps = random.uniform(0.5, 1.5, 16).astype(np.float32)
        self._codes = random.normal(0, 1, (max(ROWS), 64)).astype(element(graph.types["q"].format)[1])

    def array(self, name: str) -> Array:
        """Codes, or a bias."""
        return self._arrays[name]

    def steps(self, name: str) -> Array:
        """The steps of the second layer's outputs."""
        return self._steps

    def zeros(self, name: str) -> Any:
        """8-bit floats have none."""
        raise KeyError(name)

    def rows(self, count: int) -> Array:
        """An input that its quantize gives codes for without an error."""
        return self._codes[:count].astype(np.float32) * np.float32(INPUT_STEP)

    def error(self, name: str, rows: int, found: Array) -> float:
        """The largest error of a layer's result, over the sum of the magnitudes of its terms; no number if it has none
        itself, infinite if its shape is another."""
        weight = self._arrays[f"{name}.w"].astype(np.float64)
        weight *= self._steps[:, None] if name == "b" else WEIGHT_STEP
        given = self.rows(rows).astype(np.float64).reshape(-1, weight.shape[1])
        bias = self._arrays["a.b"] if name == "a" else 0.0
        shape = (rows, 2, 32) if name == "c" else (rows, weight.shape[0])
        if found.shape != shape:
            return float("inf")
        off = np.abs(found.reshape(-1, weight.shape[0]) - (given @ weight.T + bias))
        return float((off / (np.abs(given) @ np.abs(weight.T))).max())
