"""The typed intermediate representation: graphs whose shapes are written in terms of widths. Standard library only."""

from .axes import Axes, Axis, Batch, Const, N, Product, Sum, Width, product, total, widths_in
from .digest import graph_digest, structure_digest
from .edit import reading, rebuilt, rewired, without_dead_code
from .errors import NascError, UsageError
from .formats import Format, format_named
from .graph import STORED, Attribute, Graph, Input, Location, Op, fresh_name
from .infer import Frozen, Inference, infer, is_ordered, ordered_graph
from .layers import aliases, chosen_layers, layers, operand, output_axis, width_named
from .parser import ParseError, parse, parse_axes, parse_encoding
from .printer import op_text, text
from .rules import SPECS, Fault, Spec, attributes
from .types import Encoding, Step, Type
from .verify import InvalidGraph, retype, verify
from .weights import Weights

__all__ = [
    "SPECS",
    "STORED",
    "Attribute",
    "Axes",
    "Axis",
    "Batch",
    "Const",
    "Encoding",
    "Fault",
    "Format",
    "Frozen",
    "Graph",
    "Inference",
    "Input",
    "InvalidGraph",
    "Location",
    "N",
    "NascError",
    "Op",
    "ParseError",
    "Product",
    "Spec",
    "Step",
    "Sum",
    "Type",
    "UsageError",
    "Weights",
    "Width",
    "aliases",
    "attributes",
    "chosen_layers",
    "format_named",
    "fresh_name",
    "graph_digest",
    "infer",
    "is_ordered",
    "layers",
    "op_text",
    "operand",
    "ordered_graph",
    "output_axis",
    "parse",
    "parse_axes",
    "parse_encoding",
    "product",
    "reading",
    "rebuilt",
    "retype",
    "rewired",
    "structure_digest",
    "text",
    "total",
    "verify",
    "width_named",
    "widths_in",
    "without_dead_code",
]
