"""Cohorts: networks trained as one compute, and become, what they would alone."""

from __future__ import annotations

import math

import pytest
import torch
from nasc import lower
from nasc.compiler.cohort import Cohort, cohorts
from nasc.compiler.distillation import Teacher, blended, distance
from nasc.compiler.losses import default_loss
from nasc.compiler.network import Network
from nasc.compiler.training import TrainingSettings, train
from nasc.ir.errors import NascError, UsageError
from torch import Tensor, nn

torch.set_num_threads(1)


class Small(nn.Module):
    """Convolution, pooling, flatten behind which a width is part of a product, and two linear layers."""

    def __init__(self, norm: bool = False) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 6, 3, padding=1)
        self.fc = nn.Linear(6 * 4, 8)
        self.norm = nn.LayerNorm(8) if norm else nn.Identity()
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        x = nn.functional.max_pool2d(x, 2).flatten(1)
        return self.head(torch.sigmoid(self.norm(self.fc(x))))


def rows(count: int = 240, seed: int = 0) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 1, 4, 4, generator=random)
    return x, (x.sum((1, 2, 3)) > 0).long() + (x[:, 0, 0, 0] > 0.5).long()


def source(norm: bool = False) -> Network:
    torch.manual_seed(0)
    return lower(Small(norm), rows(8)[0])


def candidate(network: Network, widths: str, weights: str, activations: str) -> Network:
    resize = f"resize{{{widths}}} | " if widths else ""
    return network.apply(
        f"{resize}quantize{{weights={weights}, activations={activations}}} | calibrate", data=rows(64)[0]
    )


@pytest.fixture(scope="module")
def members() -> list[Network]:
    network = source()
    return [
        candidate(network, "", "i4", "u5"),
        candidate(network, "stem=3, fc=5", "i3", "u4"),
        candidate(network, "stem=5", "i8", "u8"),
    ]


def test_networks_that_differ_in_bits_and_widths_go_together(members: list[Network]) -> None:
    assert cohorts(members, 16) == [[0, 1, 2]]
    assert cohorts(members, 2) == [[0, 1], [2]], "no more than the limit"
    other = members[0].apply("quantize{layers=fc, weights=i4<2^?>} | calibrate")
    assert cohorts([*members, other], 16) == [[0, 1, 2], [3]], (
        "steps that are powers of two are another way of training"
    )


def test_zeros_count_in_a_statistic_so_such_widths_must_be_equal() -> None:
    network = source(norm=True)
    full, narrow = candidate(network, "", "i4", "u5"), candidate(network, "fc=4", "i4", "u5")
    other_stem = candidate(network, "stem=3", "i4", "u5")
    assert cohorts([full, narrow, other_stem], 16) == [[0, 2], [1]]
    with pytest.raises(NascError, match="differ in more than bits and widths"):
        Cohort([full, narrow])


def test_what_writes_to_its_buffers_trains_alone() -> None:
    torch.manual_seed(0)
    network = lower(nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.BatchNorm1d(6), nn.Linear(6, 2)), torch.randn(8, 4))
    two = [network.apply(f"quantize{{weights={w}}} | calibrate") for w in ("i4", "i8")]
    assert cohorts(two, 16) == [[0], [1]]


def test_formats_whose_codes_are_no_integers_train_alone(members: list[Network]) -> None:
    other = source().apply("quantize{weights=f4e2m1, activations=u5} | calibrate", data=rows(64)[0])
    assert cohorts([*members, other, other], 16) == [[0, 1, 2], [3], [4]]


def test_each_computes_what_it_would_alone(members: list[Network]) -> None:
    x, _ = rows(32, seed=1)
    outputs = Cohort(members)(x)
    assert outputs.shape == (3, 32, 3)
    for network, output in zip(members, outputs, strict=True):
        torch.testing.assert_close(output, network.module()(x), rtol=0, atol=1e-6)
    assert not torch.allclose(outputs[0], outputs[1], atol=1e-3), "the control: other bits give other outputs"


def test_gradients_are_those_of_each_alone(members: list[Network]) -> None:
    x, y = rows(64, seed=2)
    cohort = Cohort(members)
    torch.stack([default_loss(output, y) for output in cohort(x)]).sum().backward()
    trained = train_once(cohort)
    for network, got in zip(members, trained, strict=True):
        module = network.module().train()
        default_loss(module(x), y).backward()
        wanted = network.with_trained(train_once_alone(module))
        for name in ("stem.weight", "fc.weight", "fc.bias", "head.weight"):
            torch.testing.assert_close(got.weights.real(name), wanted.weights.real(name), rtol=1e-4, atol=1e-6)
        assert got.graph.sizes == network.graph.sizes
        for op in got.graph.ops:
            if op.kind == "quantize":
                step, other = op.type.step, wanted.graph.types[op.name].step
                assert step is not None and other is not None and step.value is not None and other.value is not None
                assert math.isclose(step.value, other.value, rel_tol=1e-4), op.name


def train_once(cohort: Cohort) -> tuple[Network, ...]:
    """One step of plain gradient descent with the gradients that are there."""
    torch.optim.SGD(cohort.parameters(), lr=0.1).step()
    return cohort.networks()


def train_once_alone(module: nn.Module) -> nn.Module:
    torch.optim.SGD(module.parameters(), lr=0.1).step()
    return module


def test_a_cohort_trains_as_its_members_do(members: list[Network]) -> None:
    settings = TrainingSettings(epochs=20, batch_size=40, learning_rate=0.03)
    cohort = Cohort(members)
    train(cohort, rows(), settings, together=True)
    x, y = rows(seed=3)
    for before, after in zip(members, cohort.networks(), strict=True):
        module = before.module()
        train(module, rows(), settings)
        alone = before.with_trained(module)
        assert default_loss(after(x), y) < default_loss(before(x), y) - 0.05
        assert abs(default_loss(after(x), y) - default_loss(alone(x), y)) < 0.05


def test_steps_that_are_not_learned_stay(members: list[Network]) -> None:
    cohort = Cohort(members, learn_steps=False)
    train(cohort, rows(), TrainingSettings(epochs=1, batch_size=60, learning_rate=0.05), together=True)
    for before, after in zip(members, cohort.networks(), strict=True):
        steps = [(op.type.step, after.graph.types[op.name].step) for op in before.graph.ops if op.kind == "quantize"]
        assert all(old == new for old, new in steps)
        assert not torch.equal(before.weights.real("fc.weight"), after.weights.real("fc.weight"))


def test_one_that_diverges_is_left_behind(members: list[Network]) -> None:
    cohort = Cohort(members)
    with torch.no_grad():
        next(p for p in cohort.parameters() if p.dim() == 3)[1] = math.nan
    train(cohort, rows(), TrainingSettings(epochs=1, batch_size=60, learning_rate=0.01), together=True)
    assert cohort.finite() == (True, False, True)


def test_a_teacher_is_learned_from() -> None:
    network = source()
    teacher = candidate(network, "", "i8", "u8").module()
    train(teacher, rows(), TrainingSettings(epochs=30, batch_size=40, learning_rate=0.02))
    x, y = rows(seed=4)
    wrong = (y + 1) % 3
    student = network.module()
    settings = TrainingSettings(epochs=10, batch_size=40, learning_rate=0.02)
    train(student, (rows()[0], (rows()[1] + 1) % 3), settings, teacher=Teacher(teacher, 1.0))
    assert default_loss(student(x), y) < default_loss(student(x), wrong), "its labels were wrong, its teacher was not"


def test_distances() -> None:
    output, goal, labels = torch.randn(6, 3), torch.randn(6, 3), torch.tensor([0, 1, 2, 0, 1, 2])
    hard = 100.0 * nn.functional.one_hot(labels, 3)
    torch.testing.assert_close(distance(output, hard, labels), default_loss(output, labels))
    assert distance(goal, goal, labels) < distance(output, goal, labels)
    both = blended(default_loss, 0.25, output, goal, labels)
    torch.testing.assert_close(both, 0.75 * default_loss(output, labels) + 0.25 * distance(output, goal, labels))
    real = torch.randn(6, 1)
    assert distance(real, real, torch.randn(6)) == 0
    one = torch.randn(6)
    assert distance(one, one, torch.tensor([0, 1, 0, 1, 0, 1])) < distance(-one, one, torch.tensor([0, 1, 0, 1, 0, 1]))
    with pytest.raises(UsageError, match=r"gives \[6, 3\], the network to learn from \[6, 2\]"):
        distance(output, torch.randn(6, 2), labels)
    with pytest.raises(UsageError, match="between 0 and 1; found 2"):
        Teacher(lambda x: x, 2)
