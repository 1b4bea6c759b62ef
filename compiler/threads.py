"""How many threads torch gets: one for small work, where waking others costs more than they give."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

T = TypeVar("T")

SMALL_FLOP = 300_000_000
"""Work of one call below which it runs on one thread: a few milliseconds of one core.

Two threads on two cores gave the jet network nothing; while other programs had the cores busy they made it twenty times
slower (2 epochs: 4.4 s on one thread, 31 s on two), for each waits spinning for the other.
"""


@contextmanager
def fitting_threads(flop: float) -> Generator[None]:
    """Run the block on one thread if its calls are small; results then do not depend on the number of threads either.

    Args:
        flop: floating-point operations of one call in the block, multiplications and additions counted apart.
    """
    threads = torch.get_num_threads()
    if flop < SMALL_FLOP:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def counting_flop(call: Callable[[], T]) -> tuple[T, int]:
    """What a call gives, and the floating-point operations of its matrix products, convolutions and attention.

    Work outside torch, such as that of another runtime, counts nothing.
    """
    with torch.no_grad(), _Count() as counted:
        result = call()
    return result, counted.flop


class _Count(TorchDispatchMode):
    """Adds up torch's own formulas; unlike FlopCounterMode it hooks no modules, so other threads do not notice it."""

    def __init__(self) -> None:
        super().__init__()
        self.flop = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            self.flop += int(formula(*args, **(kwargs or {}), out_val=out))
        return out
