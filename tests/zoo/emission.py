"""Networks of the zoo as ONNX: emitted, checked, run by ONNX Runtime, and compared with eager PyTorch.

    cd tests && python -m zoo.emission [NAME ...] [--output FILE]

A name is `torchvision/resnet18`, or a part of one; none stands for the whole zoo. One line per network, as it is done.
"""

from __future__ import annotations

import argparse
import gc
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import torch
from nasc.compiler.frontend.export import trace
from nasc.compiler.frontend.lower import flattened, lower_program
from nasc.compiler.network import Network
from nasc.ir import NascError
from nasc.search.artifacts import artifact_of
from nasc.targets import target_named
from torch import Tensor, nn

from .models import ZooModel, zoo
from .proofs import redraw

EQUAL = 1e-3
"""Largest difference between ONNX Runtime and eager PyTorch, relative to the largest output."""


@dataclass(frozen=True)
class Emitted:
    """What became of one network.

    Args:
        name: the network.
        seconds: from the lowered graph to the files on disk, checked.
        nodes: nodes of the model.
        errors: for each batch tried, the largest difference from eager PyTorch, relative to the largest output.
        dynamic: whether the batch is an axis of its own.
        fault: what went wrong; empty where nothing did.
    """

    name: str
    seconds: float = 0.0
    nodes: int = 0
    errors: tuple[float, ...] = ()
    dynamic: bool = False
    fault: str = ""

    @property
    def agrees(self) -> bool:
        """Whether it ran, and gave what eager PyTorch gives."""
        return not self.fault and bool(self.errors) and max(self.errors) <= EQUAL

    def __str__(self) -> str:
        shown = ", ".join(f"{e:.1e}" for e in self.errors)
        fixed = "" if self.dynamic else " (fixed batch)"
        verdict = "agrees" if self.agrees else "FAILS"
        return f"{self.name:48} {verdict} {self.seconds * 1e3:6.0f} ms {self.nodes:5} nodes {shown}{fixed} {self.fault}"


def emission(model: ZooModel, batches: Sequence[int] = (2, 3)) -> Emitted:
    """Lower a network of the zoo, write it, run it, and compare: what it takes is freed when it is done."""
    try:
        module = model.make()
        redraw(module, model.inputs(batches[0]))
        traced = trace(module, model.inputs(batches[0]), {})
        network = lower_program(traced, model.model_name)
        return emitted(model, module, network, batches if traced.dynamic else batches[:1])
    except NascError as error:
        return Emitted(model.name, fault=str(error).splitlines()[0])
    except Exception as error:
        return Emitted(model.name, fault=f"{type(error).__name__}: {str(error).splitlines()[0]}"[:300])
    finally:
        gc.collect()


def emitted(model: ZooModel, module: nn.Module, network: Network, batches: Sequence[int]) -> Emitted:
    """Write a lowered network, run it, and compare it with the module it came from."""
    target = target_named("onnxruntime:cpu")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        start = time.perf_counter()
        artifact = artifact_of(target, network)
        artifact.save(path)
        onnx.checker.check_model(path)
        seconds = time.perf_counter() - start
        nodes = len(onnx.load_from_string(artifact.model).graph.node)
        del artifact
        session = target.load(path, threads=torch.get_num_threads())
    errors: list[float] = []
    for batch in batches:
        inputs = model.inputs(batch, seed=batch)
        with torch.no_grad():
            expected = [v for v in flattened(module(*inputs)) if isinstance(v, Tensor)]
        errors.append(apart(expected, session.run([i.numpy() for i in inputs])))
    return Emitted(model.name, seconds, nodes, tuple(errors), len(batches) > 1)


def apart(expected: Sequence[Tensor], found: Sequence[Any]) -> float:
    """The largest difference of all outputs, each relative to its reference's largest value."""
    if len(expected) != len(found):
        return float("inf")
    worst = 0.0
    for want, have in zip(expected, found, strict=True):
        if tuple(want.shape) != have.shape:
            return float("inf")
        if not want.numel():
            continue
        reference = want.double()
        difference = (reference - torch.from_numpy(have).double()).abs().nan_to_num(nan=float("inf"))
        worst = max(worst, float(difference.max() / reference.abs().max().clamp(min=1e-30)))
    return worst


def named(model: ZooModel, name: str, exact: bool) -> bool:
    """Whether a name on the command line means this network."""
    return model.name == name if exact else name in model.name


def main() -> None:
    """Print one line per network; exit with 1 where one fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--exact", action="store_true", help="names are whole names")
    parser.add_argument("--output", type=Path, help="append the lines to this file too")
    options = parser.parse_args()
    chosen = [m for m in zoo() if not options.names or any(named(m, name, options.exact) for name in options.names)]
    failed = 0
    for model in chosen:
        row = emission(model)
        failed += not row.agrees
        print(row, flush=True)
        if options.output:
            with options.output.open("a") as stream:
                stream.write(f"{row}\n")
    print(f"{len(chosen) - failed} of {len(chosen)} agree")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
