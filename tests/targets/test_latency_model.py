"""The latency model: prices found again, wider classes where a narrow one is unknown, and how wrong it is."""

from __future__ import annotations

import random
from collections.abc import Mapping

import pytest
from nasc.ir import Graph
from nasc.targets import target_named
from nasc.targets.latency_model import (
    FEWEST,
    Example,
    OpWork,
    disturbed,
    fit,
    left_out,
    priced,
    shorter,
    spearman,
    spent,
    work_of,
)
from nasc.targets.profile import KernelProfile

from .conftest import graph_of

CPU = target_named("onnxruntime:cpu")
TEXT = """
graph @net(%x: f32[N, 3, 8, 8]) {
  width $a = 20
  width $b = 16
  %a.w: f32[$a, 3, 3, 3] = weight
  %a: f32[N, $a, 8, 8] = conv2d %x, %a.w {padding=[1, 1]}
  %r: f32[N, $a, 8, 8] = relu %a
  %q: u8<2^-5>[N, $a, 8, 8] = quantize %r
  %b.w: i8<per 0>[$b, $a, 1, 1] = weight
  %b: f32[N, $b, 8, 8] = conv2d %q, %b.w
  %c: u8<2^-5>[N, $b, 8, 8] = quantize %b
  %d.w: f32[$b, 1, 3, 3] = weight
  %d: f32[N, $b, 6, 6] = conv2d %c, %d.w {groups=$b}
  %m: f32[N, $b] = mean %d {dim=[2, 3]}
  %y.w: f32[10, $b] = weight
  %y: f32[N, 10] = linear %m, %y.w
  return %y
}"""


def graph(**sizes: int) -> Graph:
    return graph_of(TEXT).with_sizes(sizes)


def work(found: Graph, batch: int = 1) -> dict[str, OpWork]:
    return {entry.name: entry for entry in work_of(found, CPU.plan(found), batch)}


def test_classes_say_what_decides_the_kernel() -> None:
    found = work(graph())
    assert found["a"].kind == ("conv2d", "float", "", "window")
    assert found["b"].kind == ("conv2d", "integer", "", "pointwise")
    assert found["d"].kind == ("conv2d", "float, input in codes", "one channel per group", "window")
    assert found["q"].kind == ("quantize", "numbers", "after float", "before integer")
    assert "a.w" not in found


def test_amounts_count_whole_blocks_of_channels() -> None:
    found = work(graph(a=17, b=16))
    assert found["a"].amounts[1] == 64 * 32 * 16 * 9  # 17 outputs fill two blocks of 16, 3 inputs one
    assert found["a"].amounts[4:] == (3 * 64, 17 * 27)
    assert found["b"].amounts[1] == 64 * 16 * 17
    assert work(graph(), batch=3)["a"].amounts[1] == 3 * work(graph())["a"].amounts[1]


PRICE = {"conv2d": 2e-11, "linear": 5e-11}


def truth(entries: Mapping[str, OpWork]) -> dict[str, float]:
    """A device whose time is what its prices say."""
    found: dict[str, float] = {}
    for entry in entries.values():
        per = PRICE.get(entry.kind[0])
        found[entry.name] = 3e-6 + (per * entry.amounts[1] if per else 1e-10 * entry.amounts[2])
    return found


def examples(count: int, noise: float = 0.0, seed: int = 0) -> list[Example]:
    draw = random.Random(seed)
    found: list[Example] = []
    for _ in range(count):
        entries = work(graph(a=draw.randint(4, 200), b=draw.randint(4, 200)))
        times = {name: time_s * (1 + noise * draw.gauss(0, 1)) for name, time_s in truth(entries).items()}
        found.append(Example(tuple(entries.values()), times, sum(times.values())))
    return found


def test_networks_of_other_sizes_are_predicted() -> None:
    model = fit(examples(20))
    for sizes in ({"a": 300, "b": 5}, {"a": 33, "b": 64}):
        entries = work(graph(**sizes))
        found = model.predict(tuple(entries.values()))
        assert found.seconds == pytest.approx(sum(truth(entries).values()), rel=0.02)
        assert found.unknown == ()
        assert set(found.ops_s) == set(entries)


def test_it_says_how_wrong_it_is() -> None:
    model = fit(examples(40, noise=0.1))
    assert model.error is not None and 0.005 < model.error < 0.2
    assert model.rank is not None and model.rank > 0.9
    fresh = examples(60, noise=0.1, seed=1)
    found = [model.predict(e.work) for e in fresh]
    inside = sum(p.low <= e.latency_s <= p.high for p, e in zip(found, fresh, strict=True))
    assert inside >= 50  # nine of ten asked


def test_networks_that_take_more_than_their_ops_the_larger_they_are() -> None:
    def grown(example: Example) -> Example:
        latency_s = 1e-3 * (example.latency_s / 1e-3) ** 1.3
        factor = latency_s / example.latency_s
        return Example(example.work, {n: t * factor for n, t in example.times_s.items()}, latency_s)

    model = fit([grown(e) for e in examples(40)])
    found = [(model.predict(e.work), grown(e).latency_s) for e in examples(20, seed=1)]
    assert all(p.seconds == pytest.approx(latency_s, rel=0.08) for p, latency_s in found)
    assert all(sum(p.ops_s.values()) == pytest.approx(p.seconds) for p, _ in found)
    assert fit(examples(40)).whole == pytest.approx((0.0, 1.0), abs=0.05)


def test_examples_are_predicted_by_models_that_have_not_seen_them() -> None:
    """One example that is far off spoils its own prediction only where it was fitted to."""
    found = examples(10)
    odd = Example(found[0].work, {n: 10 * t for n, t in found[0].times_s.items()}, 10 * found[0].latency_s)
    predicted = left_out([odd, *found[1:]])
    assert predicted[0] == pytest.approx(found[0].latency_s, rel=0.05)


def test_few_examples_promise_nothing() -> None:
    model = fit(examples(FEWEST - 1))
    assert (model.error, model.rank) == (None, None)
    found = model.predict(examples(1, seed=5)[0].work)
    assert found.low < found.seconds / 1.4 and found.high > found.seconds * 1.4
    with pytest.raises(ValueError, match="found none"):
        fit([])


def test_unknown_classes_take_the_wider_one_and_unknown_kinds_are_named() -> None:
    model = fit(examples(10))
    known = examples(1)[0].work[0]
    other = OpWork("z", (*known.kind[:-1], "another"), known.amounts)
    assert model.predict([other]).seconds == pytest.approx(model.predict([known]).seconds, rel=0.5)
    assert model.predict([OpWork("z", ("fft", "numbers"), (1.0, 2.0, 3.0, 4.0))]).unknown == ("fft",)
    assert list(shorter(("a", "b", "c"))) == [("a", "b", "c"), ("a", "b"), ("a",)]


def test_disturbed_times_do_not_lead_prices_astray() -> None:
    """A fifth of the times is ten times too long, the others scatter by a tenth."""
    draw = random.Random(0)
    rows = [
        ((1.0, float(n)), (1e-5 + 1e-6 * n) * (10 if n % 5 == 0 else 1 + draw.gauss(0, 0.1))) for n in range(1, 200)
    ]
    found = priced(rows)
    assert found[0] + 100 * found[1] == pytest.approx(1e-5 + 1e-4, rel=0.1)
    assert disturbed({"a": 2.0, "b": 1.1}, 2.0) and not disturbed({"a": 2.0, "b": 0.9}, 2.0)


def test_prices_are_never_negative() -> None:
    rows = [((1.0, float(n)), 5e-5 - 1e-7 * n) for n in range(100)]
    assert min(priced(rows)) >= 0


def test_times_of_kernels_go_to_their_ops() -> None:
    def kernel(layer: str, time_s: float) -> KernelProfile:
        return KernelProfile("k", "K", "CPU", layer, (layer,), "", "f32", time_s, 0.0, 0, 0, 0)

    kernels = [kernel("a", 1e-3), kernel("a", 1e-3), kernel("y", 2e-3)]
    assert spent(graph(), kernels) == pytest.approx({"a": 2e-3, "y": 2e-3})
    assert spent(graph(), kernels, latency_s=8e-3) == pytest.approx({"a": 4e-3, "y": 4e-3})


def test_rank_correlation_by_hand() -> None:
    assert spearman([1, 2, 3], [10, 20, 30]) == pytest.approx(1)
    assert spearman([1, 2, 3, 4], [4, 3, 2, 1]) == pytest.approx(-1)
    assert spearman([1, 2, 3, 4], [1, 3, 2, 4]) == pytest.approx(0.8)
    assert spearman([1, 1, 1], [1, 2, 3]) == 0
