"""The op kinds: operands, attributes and axis rules, one declaration each."""

from . import layers, norms, pointwise, shapes
from .base import REQUIRED, SPECS, Fault, Site, Spec, attributes

__all__ = ["REQUIRED", "SPECS", "Fault", "Site", "Spec", "attributes", "layers", "norms", "pointwise", "shapes"]
