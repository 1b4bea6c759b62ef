"""Ops without a rule (`aten.*`) as ONNX, through PyTorch's own library of ONNX functions (torch.onnx, onnxscript).

Emission knows no torch: who wires compiler and targets together hands it `onnx_of`, and emission asks that for one
small model per op, whose nodes it takes over.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from functools import lru_cache
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.export import Dim

from ..ir import Attribute, Axis, NascError, Op, Type
from ..ir.axes import Batch, factors, has_batch, size
from ..ir.graph import is_axis
from .execution import aten, called
from .frontend.export import SMALLEST_HINT
from .weights import container


class ForeignError(NascError):
    """PyTorch has no ONNX function for an op, or not for these arguments."""


class OneOp(nn.Module):
    """A module that computes one op from its operands.

    Args:
        op: the op.
        types: the types of its operands; all widths are numbers.
    """

    def __init__(self, op: Op, types: Sequence[Type]) -> None:
        super().__init__()
        self.op = op
        aten(op)
        found = [(i, j) for i, t in enumerate(types) for j, a in enumerate(t.axes) if is_multiple(a)]
        self.source = found[0] if found else None
        self.rest = size(types[found[0][0]].axes[found[0][1]], {}, 1) if found else 1

    def forward(self, *inputs: Tensor) -> Any:
        """The op's results; terms in its arguments follow the batch of the operands."""
        batch = 1 if self.source is None else inputs[self.source[0]].shape[self.source[1]] // self.rest

        def length(value: Attribute) -> Any:
            if not is_axis(value):
                return value
            if has_batch(cast(Axis, value)) and self.source is None:
                raise ForeignError(f"error: {self.op.kind} %{self.op.name}: no operand says how long the batch is")
            return size(cast(Axis, value), {}, batch)

        return called(self.op, list(inputs), length)


def is_multiple(axis: Axis) -> bool:
    """Whether an axis is the batch, or a multiple of it."""
    return sum(isinstance(f, Batch) for f in factors(axis)) == 1


def onnx_of(op: Op, types: Sequence[Type], opset: int) -> bytes:
    """One op as an ONNX model with its operands as inputs and its results as outputs, both in order.

    Args:
        op: an `aten.*` op; widths in its arguments are numbers.
        types: the types of its operands, without widths or steps.
        opset: version of the operator set.

    Raises:
        ForeignError: PyTorch has no ONNX function for it.
    """
    return _exported(replace(op, location=None), tuple(types), opset)


@lru_cache(maxsize=256)
def _exported(op: Op, types: tuple[Type, ...], opset: int) -> bytes:
    module = OneOp(op, types)
    examples = tuple(_example(t) for t in types)
    dynamic = tuple({i: Dim.DYNAMIC for i, a in enumerate(t.axes) if has_batch(a)} for t in types)
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            program: Any = torch.onnx.export(
                module, examples, dynamo=True, dynamic_shapes=(dynamic,), opset_version=opset, verbose=False
            )
        except Exception as error:  # the exporter raises whatever its functions and torch.export raise
            line = next((x.strip() for x in str(error).splitlines() if x.strip()), type(error).__name__)
            raise ForeignError(
                f"error: {op.kind} %{op.name}: PyTorch cannot write this op as ONNX: {line}",
                mend="Replace the op in the model, or give emission an emitter for it (`custom`).",
            ) from error
    return program.model_proto.SerializeToString()


def _example(type: Type) -> Tensor:
    """Numbers of a type: floats drawn at random, integers 0, truths false."""
    shape = [size(a, {}, SMALLEST_HINT) for a in type.axes]
    format = container(type.format)
    return torch.rand(shape, dtype=format) if format.is_floating_point else torch.zeros(shape, dtype=format)
