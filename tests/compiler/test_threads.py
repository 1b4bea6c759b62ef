"""Small work runs on one thread, whatever torch was told, and gives the same bits for any number of threads."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from nasc.compiler.frontend.task import weights_digest
from nasc.compiler.threads import SMALL_FLOP, counting_flop, fitting_threads
from nasc.compiler.training import TrainingSettings, train
from nasc.search.quality import evaluate
from torch import Tensor, nn


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_flop_are_twice_the_multiplications() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 5))
    out, flop = counting_flop(lambda: net(torch.zeros(2, 3, 6, 6)))
    assert out.shape == (2, 5)
    assert flop == 2 * 2 * (36 * 8 * 3 * 9 + 8 * 36 * 5)
    assert counting_flop(lambda: "no tensors") == ("no tensors", 0)


def test_small_work_gets_one_thread_and_large_work_all() -> None:
    with fitting_threads(SMALL_FLOP - 1):
        assert torch.get_num_threads() == 1
    with fitting_threads(SMALL_FLOP):
        assert torch.get_num_threads() == 2
    with pytest.raises(KeyError), fitting_threads(1):
        raise KeyError
    assert torch.get_num_threads() == 2


class Watched(nn.Module):
    """Notes the number of threads of each call in training mode, or of each call at all."""

    def __init__(self, width: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fc, self.seen = nn.Linear(width, width), list[int]()

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(torch.get_num_threads())
        return self.fc(x)


def test_training_and_evaluation_choose_by_the_work() -> None:
    small, large = Watched(8), Watched(1024)
    settings = TrainingSettings(epochs=1, batch_size=128)
    for net, width, threads in ((small, 8, 1), (large, 1024, 2)):
        data = (torch.rand(512, width), torch.arange(512) % width)
        train(net, data, settings)
        assert net.seen[1:] == [threads] * 4  # the first call counts
        net.seen.clear()
        evaluate(net, *data, ["loss"], batch_size=256)
        assert net.seen == [1, threads]
    assert torch.get_num_threads() == 2


def test_the_bits_of_a_small_training_do_not_depend_on_the_threads() -> None:
    digests: list[str] = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        net = Watched(64)
        data = (torch.rand(512, 64, generator=torch.Generator().manual_seed(0)), torch.arange(512) % 64)
        train(net, data, TrainingSettings(epochs=2, batch_size=512))
        digests.append(weights_digest(net))
    assert digests[0] == digests[1]
