"""Which networks between passes are written down, and where."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..ir import Graph, UsageError
from ..ir.errors import did_you_mean
from ..ir.files import check_writable, write_text
from .passes import PASSES
from .pipeline import Pipeline


@dataclass(frozen=True)
class Dumps:
    """What to write down while a pipeline runs.

    Args:
        every: the source network, and the network after every pass.
        after: after passes of these names.
        changed: after passes that changed the graph.
        folder: where each goes as a file, `02-quantize.nasc`; None: it is given to `show`.
        show: takes a text.
    """

    every: bool = False
    after: tuple[str, ...] = ()
    changed: bool = False
    folder: Path | None = None
    show: Callable[[str], None] = print

    def check(self, pipeline: Pipeline) -> None:
        """Refuse names of passes that the pipeline has not, and a folder that is none.

        Raises:
            UsageError: there is no such pass, it is not in the pipeline, or the folder cannot be written to.
        """
        if self.folder is not None:
            check_writable(self.folder / "00-source.nasc", makes_folders=True)
        names = {step.name for step in pipeline.passes}
        for name in self.after:
            if name not in PASSES:
                raise UsageError(f"there is no pass {name!r}", mend=did_you_mean(name, sorted(PASSES)))
            if name not in names:
                raise UsageError(f"the pipeline has no {name}, so nothing would be dumped after it")

    def take(self, index: int, name: str, text: str, graph: Graph, *, changed: bool) -> None:
        """Write a network down if it was asked for.

        Args:
            index: how many passes have run.
            name: the pass that left it, `source` for none.
            text: the pass with its options.
            graph: the network's.
            changed: whether the pass changed it.

        Raises:
            UsageError: the folder cannot be written to.
        """
        if not (self.every or name in self.after or (self.changed and changed)):
            return
        if self.folder is not None:
            write_text(self.folder / f"{index:02d}-{name}.nasc", str(graph))
        else:
            self.show(f"// after {text}\n{graph}")
