"""Where in the user's code an op comes from."""

from __future__ import annotations

from .graph import Graph, Location, Op


def place(graph: Graph, op: Op) -> Location | None:
    """The user's line that an op stands for: its own, else that of the nearest op that reads its results.

    Weights and the ops that passes add have no lines of their own; they are there for what reads them. The nearest op
    before is taken where nothing behind has a line.
    """
    return op.location or _nearest(graph, op, behind=True) or _nearest(graph, op, behind=False)


def _nearest(graph: Graph, op: Op, *, behind: bool) -> Location | None:
    waiting, seen = [op], {op.name}
    for now in waiting:
        if now.location is not None:
            return now.location
        found = (
            [reader for name in now.results for reader in graph.readers.get(name, ())]
            if behind
            else [made for name in now.inputs if (made := graph.producers.get(name)) is not None]
        )
        waiting += [near for near in found if near.name not in seen]
        seen.update(near.name for near in found)
    return None
