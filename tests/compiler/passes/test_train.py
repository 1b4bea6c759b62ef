"""Training as a stage of a pipeline: what it gives back, that its text is all there is to it, and what it refuses."""

from __future__ import annotations

import re
from pathlib import Path

import nasc
import pytest
import torch
from nasc import rewriting
from nasc.api import load_task
from nasc.compiler.losses import default_loss
from nasc.compiler.module import GraphModule
from nasc.compiler.network import Network
from nasc.compiler.passes import PassError
from nasc.compiler.passes.train import SLOWER
from nasc.compiler.training import train
from nasc.compiler.training_settings import TrainingSettings
from nasc.ir import NascError, UsageError, text
from support.digits import accuracy, rows, trained
from torch import Tensor, nn

FEW = "cleanup | fold-batch-norm | quantize{weights=i2, activations=u2} | calibrate"
TAUGHT = f"{FEW} | train{{learning_rate=0.01, batch_size=100}}"


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def made(passes: str, network: Network | None = None, **given: object) -> Network:
    x, y, _, _ = rows()
    options: dict[str, object] = {"data": x, "train_data": (x, y)} | given
    return (network or trained()).apply(passes, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def taught() -> Network:
    return made(TAUGHT)


def test_training_gives_back_what_few_bits_take(taught: Network) -> None:
    rounded = made(FEW)
    assert accuracy(rounded) < 0.7
    assert accuracy(taught) > accuracy(rounded) + 0.2
    same = [(op.kind, op.name, op.inputs, op.type.format, op.type.axes) for op in rounded.graph.ops]
    assert [(op.kind, op.name, op.inputs, op.type.format, op.type.axes) for op in taught.graph.ops] == same
    assert taught.graph != rounded.graph, "steps are learned"


def test_the_text_is_all_there_is_to_it(taught: Network) -> None:
    assert made(TAUGHT).key == taught.key
    assert made(TAUGHT, seed=1).key != taught.key, "the order of samples is another"


def test_a_trained_network_deploys(taught: Network, tmp_path: Path) -> None:
    import onnxruntime

    x = rows()[2]
    nasc.export(taught.apply("legalize"), tmp_path / "net.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "net.onnx"), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    same = torch.from_numpy(found).argmax(1) == taught.apply("legalize")(x).argmax(1)
    assert float(same.float().mean()) > 0.995


def test_it_is_what_one_would_write_by_hand() -> None:
    x, y, _, _ = rows()
    start = made(FEW)
    module = start.module()
    settings = TrainingSettings(epochs=2, batch_size=100, learning_rate=SLOWER * TrainingSettings().learning_rate)
    train(module, (x, y), settings)
    by_hand = start.with_trained(module)
    assert made("train{epochs=2, batch_size=100, distillation=0}", start).key == by_hand.key


def test_steps_stay_where_they_are_not_to_be_learned() -> None:
    start = made(FEW)
    found = made("train{epochs=1, learn_steps=false}", start)
    assert found.graph == start.graph
    assert found.key != start.key, "weights are others all the same"


def test_samples_are_the_first_ones() -> None:
    x, y, _, _ = rows()
    start = made(FEW)
    few = made("train{epochs=1, samples=300}", start)
    assert few.key == made("train{epochs=1}", start, train_data=(x[:300], y[:300])).key
    assert few.key != made("train{epochs=1}", start).key
    assert made("train{epochs=1, samples=9999}", start).key == made("train{epochs=1}", start).key


def test_the_network_that_the_pipeline_starts_from_is_learned_from() -> None:
    x, y, _, _ = rows()
    shuffled = y[torch.randperm(len(y), generator=torch.Generator().manual_seed(0))]
    alone = f"{FEW} | train{{epochs=1, learning_rate=0.01, distillation=1}}"
    assert made(alone).key == made(alone, train_data=(x, shuffled)).key, "labels do not count"
    assert accuracy(made(alone)) > accuracy(made(FEW)) + 0.1
    itself = made("train{epochs=1, learning_rate=0.01, distillation=1}", made(FEW))
    assert itself.key != made(alone).key, "a pipeline that starts from few bits learns from those"


@pytest.mark.parametrize("mend", ["correct-bias", "round-weights"])
def test_what_compares_with_real_numbers_stands_before(mend: str, taught: Network) -> None:
    with pytest.raises(PassError, match=f"no real-numbered network is left .*\n  Put `{mend}` before `train`"):
        taught.apply(mend, data=rows()[0])
    assert made(f"{FEW} | {mend} | train{{epochs=1}}").key
    tuned = made("cleanup | fold-batch-norm | train{epochs=1} | quantize{weights=i3} | calibrate")
    assert tuned.apply(mend, data=rows()[0]).key != tuned.key, "fine-tuning leaves real numbers"


def test_a_loss_of_ones_own() -> None:
    seen: list[int] = []

    def loss(output: Tensor, labels: Tensor) -> Tensor:
        seen.append(len(labels))
        return default_loss(output, labels)

    start = made(FEW)
    assert made("train{epochs=1}", start, loss=loss).key == made("train{epochs=1}", start).key
    assert sum(seen) >= 1200


def test_real_networks_are_fine_tuned_after_resizing() -> None:
    small = made("cleanup | fold-batch-norm | resize{point=16}")
    tuned = made("cleanup | fold-batch-norm | resize{point=16} | train{learning_rate=0.005}")
    assert accuracy(tuned) > accuracy(small) + 0.02
    assert not any(op.type.quantized for op in tuned.graph.ops)


def test_inputs_by_keyword() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 3), nn.Linear(2, 3)

        def forward(self, first: Tensor, second: Tensor) -> Tensor:
            return self.a(first) + self.b(second)

    torch.manual_seed(0)
    x = {"first": torch.randn(40, 4), "second": torch.randn(40, 2)}
    y = torch.randint(0, 3, (40,))
    network = nasc.lower(Two(), {k: v[:2] for k, v in x.items()})
    turned = {"second": x["second"], "first": x["first"]}
    passes = "quantize{weights=i4, activations=u4} | calibrate | train{epochs=2}"
    found = [network.apply(passes, train_data=(held, y)).key for held in (x, turned)]
    assert found[0] == found[1] != network.key
    for data in ([tuple(x.values())], x, [turned]):
        assert network.apply(passes, data=data, train_data=(x, y)).key == found[0], "calibrated on the same"
    assert torch.equal(network(**turned), network(*x.values()))
    with pytest.raises(NascError, match="the inputs lack 'second'; found first"):
        network(first=x["first"])


def test_one_logit_for_two_classes() -> None:
    torch.manual_seed(0)
    x = torch.randn(400, 4)
    y = (x[:, 0] * x[:, 1] > 0).long()
    network = nasc.lower(nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 1)), x[:2])
    found = network.apply("train{epochs=30, learning_rate=0.02, distillation=0}", train_data=(x, y))
    right = ((found(x)[:, 0] > 0) == (y > 0)).float().mean()
    assert float(right) > 0.9
    with pytest.raises(UsageError, match="from 0 to 2, but the network tells 2 classes apart"):
        network.apply("train", train_data=(x, y * 2))


def test_what_is_told() -> None:
    said: list[str] = []
    made("train{epochs=2}", made(FEW), tell=said.append)
    assert len(said) == 2
    assert said[0].startswith(
        "train learns from the network that the pipeline starts from, which is in few bits itself"
    )
    assert said[1].startswith("train{epochs=2}: 2 epochs in ") and "mean loss" in said[1]
    said.clear()
    made(f"{FEW} | train{{epochs=1}}", tell=said.append)
    assert len(said) == 1, "it starts from real numbers"


REFUSED = {
    "train{epochs=0}": "train: epochs must be at least 1; found 0",
    "train{batch_size=0}": "train: batch_size must be at least 1; found 0",
    "train{samples=0}": "train: samples must be at least 1; found 0",
    "train{learning_rate=0}": "train: learning_rate must be above 0; found 0",
    "train{distillation=1.5}": "train: distillation must be between 0 and 1; found 1.5",
    "train{learn_steps=maybe}": "train: learn_steps must be true or false; found 'maybe'",
}


@pytest.mark.parametrize("passes", REFUSED)
def test_options_that_make_no_sense(passes: str) -> None:
    with pytest.raises(UsageError) as told:
        made(passes)
    assert str(told.value).startswith(REFUSED[passes])


def test_what_it_needs() -> None:
    with pytest.raises(PassError, match="train needs training data and there is none\n.*train_data"):
        made(f"{FEW} | train", train_data=None)
    with pytest.raises(PassError, match="no step yet\n  Put `calibrate` before `train`"):
        made("quantize{weights=i4} | train")
    with pytest.raises(PassError, match="legalized already\n  Put `train` before `legalize`"):
        made(f"{FEW} | legalize | train")
    with pytest.raises(NascError, match="labels to train by go from 2 to 11, but the network tells 10 classes apart"):
        made("train", train_data=(rows()[0], rows()[1] + 2))


def test_a_loss_that_is_none_is_refused() -> None:
    for loss, said in (
        ("mse", "the loss is a str, expected a function"),
        (lambda output, labels: output, r"the loss gives a tensor \[8, 10\], expected one number"),
        (lambda output, labels: torch.zeros(()), "that does not depend on the outputs"),
        (lambda output, labels: 3.0, "the loss gives a float, which has no gradients to train by"),
        (lambda output, labels: (output * 1j).sum(), "the loss gives a complex number"),
        (lambda output, labels: None, "the loss gives a NoneType, expected one number"),
    ):
        with pytest.raises(UsageError, match=said):
            made("train", loss=loss)
    assert made("train{epochs=1}", loss=lambda output, labels: output.mul_(2).square().mean()), "it may work in place"
    with pytest.raises(NascError, match=r"test_train.py:\d+: error: ZeroDivisionError(.|\n)*while running the loss on"):
        made("train", loss=lambda output, labels: output.sum() / (1 // 0))


def test_training_that_makes_things_worse_is_told() -> None:
    said: list[str] = []
    made("train{epochs=2, learning_rate=10}", tell=said.append)
    assert said[0].endswith("it grew, so lower learning_rate")


def test_training_that_recovers_only_in_part_is_told() -> None:
    """The last of several epochs may be better than the first, and far worse than before."""
    said: list[str] = []
    made("train{epochs=2, learning_rate=3, distillation=0}", tell=said.append)
    first, last, began = map(
        float, re.findall(r"(\d[\d.e+-]*) in the first and (\S+) in the last; it began at (\S+):", said[0])[0]
    )
    assert last < first and last > 2 * began
    made("train{epochs=2, distillation=0}", tell=said.append)
    assert said[1].endswith("in the last")


def test_a_batch_norm_does_not_train_on_one_sample() -> None:
    torch.manual_seed(0)
    network = nasc.lower(nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 2)).eval(), torch.randn(4, 6))
    x, y = torch.randn(9, 6), torch.arange(9) % 2
    said = (
        r"batch_norm %1 is trained on batches of one sample(.|\n)*Train on more samples at once \(samples, batch_size\)"
    )
    for options in ("samples=1", "batch_size=1"):
        with pytest.raises(NascError, match=said):
            network.apply(f"train{{{options}}}", train_data=(x, y))
    assert network.apply("train{epochs=1, batch_size=2}", train_data=(x, y)).key != network.key
    assert network.apply("fold-batch-norm | train{epochs=1, samples=1}", train_data=(x, y)).key


def test_training_that_diverges_says_so() -> None:
    with pytest.raises(NascError, match=r"training failed: the training loss .*\n  Lower learning_rate"):
        made("train{epochs=1, learning_rate=1e30}")


MODEL = """
import torch
from torch import nn

random = torch.Generator().manual_seed(0)
x = torch.randn(1500, 6, generator=random)
y = (x[:, 0] + x[:, 1] * x[:, 2] > 0).long() + (x[:, 3] > 1).long()


def model() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 24), nn.ReLU(), nn.Linear(24, 3))


example_inputs = x[:4]
train_data, validation_data, test_data = (x[:1000], y[:1000]), (x[1000:1250], y[1000:1250]), (x[1250:], y[1250:])
checkpoint = "net.safetensors"
training = {"epochs": 40, "batch_size": 100, "learning_rate": 0.02, "weight_decay": 0.001}
"""


def test_what_a_search_trained_is_replayed_from_its_text(tmp_path: Path) -> None:
    path = tmp_path / "model.py"
    path.write_text(MODEL)
    settings = {"measure.budget_s": 0.05, "search.tolerance": "5pt"}
    found = nasc.compile(path, output=tmp_path / "out", trials=4, settings=settings)
    record = next(r for r in found.trials if r.epochs)
    assert record.pipeline.endswith("| train{learning_rate=0.005, batch_size=100, samples=800} | legalize")
    source = nasc.load_network(str(path))
    again = rewriting.rewrite(source, record.pipeline, data=str(path)).network
    task = load_task(str(path))
    x, y = task.required("validation").take(slice(None))
    assert float(default_loss(again(x), y)) == pytest.approx(record.figures["loss"].value, abs=1e-6)
    assert isinstance(source.module(), GraphModule) and text(source.graph) != text(again.graph)
    if found.best.number == record.number:
        assert Network.load(tmp_path / "out" / "best" / "model.nasc").key == again.key
