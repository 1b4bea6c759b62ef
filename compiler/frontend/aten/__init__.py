"""How each ATen op that torch.export leaves becomes an op of the IR. One small function per family."""

from . import indexing, layers, make, norms, pieces, pointwise, pools, products, reduce, shapes
from .base import CONVERTERS, IDENTITIES, Call, Converted, Operand

FAMILIES = (indexing, layers, make, norms, pieces, pointwise, pools, products, reduce, shapes)
"""The modules whose import registers the converters."""

__all__ = ["CONVERTERS", "FAMILIES", "IDENTITIES", "Call", "Converted", "Operand"]
