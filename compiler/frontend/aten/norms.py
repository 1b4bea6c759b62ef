"""Normalisations."""

from __future__ import annotations

from .base import Call, Converted, Operand, convert


@convert("batch_norm.default", "_native_batch_norm_legit_no_training.default")
def batch_norm(call: Call) -> Converted | None:
    """Batch norm with the statistics of training; with a single sample's own it is an instance norm.

    Weight standardisation is written so (timm's StdConv2d): a batch of one, whose channels are the weight's outputs.
    """
    if call.arguments.get("training") and call.tensor("input").shape[0] == 1:
        return Converted("instance_norm", call.nodes("input", "weight", "bias"), {"eps": float(call["eps"])}, results=1)
    if call.arguments.get("training") or len(call.nodes("running_mean", "running_var")) != 2:
        return None
    affine = call.nodes("weight", "bias")
    if len(affine) == 1 and call["weight"] is None:
        return None
    operands = (*call.nodes("input", "running_mean", "running_var"), *affine)
    return Converted("batch_norm", operands, {"eps": float(call["eps"])}, results=1)


@convert("_native_batch_norm_legit.no_stats")
def own_statistics(call: Call) -> Converted | None:
    """Batch norm with the statistics of a single sample, as weight standardisation is written."""
    if call.tensor("input").shape[0] != 1 or (call["weight"] is None and call["bias"] is not None):
        return None
    return Converted("instance_norm", call.nodes("input", "weight", "bias"), {"eps": float(call["eps"])}, results=1)


@convert("_weight_norm.default", "_weight_norm_interface.default")
def weight_norm(call: Call) -> Operand:
    """`v * (g / |v|)`, the length of v over all axes but `dim`."""
    v, g = call.nodes("v", "g")
    rank = call.tensor(v).dim()
    dims = tuple(d for d in range(rank) if d != call["dim"] % rank)
    length = Converted("norm", (v,), {"ord": 2.0, "dim": dims, "keepdim": True})
    return Converted("mul", (v, Converted("div", (g, length))), results=1)


@convert("layer_norm.default")
def layer_norm(call: Call) -> Converted | None:
    """Layer norm; one with a bias alone is split."""
    attributes = {"normalized_shape": tuple(call["normalized_shape"]), "eps": float(call["eps"])}
    if call["weight"] is None and call["bias"] is not None:
        return Converted("add", (Converted("layer_norm", call.nodes("input"), attributes), call["bias"]))
    return Converted("layer_norm", call.nodes("input", "weight", "bias"), attributes)


@convert("rms_norm.default")
def rms_norm(call: Call) -> Converted:
    """Root-mean-square norm."""
    eps = None if call["eps"] is None else float(call["eps"])
    return Converted(
        "rms_norm", call.nodes("input", "weight"), {"normalized_shape": tuple(call["normalized_shape"]), "eps": eps}
    )


@convert("group_norm.default")
def group_norm(call: Call) -> Converted | None:
    """Group norm."""
    if call["weight"] is None and call["bias"] is not None:
        return None
    attributes = {"num_groups": call["num_groups"], "eps": float(call["eps"])}
    return Converted("group_norm", call.nodes("input", "weight", "bias"), attributes)


@convert("instance_norm.default")
def instance_norm(call: Call) -> Converted | None:
    """Instance norm; with running statistics, which inference then uses, it is a batch norm."""
    if call["weight"] is None and call["bias"] is not None:
        return None
    if not call["use_input_stats"]:
        operands = call.nodes("input", "running_mean", "running_var", "weight", "bias")
        return Converted("batch_norm", operands, {"eps": float(call["eps"])}) if len(operands) > 2 else None
    return Converted("instance_norm", call.nodes("input", "weight", "bias"), {"eps": float(call["eps"])})
