"""How each op kind runs in torch, by family."""

from . import indexing, layers, norms, pieces, pointwise, pools, products, reduce, shapes

FAMILIES = (indexing, layers, norms, pieces, pointwise, pools, products, reduce, shapes)
"""The modules whose import registers the kernels."""

__all__ = ["FAMILIES"]
