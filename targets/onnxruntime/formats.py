"""Which formats ONNX Runtime computes in, which it only stores, and which it refuses."""

from __future__ import annotations

from ...ir import Encoding, Format
from ...ir.formats import BF16, BINARY, F16, F32, F64
from ..base import Role, Support
from ..onnx.float8 import FORMATS, MULTIPLE

NO_INTEGERS = "the CUDA provider has no integer convolutions or products: it computes in float"

NO_F8 = "f8 products are not used"


def f8_product(encoding: Encoding, role: Role) -> bool:
    """Whether an encoding is one that products of 8-bit floats take: one step in all, or one per output of a weight."""
    step = encoding.step
    if step is None or step.block is not None or encoding.format not in FORMATS:
        return False
    return step.axis is None if role == "activation" else role == "weight" and step.axis in (None, 0)


def f8_support(unused: str) -> Support:
    """How the CUDA provider runs 8-bit floats.

    Args:
        unused: why their products are not used; empty: they are.
    """
    if unused:
        return Support("float", f"stored in 8 bits, computed in float; {NO_F8}: {unused}")
    return Support("native", f"f8 products in linear layers whose input and weight are f8, by multiples of {MULTIPLE}")


def support(provider: str, encoding: Encoding, role: Role) -> Support:
    """How an execution provider runs values of an encoding in a role."""
    if encoding.step is not None and (encoding.step.block or not encoding.integer):
        return _numbers(provider, encoding, role)
    if encoding.step is not None:
        return _integers(provider, encoding, role)
    if encoding.format in (F32, F64):
        return Support("native", "computed as it is")
    if encoding.format == F16:
        if provider == "CPUExecutionProvider":
            return Support("float", "stored in 16 bits, computed in 32: the CPU provider has no faster kernels")
        return Support("native", "computed on half-precision units")
    if encoding.format == BF16 and provider != "CPUExecutionProvider":
        return Support("native", "computed on half-precision units")
    if encoding.format == BF16 and role == "weight":
        return Support("float", "stored in 16 bits, read into 32")
    return Support("no", f"{provider} has no kernels for {encoding.format}")


def _numbers(provider: str, encoding: Encoding, role: Role) -> Support:
    """Formats and blocks that only change what is stored, or only what the numbers are: nothing computes in them."""
    format, block = encoding.format, encoding.step.block if encoding.step else None
    if provider == "TensorrtExecutionProvider" and (format.is_int or format.is_float):
        return Support("no", "not written for TensorRT yet")
    if format.is_float and not block:
        return Support("float", "stored in 8 bits, computed in float")
    if role == "activation":
        return Support("no", f"ONNX has no values of format {encoding} between ops")
    if format.is_int or format.is_float:
        return Support("float", "stored in its bits with a step per block, computed in float")
    if provider == "TensorrtExecutionProvider":
        return Support("float", "written as numbers already rounded to it: for accuracy and counted sizes only")
    return Support("float", "stored in its bits, computed in float")


def _integers(provider: str, encoding: Encoding, role: Role) -> Support:
    format = encoding.format
    if provider == "CUDAExecutionProvider":
        return Support("float", NO_INTEGERS)
    if role == "bias":
        return _bias(format)
    if format.family == "sign" and role == "activation":
        return _signs(encoding)
    if role == "weight" and not encoding.multiplied:
        return _asymmetric(provider, encoding)
    if format.bits > 8:
        return Support("float", f"there are no kernels for {format}: codes are read back into floats, which is slower")
    if encoding.step is not None and encoding.step.axis is not None and role == "activation":
        return Support("float", "integer kernels take one step for a whole activation")
    if provider == "TensorrtExecutionProvider":
        return _tensorrt(encoding)
    container = format if format.bits == 8 else ("i8" if format.signed else "u8")
    slow = "" if format.signed == (role == "weight") else "; u8 activations with i8 weights are faster"
    if format.bits == 8:
        return Support("native", f"integer kernels{slow}")
    return Support("container", f"exact codes in {container}, at its speed{slow}")


def _asymmetric(provider: str, encoding: Encoding) -> Support:
    if provider == "TensorrtExecutionProvider":
        return Support("no", "TensorRT takes integers whose zero is 0")
    return Support("float", f"stored in {encoding.format.bits} bits, computed in float: its zero is not 0")


def _signs(encoding: Encoding) -> Support:
    if encoding.format == BINARY:
        return Support("no", "ONNX has no rounding to two values")
    return Support("float", "exact codes in i8 that no integer kernel takes: read back into floats")


def _bias(format: Format) -> Support:
    if format.bits == 32:
        return Support("native", "added to the sums of products as it is")
    return Support("container", "written as i32 codes in the step of the products by `legalize`, at their cost")


def _tensorrt(encoding: Encoding) -> Support:
    format, step = encoding.format, encoding.step
    if not format.signed or (step is not None and step.zero != 0):
        return Support("no", "TensorRT takes signed integers whose zero is 0")
    return Support("native" if format.bits == 8 else "container", "integer kernels")
