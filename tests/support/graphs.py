"""Small graphs for tests, written as the lines that matter."""

from __future__ import annotations

from nasc.ir import Graph, parse


def graph_of(lines: str, inputs: str = "%x: f32[N, 16]", **widths: int) -> Graph:
    """A graph (not verified) from its ops and its return, which is the last op where it is left out."""
    rows = [row.strip() for row in lines.strip().splitlines()]
    if not rows[-1].startswith("return"):
        rows.append("return " + rows[-1].split(":")[0])
    header = [f"width ${name} = {size}" for name, size in widths.items()]
    body = "\n".join(f"  {row}" for row in [*header, *rows])
    return parse(f"nasc 1\ngraph @net({inputs}) {{\n{body}\n}}\n")
