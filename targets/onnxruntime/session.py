"""A model loaded by ONNX Runtime at full optimisation, ready to run and to be timed."""

from __future__ import annotations

import contextlib
import ctypes
import io
import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..artifact import Artifact
from ..base import Array, Inputs, Signature, TargetError
from ..inputs import is_number, number
from ..plan import Node, Placement
from .elements import DTYPES, element_of, is_numpys
from .library import REFUSALS, ort
from .ranks import unranked

Provider = tuple[str, Mapping[str, Any]]

SMALL_FILE = {
    "session.optimized_model_external_initializers_file_name": "tensors",
    "session.optimized_model_external_initializers_min_size_in_bytes": "1024",
}
"""Keeps the tensors out of the optimised model's file, which is read for its nodes alone."""

SESSION: Mapping[str, Any] = {"optimization": "all", "execution": "sequential", "inter_op_threads": 1}
"""What every session is set to, for records of measurements."""

SILENT, WARNINGS = 4, 2
"""Severities of ONNX Runtime's log; what it prints while a session fails to start stands in the error as well."""


class OnnxRuntimeSession:
    """A loaded model.

    Args:
        model: the model.
        provider: the execution provider that is to run it, with its options; the CPU runs what it cannot.
        threads: threads within one op; ops run one after the other.
        placed: also keep the optimised graph, for `placement`; costs some milliseconds.
        traced: a folder where the runtime is to note the time of every node, for `trace`; calls take longer then.

    Raises:
        TargetError: the runtime refuses the model, or the provider did not start.
    """

    def __init__(
        self,
        model: Artifact | Path | bytes,
        provider: Provider = ("CPUExecutionProvider", {}),
        *,
        threads: int = 1,
        placed: bool = True,
        traced: Path | None = None,
    ) -> None:
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = SILENT
        if traced is not None:
            options.enable_profiling = True
            options.profile_file_prefix = str(traced / "trace")
        self._optimized: bytes = b""
        self._kept = _external(options, model) if isinstance(model, Artifact) else []
        given = model.model if isinstance(model, Artifact) else model
        if not placed:
            self._session = _open(given, options, provider)
        else:
            with tempfile.TemporaryDirectory(prefix="nasc-") as folder:
                options.optimized_model_filepath = str(Path(folder) / "optimized.onnx")
                for key, value in SMALL_FILE.items():
                    options.add_session_config_entry(key, value)
                if provider[0] != "CPUExecutionProvider":
                    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
                self._session = _open(given, options, provider)
                self._optimized = Path(options.optimized_model_filepath).read_bytes()
        self._provider = provider[0]
        self._inputs = _inputs(self._session, model)
        self._outputs = tuple(map(_signature, self._session.get_outputs()))
        self._names = [o.name for o in self._outputs]
        self._plain = all(is_numpys(number(s)) for s in (*self._inputs, *self._outputs) if is_number(s))

    @property
    def inputs(self) -> tuple[Signature, ...]:
        """What the model reads, in order."""
        return self._inputs

    @property
    def outputs(self) -> tuple[Signature, ...]:
        """What the model gives, in order."""
        return self._outputs

    @property
    def metadata(self) -> Mapping[str, str]:
        """What the model's file says of itself."""
        return dict(self._session.get_modelmeta().custom_metadata_map)

    def run(self, inputs: Inputs) -> list[Array]:
        """The outputs for some inputs.

        Raises:
            TargetError: the inputs do not fit the model, or the runtime fails on them.
        """
        return self._run(self._feed(inputs))

    def _run(self, feed: Mapping[str, Array]) -> list[Array]:
        try:
            if self._plain:
                return [np.asarray(value) for value in self._session.run(self._names, feed)]
            values = {name: _value(array, "cpu") for name, array in feed.items()}
            return _arrays(self._session.run_with_ort_values(self._names, values), self._outputs)
        except REFUSALS as error:
            raise TargetError(f"ONNX Runtime fails to run the model: {error}") from error

    def bind(self, inputs: Inputs) -> Bound:
        """A call that runs the model from and into buffers made beforehand, on the provider's device.

        Raises:
            TargetError: the inputs do not fit the model, or the runtime fails on them; an input or output is no tensor
                of numbers.
        """
        for what, signatures in (("input", self._inputs), ("output", self._outputs)):
            for signature in signatures:
                number(signature, what)
        feed = self._feed(inputs)
        shapes = [(o.shape, o.dtype) for o in self._run(feed)]
        device = "cpu" if self._provider == "CPUExecutionProvider" else "cuda"
        binding = self._session.io_binding()
        for name, array in feed.items():
            binding.bind_ortvalue_input(name, _value(array, device))
        for name, (shape, dtype) in zip(self._names, shapes, strict=True):
            binding.bind_ortvalue_output(name, _buffer(shape, dtype, device))
        return Bound(self._session, binding, self._outputs, plain=self._plain)

    def placement(self) -> Placement:
        """The nodes of the optimised model in order, and the provider of each.

        Raises:
            TargetError: the session was made without `placed`.
        """
        import onnx

        model = onnx.load_from_string(self.optimized)
        assigned = {} if self._provider == "CPUExecutionProvider" else self._assigned()
        default = self._provider if self._provider == "CPUExecutionProvider" else "unknown"
        return Placement(tuple(Node(n.name, n.op_type, assigned.get(n.name, default)) for n in model.graph.node))

    @property
    def optimized(self) -> bytes:
        """The optimised model without its larger tensors.

        Raises:
            TargetError: the session was made without `placed`.
        """
        if not self._optimized:
            raise TargetError("this session did not keep its optimised graph", mend="Load the model with placed=True.")
        return self._optimized

    def trace(self) -> str:
        """What the runtime noted of every call of a session with `traced`, as JSON (Chrome's trace events); ends it."""
        return Path(self._session.end_profiling()).read_text(encoding="utf-8")

    def _assigned(self) -> Mapping[str, str]:
        """The provider of each node, as the runtime recorded it when it divided the graph."""
        parts = self._session.get_provider_graph_assignment_info()
        return {node.name: part.ep_name for part in parts for node in part.get_nodes()}

    def _feed(self, inputs: Inputs) -> dict[str, Array]:
        """The inputs by name, checked against the model's: contiguous, of its element types and lengths."""
        if isinstance(inputs, Mapping):
            missing = [s.name for s in self.inputs if s.name not in inputs]
            if missing or len(inputs) != len(self.inputs):
                expected = ", ".join(s.name for s in self.inputs)
                raise TargetError(f"the model reads {expected}; found {', '.join(inputs) or 'nothing'}")
            arrays = [inputs[s.name] for s in self.inputs]
        else:
            arrays = list(inputs)
        if len(arrays) != len(self.inputs):
            raise TargetError(f"the model reads {len(self.inputs)} inputs, found {len(arrays)}")
        return {s.name: _fitting(s, np.asarray(a)) for s, a in zip(self.inputs, arrays, strict=True)}


class Bound:
    """A model with its inputs and outputs in place; a call runs it and returns when the outputs are there."""

    __slots__ = ("_binding", "_outputs", "_plain", "_run")

    def __init__(self, session: Any, binding: Any, outputs: Sequence[Signature], *, plain: bool) -> None:
        self._run = session.run_with_iobinding
        self._binding = binding
        self._outputs = outputs
        self._plain = plain

    def __call__(self) -> None:
        self._run(self._binding)

    def outputs(self) -> list[Array]:
        """The outputs of the last call."""
        if self._plain:
            return [np.asarray(value) for value in self._binding.copy_outputs_to_cpu()]
        return _arrays(self._binding.get_outputs(), self._outputs)


def _fitting(signature: Signature, array: Array) -> Array:
    if array.dtype.name != signature.dtype:
        raise TargetError(f"input {signature.name} is {signature.dtype}, found {array.dtype}")
    expected = signature.shape
    if not signature.ranked:
        return np.ascontiguousarray(array)
    if len(array.shape) != len(expected) or any(
        n is not None and n != m for n, m in zip(expected, array.shape, strict=True)
    ):
        shown = signature.type.removeprefix(signature.dtype)
        raise TargetError(f"input {signature.name} has the shape {shown}, found {list(array.shape)}")
    return np.ascontiguousarray(array)


def _inputs(session: Any, model: Artifact | Path | bytes) -> tuple[Signature, ...]:
    """What a session reads; the file is asked whether what the runtime shows as a scalar is one."""
    found = tuple(map(_signature, session.get_inputs()))
    if all(signature.shape for signature in found):
        return found
    open_ranks = unranked(model)
    return tuple(replace(s, ranked=s.name not in open_ranks) for s in found)


def _signature(entry: Any) -> Signature:
    name = str(entry.type).removeprefix("tensor(").removesuffix(")")
    if name.count("(") != name.count(")"):  # seq(tensor(float)), which lost one
        name = str(entry.type)
    shape = tuple(n if isinstance(n, int) else None for n in entry.shape)
    symbols = tuple(n if isinstance(n, str) else "" for n in entry.shape)
    return Signature(entry.name, DTYPES.get(name, name), shape, symbols)


def _value(array: Array, device: str) -> Any:
    """An array on a device, as the runtime holds it; it knows the types of `ml_dtypes`, but not in arrays."""
    if is_numpys(array.dtype):
        return ort.OrtValue.ortvalue_from_numpy(array, device, 0)
    value = _buffer(array.shape, array.dtype, device)
    value.update_inplace(_plain(array))
    return value


def _buffer(shape: Sequence[int], dtype: Any, device: str) -> Any:
    """Room for an array on a device."""
    element = dtype.type if is_numpys(dtype) else element_of(dtype.name)
    return ort.OrtValue.ortvalue_from_shape_and_type(list(shape), element, device, 0)


def _arrays(values: Sequence[Any], signatures: Sequence[Signature]) -> list[Array]:
    """What the runtime holds, as arrays.

    Raises:
        TargetError: a value of a type of `ml_dtypes` lies on another device than the processor.
    """
    found: list[Array] = []
    for value, signature in zip(values, signatures, strict=True):
        dtype = number(signature, "output")
        if is_numpys(dtype):
            found.append(np.asarray(value.numpy()))
            continue
        if value.device_name() != "cpu":
            raise TargetError(f"output {signature.name} is {dtype} on {value.device_name()} and cannot be read there")
        shape = tuple(value.shape())
        copied = ctypes.string_at(value.data_ptr(), math.prod(shape) * dtype.itemsize)
        found.append(np.frombuffer(copied, dtype).reshape(shape))
    return found


def _external(options: Any, artifact: Artifact) -> list[Any]:
    """Hand the tensors beside an artifact's model to the runtime as they lie in memory; keep the result alive."""
    values = [
        ort.OrtValue.ortvalue_from_numpy_with_onnx_type(_plain(tensor.array), tensor.element)
        for tensor in artifact.tensors
    ]
    if values:
        options.add_external_initializers([tensor.name for tensor in artifact.tensors], values)
    return [*artifact.tensors, *values]


def _plain(array: Array) -> Array:
    """An array of a type that numpy knows, with the same bytes."""
    return array if is_numpys(array.dtype) else array.view(f"u{array.dtype.itemsize}")


def _open(model: Path | bytes, options: Any, provider: Provider) -> Any:
    """A session on a provider, without a silent step down to another.

    Raises:
        TargetError: the file is missing, the runtime refuses the model, or the provider did not start.
    """
    if isinstance(model, os.PathLike) and not Path(model).is_file():
        raise TargetError(f"there is no model at {model}")
    given = str(model) if isinstance(model, os.PathLike) else model
    try:
        if provider[0] == "CPUExecutionProvider":
            session = ort.InferenceSession(given, options, providers=[provider])
        else:
            session = _on_device(given, options, provider)
    except REFUSALS as error:
        lacks = "Could not find an implementation" in str(error)
        mend = "It has no kernel for the format of these values: convert them to f32." if lacks else None
        raise TargetError(f"ONNX Runtime refuses the model: {error}", mend=mend) from error
    if provider[0] not in session.get_providers():
        raise TargetError(
            f"ONNX Runtime could not start {provider[0]}; it would have run on {', '.join(session.get_providers())}",
            mend="`nasc targets` says what this machine has.",
        )
    return session


def _on_device(model: str | bytes, options: Any, provider: Provider) -> Any:
    """A session on another provider than the CPU's, without what a provider that does not start prints.

    CUDA's libraries are loaded from the packages that PyTorch brings, as ONNX Runtime's documentation asks.
    """
    ort.set_default_logger_severity(SILENT)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            ort.preload_dlls()
            return ort.InferenceSession(model, options, providers=[provider, "CPUExecutionProvider"])
    finally:
        ort.set_default_logger_severity(WARNINGS)
