"""Train a module from a seed, bit for bit the same each time, and keep what was trained by content."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from filelock import FileLock
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import Dataset

from ..ir.errors import NascError, UsageError
from ..ir.files import write_atomically
from .checkpoint import load_weights, make_folder, read_checkpoint
from .cohort import each
from .data import Batch, Data, Inputs, Rows, apply, as_data, map_inputs, seeded
from .distillation import Teacher, blended
from .frontend.user_code import blaming
from .losses import Loss, default_loss, expect_loss, loss_value
from .threads import counting_flop, fitting_threads
from .training_settings import TrainingSettings

if TYPE_CHECKING:
    from .frontend.task import Task


FAR = 2.0
"""How many times the loss that it began with a training must end at to have made things worse."""


@dataclass(frozen=True)
class Epoch:
    """One finished epoch: its number from 1, of how many, its losses and the seconds so far."""

    number: int
    of: int
    training_loss: float
    validation_loss: float | None
    elapsed_s: float


@dataclass(frozen=True)
class TrainingResult:
    """What a training did.

    Args:
        epochs: its epochs.
        kept_epoch: the number of the one whose weights the module now has.
        ended: why it ended.
        began: the loss of the first batch, before anything was trained.
    """

    epochs: tuple[Epoch, ...]
    kept_epoch: int
    ended: Literal["finished", "patience", "stopped"]
    began: float = math.nan

    @property
    def grew(self) -> bool:
        """Whether the loss ended above the first epoch's, or far above where it began."""
        last = self.epochs[-1].training_loss
        return last > self.epochs[0].training_loss or last > FAR * self.began > 0

    @property
    def duration_s(self) -> float:
        """Wall time of the whole training."""
        return self.epochs[-1].elapsed_s


def train(
    module: nn.Module,
    data: Data | tuple[Any, Any] | Dataset[Any],
    settings: TrainingSettings,
    *,
    loss: Loss | None = None,
    teacher: Teacher | None = None,
    together: bool = False,
    validation: Data | tuple[Any, Any] | Dataset[Any] | None = None,
    progress: Callable[[Epoch], None] | None = None,
    stop: Callable[[Epoch], bool] | None = None,
) -> TrainingResult:
    """Train a module in place; it is left in eval mode.

    One seed gives the same bits on one machine with one number of threads (small networks train on one in any case):
    samples are shuffled by a generator of their own, dropout draws from torch's global numbers, which are seeded inside
    and put back afterwards.

    Args:
        module: its parameters that require gradients are trained; its other state is what forward makes of it.
        data: rows, a pair `(x, y)` or a Dataset, with labels.
        loss: mean loss of a batch; cross-entropy for class labels and squared error for real ones by default.
        teacher: a network whose outputs are learned beside the labels.
        together: the module is a `Cohort`: its output has networks along the first axis, and losses are added up. One
            whose loss is no longer finite is left behind, and does not stop the others.
        validation: data whose loss is taken after each epoch. With `settings.patience` the weights of the best epoch
            are put back at the end, and training ends that many epochs after it.
        progress: told each finished epoch.
        stop: asked after each epoch; training ends when it says True.

    Raises:
        UsageError: data have no labels, or there is patience without validation data.
        NascError: the loss is no longer a finite number.
    """
    rows, held_out = as_data(data, "train_data"), None if validation is None else as_data(validation, "validation_data")
    if settings.patience is not None and held_out is None:
        raise UsageError(
            f"patience={settings.patience} needs validation data to see when training no longer helps",
            mend="Name validation_data, or leave patience out.",
        )
    loss = loss or default_loss
    objective = _objective(loss, teacher, together=together)
    order = torch.Generator().manual_seed(settings.seed)
    steps = len(_cuts(len(rows), settings.batch_size))
    work = _rehearse(module, rows, settings, loss, together=together)
    optimizer, schedule = _optimizer(module, settings, steps * settings.epochs)
    best = _Best()
    epochs: list[Epoch] = []
    began: float | None = None
    ended: Literal["finished", "patience", "stopped"] = "finished"
    start = time.perf_counter()
    try:
        with fitting_threads(work), seeded(settings.seed):
            for number in range(1, settings.epochs + 1):
                module.train()
                total = 0.0
                for batch in _shuffled(rows, settings.batch_size, order):
                    reached = _step(module, batch, objective, optimizer)
                    began = reached if began is None else began
                    total += reached
                    if schedule is not None:
                        schedule.step()
                unseen = None if held_out is None else mean_loss(module, held_out, loss, settings.batch_size)
                epoch = Epoch(number, settings.epochs, total / steps, unseen, time.perf_counter() - start)
                _refuse_nan(epoch, settings)
                epochs.append(epoch)
                if settings.patience is not None and unseen is not None:
                    best.see(number, unseen, module)
                if progress is not None:
                    progress(epoch)
                if stop is not None and stop(epoch):
                    ended = "stopped"
                    break
                if settings.patience is not None and number - best.epoch >= settings.patience:
                    ended = "patience"
                    break
    finally:
        module.eval()
    if best.state is not None:
        module.load_state_dict(best.state)
    return TrainingResult(tuple(epochs), best.epoch or epochs[-1].number, ended, math.nan if began is None else began)


def mean_loss(module: nn.Module, data: Data, loss: Loss, batch_size: int) -> float:
    """Mean loss over all samples in eval mode, without gradients."""
    module.eval()
    total = 0.0
    with torch.no_grad():
        for inputs, labels in data.batches(batch_size):
            labels = _labelled(labels, module)
            total += loss_value(loss, _output(module, inputs), labels) * len(labels)
    return total / len(data)


@dataclass(frozen=True)
class TrainedCheckpoint:
    """A task with trained weights: the file they lie in, and what the training did (None where they were kept)."""

    task: Task
    path: Path
    result: TrainingResult | None


def trained_checkpoint(
    task: Task,
    cache_dir: Path | None = None,
    progress: Callable[[Epoch], None] | None = None,
    *,
    device: torch.device | str = "cpu",
) -> TrainedCheckpoint:
    """Train the network of an `untrained` task from its seed, or load what an earlier call kept.

    Kept files are named by content: code and initial weights of the network, training and (with patience) validation
    data, loss and settings. So nothing stale is ever loaded, and a second process waits for the first and loads its
    file. The same task gives the same bits on one machine with one number of threads. The task given is not changed;
    one whose checkpoint is there comes back as it is.

    Args:
        task: its file names `training` settings, `train_data` and a checkpoint that is not there.
        cache_dir: where to keep it; `.cache` beside the model file, or the user's cache if that cannot be written.
        progress: told each epoch; not called when nothing is trained.
        device: where to train; the network comes back on the CPU. The same bits each time are promised on the CPU only.

    Raises:
        UsageError: the task has no training settings or no training data.
        NascError: training failed, the place cannot be written, or the kept file is damaged.
    """
    if task.checkpoint is not None and not task.untrained:
        return TrainedCheckpoint(task, task.checkpoint, None)
    if task.training is None:
        raise UsageError(f"{task.source} names no `training` settings", mend='Write training = {"epochs": 20} in it.')
    path = kept_path(task, task.training, cache_dir)
    make_folder(path.parent)
    model, result = copy.deepcopy(task.model), None
    with FileLock(path.with_suffix(".lock")):
        if path.is_file():
            load_weights(model, read_checkpoint(path), str(path))
        else:
            result = _train_and_keep(task, task.training, model.to(device), path, progress)
    return TrainedCheckpoint(replace(task, model=model, checkpoint=path, untrained=False), path, result)


def kept_path(task: Task, settings: TrainingSettings, cache_dir: Path | None = None) -> Path:
    """Where `trained_checkpoint` keeps what it makes of a task."""
    return (cache_dir or cache_folder(task)) / f"{task.name}-{_training_key(task, settings)[:16]}.safetensors"


def with_kept_weights(task: Task) -> Task:
    """An untrained task with the weights that an earlier `trained_checkpoint` kept; itself where there are none.

    Raises:
        NascError: the kept file is damaged.
    """
    if not task.untrained or task.training is None or not kept_path(task, task.training).is_file():
        return task
    return trained_checkpoint(task).task


def _train_and_keep(
    task: Task, settings: TrainingSettings, model: nn.Module, path: Path, progress: Callable[[Epoch], None] | None
) -> TrainingResult:
    data, validation = task.required("train"), task.data("validation")
    with blaming(f"the network and the loss of {task.source} on its train_data", task.surroundings), torch.no_grad():
        inputs, labels = data.take(slice(0, 2))
        task.loss(_output(model, inputs), _labelled(labels, model))
    with task.importing():
        result = train(model, data, settings, loss=task.loss, validation=validation, progress=progress)
    model.cpu()
    weights = {name: held.detach().clone().contiguous() for name, held in model.state_dict().items()}
    about = {"training": settings.text(), "kept_epoch": result.kept_epoch, "ended": result.ended}
    metadata = {"nasc": json.dumps(about, sort_keys=True)}
    write_atomically(path, lambda place: save_file(weights, place, metadata))
    return result


def cache_folder(task: Task) -> Path:
    """`.cache` beside the model file, or `nasc` in the user's cache folder if that cannot be written."""
    if task.folder is not None:
        beside = task.folder / ".cache"
        if os.access(beside if beside.is_dir() else task.folder, os.W_OK):
            return beside
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nasc"


def _training_key(task: Task, settings: TrainingSettings) -> str:
    """What the trained weights depend on: equal keys are the same training."""
    parts = [
        "nasc training 1",  # to be raised when `train` comes to give other weights
        task.code,
        repr(task.model),
        task.weights_digest(),
        task.data_digest("train"),
        task.data_digest("validation") if settings.patience is not None else "",
        settings.text(),
    ]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


class _Best:
    """The best validation loss so far, with a copy of the module's state there."""

    def __init__(self) -> None:
        self.epoch, self.loss = 0, math.inf
        self.state: dict[str, Tensor] | None = None

    def see(self, number: int, loss: float, module: nn.Module) -> None:
        if loss < self.loss:
            self.epoch, self.loss = number, loss
            self.state = {name: held.detach().clone() for name, held in module.state_dict().items()}


_OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "sgd": lambda *args, **options: torch.optim.SGD(*args, momentum=0.9, **options),
}


def _optimizer(
    module: nn.Module, settings: TrainingSettings, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler | None]:
    trained = [held for held in module.parameters() if held.requires_grad]
    if not trained:
        raise UsageError(f"{type(module).__name__} has no parameters that require gradients: there is nothing to train")
    optimizer = _OPTIMIZERS[settings.optimizer](
        trained, lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
    )
    if settings.schedule == "constant":
        return optimizer, None
    return optimizer, torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=settings.learning_rate, total_steps=steps)


Objective = Callable[[Tensor, Inputs, Tensor], Tensor]
"""Takes the network's output, the inputs and the labels of a batch, gives what training makes small."""


def _objective(loss: Loss, teacher: Teacher | None, *, together: bool) -> Objective:
    """The loss, blended with the distance to a teacher's outputs; for a cohort the sum over its networks."""
    share = 0.0 if teacher is None else teacher.share

    def of_one(output: Tensor, goal: Tensor | None, labels: Tensor) -> Tensor:
        return loss(output, labels) if goal is None else blended(loss, share, output, goal, labels)

    def reached(output: Tensor, inputs: Inputs, labels: Tensor) -> Tensor:
        goal = None if teacher is None or not share else teacher.outputs(inputs).to(output.device)
        if together:
            return each(of_one, output, goal, labels, mapped=loss is default_loss)
        return of_one(output, goal, labels)

    return reached


def _step(module: nn.Module, batch: Batch, objective: Objective, optimizer: torch.optim.Optimizer) -> float:
    inputs, labels = batch
    optimizer.zero_grad(set_to_none=True)
    reached = objective(_output(module, inputs), inputs, _labelled(labels, module))
    reached.backward()
    optimizer.step()
    return float(reached.detach())


def _rehearse(module: nn.Module, data: Data, settings: TrainingSettings, loss: Loss, *, together: bool) -> float:
    """Try a few samples, refuse labels that are no classes of the network and a loss that is none, and say how much
    work one step is."""
    few = min(8, len(data))
    module.eval()
    with seeded(0):
        inputs, labels = data.take(slice(0, few))
        outputs, flop = counting_flop(lambda: _output(module, inputs))
    labels, outputs = _labelled(labels, module), outputs[0] if together else outputs
    if loss is default_loss:
        _expect_classes(outputs, labels, data)
    else:
        expect_loss(loss, outputs, labels)
    return 3 * flop * min(settings.batch_size, len(data)) / few  # going back takes twice as much as going forward


def _expect_classes(outputs: Tensor, few: Tensor, data: Data) -> None:
    """Refuse whole-numbered labels that are no classes of the network, as `default_loss` reads its outputs.

    Args:
        outputs: for a few samples.
        few: their labels.
        data: has all labels.
    """
    if few.is_floating_point() or (not (one_logit := outputs.numel() == few.numel()) and outputs.ndim != few.ndim + 1):
        return
    every = data.y if isinstance(data, Rows) and data.y is not None else few
    classes = 2 if one_logit else outputs.shape[1]
    least, most = int(every.min()), int(every.max())
    if least < 0 or most >= classes:
        raise UsageError(
            f"labels to train by go from {least} to {most}, but the network tells {classes} classes apart",
            mend="Give labels 0 and 1 for one logit, a score per class for more, or real labels (float) for values."
            if one_logit
            else None,
        )


def _output(module: nn.Module, inputs: Inputs) -> Tensor:
    device = _device(module)
    return apply(module, map_inputs(lambda held: held.to(device), inputs))


def _labelled(labels: Tensor | None, module: nn.Module) -> Tensor:
    if labels is None:
        raise UsageError("training needs labels", mend="Give a pair of tensors (x, y), or a Dataset of (x, y).")
    return labels.to(_device(module))


def _device(module: nn.Module) -> torch.device:
    return next((held.device for held in module.parameters()), torch.device("cpu"))


def _cuts(count: int, size: int) -> list[int]:
    """Where batches begin. A single left-over sample is left out: batch norm cannot train on one."""
    starts = list(range(0, count, size))
    return starts[:-1] if len(starts) > 1 and count - starts[-1] == 1 else starts


def _shuffled(data: Data, size: int, order: torch.Generator) -> Iterator[Batch]:
    index = torch.randperm(len(data), generator=order)
    for start in _cuts(len(data), size):
        yield data.take(index[start : start + size])


def _refuse_nan(epoch: Epoch, settings: TrainingSettings) -> None:
    for name, reached in (("training", epoch.training_loss), ("validation", epoch.validation_loss)):
        if reached is not None and not math.isfinite(reached):
            raise NascError(
                f"training failed: the {name} loss of epoch {epoch.number} is {reached}"
                f" (learning rate {settings.learning_rate:g})",
                mend="Lower learning_rate, or look for values that are not finite in the data.",
            )
