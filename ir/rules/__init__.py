"""The op kinds: operands, attributes and axis rules, one declaration each."""

from . import indexing, layers, norms, pieces, pointwise, products, reduce, resample, shapes
from .base import REQUIRED, SPECS, Fault, Site, Spec, attributes, encodings

FAMILIES = (indexing, layers, norms, pieces, pointwise, products, reduce, resample, shapes)
"""The modules whose import declares the kinds."""

__all__ = ["FAMILIES", "REQUIRED", "SPECS", "Fault", "Site", "Spec", "attributes", "encodings"]
