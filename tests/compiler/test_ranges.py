"""The methods of calibration, each against somebody else's way to the same range."""

from __future__ import annotations

import nasc
import numpy as np
import pytest
import torch
from nasc.compiler.network import Network
from nasc.compiler.ranges import BINS, average_range, entropy_range, percentile_range, smoothed, whole_range
from nasc.compiler.steps import symmetric_steps
from nasc.compiler.weights import Rounded
from nasc.ir import format_named
from support.graphs import graph_of
from support.networks import network_of
from torch import Tensor, nn

ROWS = "%x: f32[N, 6]"
WEIGHT = "%w: i8<{}?>[6, 500] = weight\n%y: f32[N, 6] = linear %x, %w"


def drawn(kind: str, count: int = 65536) -> Tensor:
    torch.manual_seed(0)
    if kind == "laplace":
        return torch.distributions.Laplace(0.0, 1.0).sample((count,))
    return torch.relu(torch.randn(count)) if kind == "relu" else torch.randn(count) + 0.5


def test_average_is_the_observers_of_torch() -> None:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.ao.quantization import MovingAverageMinMaxObserver

        observer = MovingAverageMinMaxObserver(averaging_constant=0.1)
    batches = [torch.randn(32, 6) * (1 + i) for i in range(8)]
    ranges = [(float(b.min()), float(b.max())) for b in batches]
    for batch in batches:
        observer(batch)
    assert average_range(ranges, 0.9) == pytest.approx((float(observer.min_val), float(observer.max_val)), rel=1e-5)


def test_average_of_batches_that_come_in_one_piece() -> None:
    """The pass makes batches of 32 samples of whatever it is given, in order."""
    x = torch.cat([torch.full((32, 6), float(i)) for i in (1, 3, 5)])
    network = network_of(graph_of("%y: i8<?>[N, 6] = quantize %x", ROWS))
    for data in (x, [x[:64], x[64:]]):
        step = network.apply("calibrate{method=average, momentum=0.5}", data=data).graph.types["y"].step
        assert step is not None and step.value is not None
        assert step.value * 127 == pytest.approx(0.5 * (0.5 * 1 + 0.5 * 3) + 0.5 * 5)


@pytest.mark.parametrize("percent", [99.0, 99.9, 99.99, 100.0])
def test_percentile_is_numpys(percent: float) -> None:
    values = drawn("normal", 10001)
    share = (100 - percent) / 2
    low, high = np.percentile(values.double().numpy(), [share, 100 - share], method="nearest")
    assert percentile_range(values, percent) == pytest.approx((min(low, 0.0), max(high, 0.0)))


def kl_by_the_book(counts: np.ndarray, first: int, last: int, levels: int) -> float:
    """The divergence bin by bin, as in the talk, without any of our code but the smoothing."""
    from scipy.stats import entropy

    p = [float(c) for c in counts[first:last]]
    groups: dict[int, list[int]] = {}
    for at in range(len(p)):
        groups.setdefault(at * levels // len(p), []).append(at)
    clipped = list(p)
    clipped[0] += float(sum(counts[:first]))
    clipped[-1] += float(sum(counts[last:]))
    q = [0.0] * len(p)
    for members in groups.values():
        holding = [at for at in members if clipped[at] > 0]
        for at in holding:
            q[at] = sum(p[i] for i in members) / len(holding)
    return float(entropy(smoothed(np.array(clipped)), smoothed(np.array(q))))


@pytest.mark.parametrize(("kind", "levels"), [("laplace", 256), ("laplace", 16), ("relu", 64), ("normal", 16)])
def test_entropy_takes_the_window_of_least_divergence(kind: str, levels: int) -> None:
    values = drawn(kind)
    low, high = whole_range(values)
    found = entropy_range(values, low, high, levels)
    seen = values[values != 0].double().numpy()
    counts, edges = np.histogram(seen, bins=BINS, range=(low, high))

    def divergence(window: tuple[float, float]) -> float:
        first, last = (int(np.abs(edges - end).argmin()) for end in window)
        return kl_by_the_book(counts, first, last, levels)

    least = min(divergence((s * low, s * high)) for s in np.linspace(levels / BINS, 1, 61)[1:])
    assert divergence(found) <= 1.02 * least + 1e-6
    assert kind != "laplace" or found[1] < 0.95 * high, "there is something to gain"


def test_entropy_is_near_onnxruntimes() -> None:
    """Theirs rounds masses to whole numbers and drops a remainder of bins, so the two are near, not equal."""
    from onnxruntime.quantization.calibrate import HistogramCollector

    values = drawn("laplace")
    most = float(values.abs().max())
    theirs = HistogramCollector("entropy", True, 511, 64, 99.9, "same")
    counts, edges = np.histogram(values.numpy(), bins=511, range=(-most, most))
    bound = theirs.get_entropy_threshold((counts, edges, np.float64(-most), np.float64(most)), 64)[1]
    ours = entropy_range(values, -most, most, 64)[1]
    assert 0.75 * float(bound) < ours < 1.25 * float(bound) < 1.25 * most


def test_zeros_of_a_relu_do_not_narrow_the_range() -> None:
    values = drawn("relu")
    low, high = whole_range(values)
    assert entropy_range(torch.cat([values, torch.zeros(10**6)]), low, high, 256) == entropy_range(
        values, low, high, 256
    )
    assert entropy_range(values, low, high, 256)[1] > 0.6 * high


@pytest.mark.parametrize("kind", ["relu", "laplace"])
@pytest.mark.parametrize("levels", [64, 256])
def test_constants_do_not_narrow_the_range(kind: str, levels: int) -> None:
    """Each has a code to itself in all windows that hold it, as zero has."""
    values = drawn(kind).abs()
    low, high = whole_range(values)
    shared = torch.tensor([0.02, 0.11, 0.23, 0.31, 0.52, 0.66]).repeat_interleave(20000) * high
    alone, among = (entropy_range(v, low, high, levels)[1] for v in (values, torch.cat([values, shared])))
    assert among > 0.85 * alone
    far = torch.cat([values, torch.full((20000,), 0.97 * high)])
    assert entropy_range(far, low, high, levels)[1] >= 0.97 * high, "a constant that many share is not clipped"


def test_constants_that_share_a_code_are_not_told_apart() -> None:
    """256 constants and 16 codes: their masses are merged, as those of any values are."""
    pixels = (drawn("laplace").abs() * 16).round().clamp(max=255) / 255
    low, high = whole_range(pixels)
    assert entropy_range(pixels, low, high, 256)[1] == pytest.approx(high), "each has a code of 8 bits to itself"
    assert entropy_range(pixels, low, high, 16)[1] < 0.8 * high


@pytest.mark.parametrize("samples", [16, 32, 64])
def test_dark_borders_do_not_ruin_entropy(samples: int) -> None:
    """Behind a convolution a border is one constant per channel: the narrowest window won, and clipped the rest."""
    torch.manual_seed(0)
    inner = nn.functional.interpolate(torch.rand(samples, 1, 4, 4), size=8, mode="bilinear").square()
    x = nn.functional.pad(inner, (4,) * 4)
    model = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 8, 3)).eval()
    network = nasc.lower(model, x[:2]).apply("quantize{activations=u8} | calibrate{method=entropy}", data=x)
    step = [op.type.step for op in network.graph.ops if op.kind == "quantize"][1]
    assert step is not None and step.value is not None
    seen = model[:2](x).detach()
    codes = torch.clamp(torch.round(seen / step.value), 0, 255)
    error = (codes * step.value - seen).square().sum() / seen.square().sum()
    assert error < 1e-3


def test_wide_formats_and_constants_leave_nothing_to_choose() -> None:
    values = drawn("normal", 100)
    assert entropy_range(values, -1.0, 2.0, 1 << 16) == (-1.0, 2.0)
    assert entropy_range(torch.zeros(5), 0.0, 0.0, 16) == (0.0, 0.0)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_mse_is_the_best_of_a_fine_grid(bits: int) -> None:
    rows, format = drawn("laplace", 4000)[None], format_named(f"i{bits}")
    (step,) = symmetric_steps(rows, format, mse=True, power_of_two=False).tolist()

    def error(step: float) -> float:
        return float(
            (torch.fake_quantize_per_tensor_affine(rows, step, 0, format.low, format.high) - rows).square().sum()
        )

    full = float(rows.abs().max()) / format.high
    assert error(step) <= 1.05 * min(error(full * s) for s in np.linspace(0.2, 1, 400))


def steps_of(network: Network) -> Tensor:
    recipe = network.weights.recipe("w")
    assert isinstance(recipe, Rounded)
    return recipe.steps


@pytest.mark.parametrize("method", ["minmax", "percentile", "mse"])
def test_weights_per_tensor_and_per_channel(method: str) -> None:
    pipeline = f"calibrate{{weights={method}, percentile=99}}"
    per_tensor, per_channel = (
        network_of(graph_of(WEIGHT.format(axis), "%x: f32[N, 500]")).apply(pipeline) for axis in ("", "per 0 ")
    )
    rows = per_tensor.weights.real("w")
    assert steps_of(per_tensor).shape == () and steps_of(per_channel).shape == (6,)

    def wanted(values: Tensor) -> float:
        if method == "percentile":
            return float(np.percentile(values.abs().numpy(), 99)) / 127
        return float(values.abs().max()) / 127

    tolerance = 1e-6 if method == "minmax" else 0.02 if method == "percentile" else 0.3
    assert float(steps_of(per_tensor)) == pytest.approx(wanted(rows), rel=tolerance)
    for row, step in zip(rows, steps_of(per_channel), strict=True):
        assert float(step) == pytest.approx(wanted(row), rel=tolerance)
    errors = [float((n.values["w"] - rows).square().sum()) for n in (per_tensor, per_channel)]
    assert method == "percentile" or errors[1] < errors[0]
