"""ONNX Runtime on a CPU, on CUDA and through TensorRT as targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from ...ir import Encoding, Graph, Weights
from ...ir.formats import F8E5M2
from ...ir.layers import layers
from ..artifact import Artifact
from ..base import Array, Role, Signature, Support, TargetError
from ..cost import StaticCost, static_cost
from ..device_profile import DeviceProfile
from ..onnx import External, Foreign, emit
from ..onnx import style as styles
from ..onnx.float8 import mixed, unfit
from ..onnx.style import Style
from ..plan import Plan
from ..trace import Trace
from .device import missing_device
from .float8 import unused
from .floor import floor_model
from .formats import f8_product, f8_support, support
from .library import ort
from .profiler import trace
from .refusals import refuse_bf16, refuse_codes
from .rules import plan, plan_on_cuda
from .session import SESSION, OnnxRuntimeSession

CUDA_PROVIDER = "CUDAExecutionProvider"
TENSORRT_PROVIDER = "TensorrtExecutionProvider"


@dataclass(frozen=True)
class OnnxRuntime:
    """One execution provider of ONNX Runtime.

    Args:
        name: the target's name.
        provider: the execution provider.
        options: the provider's options.
        style: how it wants quantized values written.
        lanes: channels that it computes at once: widths that are multiples of it leave none of them idle.
    """

    name: str
    provider: str
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    style: Style = styles.ONNXRUNTIME
    lanes: int = 8

    @property
    def settings(self) -> Mapping[str, Any]:
        """The runtime and all that it is told when it loads a network, as plain data for a record."""
        return {
            "name": str(ort.package_name),
            "version": str(ort.__version__),
            "provider": self.provider,
            "provider_options": dict(self.options),
            **SESSION,
        }

    def unavailable(self) -> str | None:
        """Why this provider cannot run on this machine, or None if it can; tried once by starting it."""
        return _unavailable(self.provider)

    def supports(self, encoding: Encoding, role: Role) -> Support:
        """How the provider runs values of a format."""
        if self.provider == CUDA_PROVIDER and f8_product(encoding, role):
            return f8_support(self.float8_unused(encoding.format == F8E5M2))
        return support(self.provider, encoding, role)

    def plan(self, graph: Graph) -> Plan:
        """Which layers will run on integer kernels or as products of 8-bit floats, and what is missing where they will
        not."""
        if self.provider == CUDA_PROVIDER:
            return plan_on_cuda(graph, self.float8_unused)
        return plan(graph, self.supports)

    def float8_unused(self, mixed: bool = False) -> str:
        """Why products of 8-bit floats are not used here; empty: they are. Tried once by running some.

        Args:
            mixed: whether of `f8e4m3` with `f8e5m2`, or of `f8e4m3` alone.
        """
        if self.style.gemm_float8:
            return "the style leaves out those of two formats" if mixed and not self.style.mixed_float8 else ""
        if self.provider != CUDA_PROVIDER:
            return f"{self.provider} has none"
        return self.unavailable() or unused(self.provider, tuple(sorted(self.options.items())), mixed)

    def written(self, graph: Graph) -> Style:
        """How a graph is written: with products of 8-bit floats where it has layers for them and they hold here."""
        if self.provider != CUDA_PROVIDER or self.style.gemm_float8:
            return self.style
        pairs = [mixed(graph, layer) for layer in layers(graph) if not unfit(graph, layer)]
        if not pairs or self.float8_unused():
            return self.style
        return replace(self.style, gemm_float8=True, mixed_float8=any(pairs) and not self.float8_unused(mixed=True))

    def emit(
        self,
        graph: Graph,
        weights: Weights,
        metadata: Mapping[str, str] | None = None,
        *,
        location: str = "",
        foreign: Foreign | None = None,
        opset: int | None = None,
    ) -> Artifact:
        """The ONNX model, as it is best written for this device.

        Args:
            graph: a graph with all steps known.
            weights: its numbers.
            metadata: what to write into the model's `metadata_props`.
            location: name of a file beside the model for its large tensors; empty: they stay inside.
            foreign: gives ops without a rule as ONNX models of their own.
            opset: version of the operator set; None: the one that serves the graph best.

        Raises:
            EmissionError: an op that cannot be written, or not for this provider, or a step that is not known.
        """
        refuse_bf16(graph, self.supports)
        if self.provider == TENSORRT_PROVIDER:
            refuse_codes(graph, self.supports)
        external = External(location) if location else None
        style = self.written(graph)
        model = emit(graph, weights, opset=opset, metadata=metadata, style=style, external=external, foreign=foreign)
        tensors = tuple(external.parts) if external else ()
        return Artifact(self.name, model.SerializeToString(), location if tensors else "", tensors)

    def load(self, model: Artifact | Path | bytes, *, threads: int = 1, placed: bool = False) -> OnnxRuntimeSession:
        """The model at full optimisation, ready to run.

        Args:
            model: an artifact, a file, or a model's bytes.
            threads: threads within one op.
            placed: keep the optimised graph as well, for `placement`; costs some milliseconds.

        Raises:
            TargetError: ONNX Runtime refuses the model, or the provider does not start.
        """
        return OnnxRuntimeSession(model, (self.provider, self.options), threads=threads, placed=placed)

    def floor(self, model: Artifact | Path | bytes) -> bytes:
        """A model with the same inputs and as many nodes as really run, each doing nothing."""
        session = self.load(model, placed=True)
        return floor_model(session.inputs, len(session.placement().nodes))

    def cost(self, graph: Graph) -> StaticCost:
        """What the network costs by counting."""
        return static_cost(graph)

    def trace(
        self, model: Artifact | Path | bytes, inputs: Sequence[Array] | None = None, *, batch: int = 1,
        threads: int = 1, budget_s: float = 2.0,
    ) -> Trace:  # fmt: skip
        """Run the model with every node timed.

        Args:
            model: an artifact, a file, or a model's bytes.
            inputs: one array per input; None: made-up ones.
            batch: length of the batch axis of made-up inputs.
            threads: threads within one op.
            budget_s: time for the calls.

        Raises:
            TargetError: ONNX Runtime refuses the model, or the provider does not start.
        """
        return trace(model, (self.provider, self.options), inputs, batch=batch, threads=threads, budget_s=budget_s)

    def identity(self) -> tuple[str, str]:
        """The device's name, and the runtime with its version.

        Raises:
            MeterUnavailableError: a GPU that cannot be asked for its name.
        """
        from .calibration import identity

        return identity(self.provider)

    def calibrate(self, threads: int = 1) -> DeviceProfile:
        """What the device does at best through ONNX Runtime; takes about fifteen seconds.

        Raises:
            TargetError: the provider does not start.
        """
        from .calibration import calibrate

        return calibrate(self, (self.provider, self.options), threads)


CPU = OnnxRuntime("onnxruntime:cpu", "CPUExecutionProvider")

CUDA = OnnxRuntime(
    "onnxruntime:cuda",
    CUDA_PROVIDER,
    {"cudnn_conv_algo_search": "EXHAUSTIVE", "use_tf32": "1"},
    styles.CUDA,
)
"""Run on an NVIDIA H200; `docs/onnxruntime.md` says what was seen."""

TENSORRT = OnnxRuntime(
    "onnxruntime:tensorrt",
    TENSORRT_PROVIDER,
    {"trt_int8_enable": "1", "trt_fp16_enable": "1"},
    styles.TENSORRT,
    lanes=32,
)
"""Not yet run on a device."""


@lru_cache(maxsize=8)
def _unavailable(provider: str) -> str | None:
    if provider == "CPUExecutionProvider":
        return None
    if provider not in ort.get_available_providers():
        return f"the installed {ort.package_name} has no {provider}"
    if provider != "CPUExecutionProvider" and (missing := missing_device()):
        return missing
    probe = floor_model((Signature("x", "float32", (None, 1)),), 1)
    try:
        OnnxRuntimeSession(probe, (provider, {}), placed=False)
    except TargetError as error:
        return error.message
    return None
