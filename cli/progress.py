"""Show a training or a search as it goes, on standard error."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from ..compiler.training_settings import epochs_text
from ..search.figures import value_text
from ..search.observer import Observer, Opening
from ..search.records import Record

if TYPE_CHECKING:
    from ..compiler.training import Epoch


class Watch(Observer):
    """A progress bar with the trial at hand and the best figures so far; plain lines where there is no terminal."""

    def __init__(self) -> None:
        self.console = Console(stderr=True)
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[detail]}"),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        self.bar: TaskID | None = None
        self.opening: Opening | None = None

    def __enter__(self) -> Watch:
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()

    def epoch(self, epoch: Epoch) -> None:
        """The source network's training finished an epoch."""
        if self.bar is None:
            self.console.print(
                f"training the source network for {epochs_text(epoch.of)} (kept for next time)", highlight=False
            )
            self.bar = self.progress.add_task("training", total=epoch.of, detail="")
        self.progress.update(self.bar, completed=epoch.number, detail=f"loss {epoch.training_loss:.4f}")
        if epoch.number == epoch.of:
            self.progress.remove_task(self.bar)
            self.bar = None

    def stage(self, text: str) -> None:
        """See `Observer.stage`."""
        self.console.print(text, style="dim", highlight=False)

    def opened(self, opening: Opening) -> None:
        """See `Observer.opened`."""
        self.opening = opening
        goals = ", ".join(map(str, opening.objectives))
        self.console.print(
            f"searching {opening.space.size:,} configurations with {opening.strategy} for {goals}",
            highlight=False,
        )
        for text in opening.notices:
            self.notice(text)
        self.bar = self.progress.add_task("trials", total=opening.trials, completed=opening.paid, detail="")

    def notice(self, text: str) -> None:
        """See `Observer.notice`."""
        self.console.print(f"note: {text}", highlight=False)

    def trial_started(self, number: int, origin: str, pipeline: str) -> None:
        """See `Observer.trial_started`."""
        if self.bar is not None:
            self.progress.update(self.bar, detail=f"#{number} {origin}")

    def trial_finished(self, record: Record, paid: int) -> None:
        """See `Observer.trial_finished`."""
        if self.bar is not None:
            self.progress.update(self.bar, completed=paid)
        if record.state == "failed":
            self.console.print(f"trial {record.number} failed: {record.reason}", style="red", highlight=False)

    def closed(self) -> None:
        """See `Observer.closed`."""
        if self.bar is not None:
            self.progress.remove_task(self.bar)
            self.bar = None

    def shown(self, record: Record) -> str:
        """The figures of a record that are objectives, as text."""
        goals = self.opening.objectives if self.opening else ()
        found = [(o.metric, record.figures.get(o.metric.name)) for o in goals]
        return ", ".join(value_text(metric, figure.value) for metric, figure in found if figure is not None)
