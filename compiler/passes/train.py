"""Train weights and steps with all rounding in place: quantization-aware training as a stage of a pipeline."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import nn

from ...ir import UsageError
from ..data import Data, Rows
from ..distillation import Teacher
from ..network import Network
from ..supervision import Supervision
from ..training import Epoch, TrainingResult, train
from ..training_settings import epochs_text
from .base import Context, Pass, PassError, expect_calibrated, register

SLOWER = 0.25
"""Learning rate over that of the model file's training: the weights are near their goal already."""


@register("train")
@dataclass(frozen=True)
class Train(Pass):
    """Give weights, biases and steps other numbers: those that training finds with the rounding in place.

        %w: i4<per 0> = weight          the same ops, types and formats;
        %x.q: u4<0.21> = quantize %x    %w holds other codes and steps, %x.q becomes u4<0.187>

    Rounding passes gradients straight through inside its range, and steps are learned with it (`Network.module`). The
    loss, the optimizer and its schedule are the model file's. Beside the labels it learns from the outputs of the
    network that the pipeline starts from. One seed gives the same numbers on one machine. Put it behind `calibrate`,
    before `legalize`; without any `quantize` it is fine-tuning, after `resize` for example.

    Args:
        epochs: passes over the training data.
        learning_rate: the peak; a quarter of the model file's if not given.
        batch_size: samples per step; the model file's if not given.
        distillation: share of the distance to the first network's outputs in the loss; the rest is the loss on labels.
        learn_steps: whether steps are trained too, those that are powers of two among powers of two.
        samples: how many samples of the training data to use, from the first; all if not given.

    Raises:
        UsageError: an option makes no sense.
        PassError: there is no training data, a step is not calibrated, or the network is legalized.
        NascError: the loss is no longer a finite number.

    Source: straight-through gradients as in Jacob et al., CVPR 2018, section 3; steps as in Esser et al., ICLR 2020
    (learned step size quantization); distillation as in Hinton et al., arXiv:1503.02531.
    """

    epochs: int = 3
    learning_rate: float | None = None
    batch_size: int | None = None
    distillation: float = 0.75
    learn_steps: bool = True
    samples: int | None = None

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "samples"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"train: {name} must be at least 1; found {value}")
        if self.learning_rate is not None and not self.learning_rate > 0:
            raise UsageError(f"train: learning_rate must be above 0; found {self.learning_rate:g}")
        if not 0 <= self.distillation <= 1:
            raise UsageError(f"train: distillation must be between 0 and 1; found {self.distillation:g}")

    @property
    def needs_data(self) -> bool:
        """See `Pass.needs_data`."""
        return True

    def run(self, network: Network, context: Context) -> Network:
        """See `Pass.run`."""
        expect_calibrated(network.graph, self.name)
        for op in network.graph.stored:
            if op.type.quantized and op.type.format.bits > 16:
                raise PassError("it is legalized already", op=op, mend="Put `train` before `legalize`.")
        if self.distillation and context.source is not None and context.source.graph.quantized:
            context.say(
                "train learns from the network that the pipeline starts from, which is in few bits itself: start from"
                " the real-numbered one, or give distillation=0"
            )
        module = network.module(learn_steps=self.learn_steps)
        result = self.fit(module, context)
        first, last = result.epochs[0].training_loss, result.epochs[-1].training_loss
        loss = f"mean loss {first:.4g} in the first and {last:.4g} in the last"
        if result.grew:
            loss += f"; it began at {result.began:.4g}: it grew, so lower learning_rate"
        context.say(f"{self}: {epochs_text(len(result.epochs))} in {result.duration_s:.1f} s, {loss}")
        return network.with_trained(module)

    def fit(
        self,
        module: nn.Module,
        context: Context,
        *,
        together: bool = False,
        stop: Callable[[Epoch], bool] | None = None,
    ) -> TrainingResult:
        """Train a module of a network in place.

        Args:
            module: of a network, or of a cohort of networks.
            context: has the data, the seed and the network to learn from.
            together: the module is a cohort.
            stop: asked after each epoch; training ends when it says True.

        Raises:
            PassError: there is no training data.
            NascError: the loss is no longer a finite number.
        """
        supervision = context.supervision
        if supervision is None:
            raise PassError(
                "train needs training data and there is none",
                mend="Write `train_data = (x, y)` in the model file, or pass train_data=(x, y) (`--data model.py`).",
            )
        own = supervision.settings
        settings = replace(
            own,
            epochs=self.epochs,
            learning_rate=self.learning_rate or SLOWER * own.learning_rate,
            batch_size=self.batch_size or own.batch_size,
            patience=None,
            seed=context.seed,
        )
        teacher = Teacher(context.source, self.distillation) if context.source is not None else None
        with supervision.importing():
            return train(
                module,
                self._chosen(supervision),
                settings,
                loss=supervision.loss,
                teacher=teacher,
                together=together,
                stop=stop,
            )

    def _chosen(self, supervision: Supervision) -> Data:
        """The samples to train on.

        Raises:
            UsageError: fewer are wanted than there are, of data that are drawn anew each time.
        """
        data = supervision.data()
        if self.samples is None or self.samples >= len(data):
            return data
        if not isinstance(data, Rows):
            raise UsageError(
                "train: samples cannot be chosen of training data that are drawn anew each time",
                mend="Leave the option out, or give tensors.",
            )
        return Rows(*data.take(slice(0, self.samples)))
