"""Remove residual branches: a network of fewer blocks."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ...ir import Graph, Op, UsageError, reading, rebuilt
from ...ir.errors import did_you_mean
from ..analyses.branches import Branch, branches, matches
from ..network import Network
from .base import Context, Pass, PassError, register


@register("drop")
@dataclass(frozen=True)
class Drop(Pass):
    """Let what a residual branch adds go, with all that only it needs: `drop{block=[layer1.1, layer3.*]}`.

        %b = conv2d %r, %w
        %y = add %x, %b        ==>        %x for %y
        %z = relu %y                      %z = relu %x

    A branch is named by the user's module that holds its layers; `nasc space` lists them. What remains has the types it
    had. The result is the network with the last scale of each branch set to zero.

    Args:
        block: names of branches, or patterns.

    Raises:
        UsageError: a name stands for no branch that can be removed.
        PassError: it stands for a module whose sum has no such branch.

    Source: Huang et al., Deep Networks with Stochastic Depth, ECCV 2016: residual networks do without single blocks.
    """

    block: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.block:
            raise UsageError("drop: block names nothing", mend="Write drop{block=layer1.1}.")

    def run(self, network: Network, context: Context) -> Network:
        """See `Pass.run`."""
        graph = network.graph
        gone = {branch.sum: branch.identity for branch in chosen_branches(graph, self.block)}
        names: dict[str, str] = {}
        kept: list[Op] = []
        for op in graph.ops:
            if op.name in gone:
                identity = gone[op.name]
                names[op.name] = names.get(identity, identity)
            else:
                kept.append(reading(op, names))
        left = rebuilt(graph, kept, tuple(names.get(name, name) for name in graph.outputs))
        return Network(
            left, replace(network.weights, recipes=network.weights.recipes).keep({o.name for o in left.stored})
        )


def chosen_branches(graph: Graph, patterns: tuple[str, ...]) -> tuple[Branch, ...]:
    """The branches that any pattern names: a branch's name, its sum's, or a shell-like pattern (`layer3.*`).

    Raises:
        UsageError: a pattern names none.
        PassError: it names a module that has a sum, but none whose branch can be removed.
    """
    every = branches(graph)
    for pattern in patterns:
        if any(matches(b, pattern) for b in every):
            continue
        inside = f"{pattern.rstrip('.*')}."
        sums = [op for op in graph.ops if op.kind == "add" and op.name.startswith(inside)]
        if sums:
            sides = " and ".join(f"%{name}: {graph.types[name]}" for name in sums[-1].inputs)
            raise PassError(
                f"no side is the other's source and has the type of the sum; it adds {sides}",
                op=sums[-1],
                mend="`nasc space` lists the blocks that can be dropped.",
            )
        raise UsageError(
            f"no block that can be dropped matches {pattern!r}", mend=did_you_mean(pattern, [b.name for b in every])
        )
    return tuple(b for b in every if any(matches(b, p) for p in patterns))
