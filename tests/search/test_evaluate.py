"""The evaluation ladder: cheap rungs first, each free to end a candidate, and nothing measured twice."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
from nasc.ir import NascError
from nasc.search.evaluate import Ladder
from nasc.search.figures import Figure
from nasc.search.objectives import parse_constraint, parse_objectives
from nasc.search.records import Record
from synthetic import BASE_ACCURACY, SmallBuilder, SmallJudge

EIGHT = "quantize{weights=i8, activations=u8} | calibrate"
FOUR = "quantize{weights=i4, activations=u8} | calibrate"
TWO = "quantize{weights=i2, activations=u8} | calibrate"


@dataclass
class Judged(SmallJudge):
    asked: list[str] = field(default_factory=list)

    def quality(self, network, split):  # type: ignore[no-untyped-def]
        self.asked.append("quality")
        return super().quality(network, split)

    def measure(self, network, metrics):  # type: ignore[no-untyped-def]
        self.asked.append("measure")
        return super().measure(network, metrics)


def ladder(
    builder: SmallBuilder, judge: SmallJudge, objectives: list[str], *constraints: str, epochs: int = 0
) -> Ladder:
    source = builder.source()
    wanted = parse_objectives(objectives)
    baseline = {
        **judge.static(source),
        **SmallJudge().quality(source, "validation"),
        "latency": Figure(1e-4, "measured"),
    }
    return Ladder(builder, judge, wanted, tuple(map(parse_constraint, constraints)), baseline, 0.95, epochs)


def climb(ladder: Ladder, pipeline: str, known: list[Record] | None = None, number: int = 0) -> Record:
    pipeline = ladder.text(pipeline)
    network = ladder.builder.structure(pipeline)
    record = Record(number, "failed", "test", pipeline, {}, network.key)
    return ladder.climb(record, network, known or [], lambda name: None)


def test_all_rungs_are_climbed_and_their_seconds_noted() -> None:
    record = climb(ladder(SmallBuilder(), Judged(), ["accuracy", "latency"], "latency<=1ms"), EIGHT)
    assert record.state == "complete"
    assert list(record.rungs) == ["static", "calibrate", "quality", "measure"]
    assert {"accuracy", "latency", "bit_operations", "size"} <= record.figures.keys()
    assert record.violations == {"latency<=1ms": pytest.approx(-0.9596, abs=1e-3)}
    assert record.feasible


def test_a_candidate_too_large_is_not_even_calibrated() -> None:
    judge = Judged()
    record = climb(ladder(SmallBuilder(fail=_never), judge, ["accuracy", "size"], "size<=1KB"), EIGHT)
    assert (record.state, judge.asked) == ("pruned", [])
    assert record.reason == "size<=1KB: 4.26 kB"
    assert not record.feasible


def _never(pipeline: str) -> None:
    raise AssertionError("finished although a constraint on counted costs was missed")


def test_a_candidate_of_poor_quality_is_not_measured() -> None:
    judge = Judged()
    record = climb(ladder(SmallBuilder(), judge, ["accuracy", "latency"], "accuracy>=baseline-1pt"), TWO)
    assert (record.state, judge.asked) == ("pruned", ["quality"])
    assert record.violations["accuracy>=baseline-1pt"] > 0


def test_without_latency_among_the_goals_nothing_is_measured() -> None:
    judge = Judged()
    assert climb(ladder(SmallBuilder(), judge, ["accuracy", "size"]), EIGHT).state == "complete"
    assert judge.asked == ["quality"]


def test_networks_that_run_the_same_kernels_share_one_measurement() -> None:
    judge = Judged()
    goals = ladder(SmallBuilder(), judge, ["accuracy", "latency"])
    first = climb(goals, EIGHT)
    second = climb(goals, FOUR, [first], 1)
    assert judge.asked.count("measure") == 1
    assert second.figures["latency"].notes == ("taken over from trial 0, which runs the same kernels",)
    third = climb(goals, TWO, [first, second], 2)
    assert third.figures["latency"].notes == ("taken over from trial 0, which runs the same kernels",)
    assert replace(third.figures["latency"], notes=()) == first.figures["latency"]


def test_quality_before_training_ends_nobody_and_after_training_counts() -> None:
    builder = SmallBuilder()
    goals = ladder(builder, SmallJudge(), ["accuracy", "size"], "accuracy>=baseline-1pt", epochs=3)
    record = climb(goals, FOUR)
    assert builder.trained_epochs == [1, 2, 3]
    assert [round(f.value, 3) for f in record.curve] == sorted(round(f.value, 3) for f in record.curve)
    assert len(record.curve) == 3


def test_training_stops_where_a_cheaper_network_was_better_after_as_many_epochs() -> None:
    builder = SmallBuilder()
    goals = ladder(builder, SmallJudge(), ["accuracy", "size"], epochs=3)
    small = climb(goals, "quantize{weights=i8, activations=u8} | calibrate")
    builder.trained_epochs.clear()
    worse = "quantize{weights=i8, activations=u2} | calibrate"
    stopped = climb(goals, worse, [small], 1)
    assert (stopped.state, builder.trained_epochs) == ("pruned", [1])
    assert stopped.reason == "training stopped after epoch 1: trial 0 was better, and costs no more"
    builder.trained_epochs.clear()
    cheaper = climb(goals, "quantize{weights=i2, activations=u8} | calibrate", [small], 2)
    assert builder.trained_epochs == [1, 2, 3], "it is worse, but also smaller: it must have its chance"
    assert cheaper.state == "complete"


@pytest.mark.parametrize(
    ("error", "reason", "traced"),
    [
        (NascError("no kernel for this"), "no kernel for this", False),
        (ValueError("a fault"), "ValueError: a fault", True),
        (MemoryError(), "MemoryError: ", True),
    ],
)
def test_a_failure_is_a_result_with_its_reason(error: Exception, reason: str, traced: bool) -> None:
    def fail(pipeline: str) -> None:
        raise error

    record = climb(ladder(SmallBuilder(fail=fail), SmallJudge(), ["accuracy", "size"]), EIGHT)
    assert (record.state, record.reason, record.trace is not None) == ("failed", reason, traced)
    assert list(record.rungs) == ["static", "calibrate"]
    assert record.figures["size"].value > 0, "what was known before it failed is kept"


def test_ctrl_c_is_no_failure_of_the_candidate() -> None:
    def fail(pipeline: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        climb(ladder(SmallBuilder(fail=fail), SmallJudge(), ["accuracy", "size"]), EIGHT)


def test_records_read_back_from_their_lines() -> None:
    record = climb(ladder(SmallBuilder(), SmallJudge(), ["accuracy", "latency"], "latency<=1ms", epochs=2), FOUR)
    again = Record.of(record.as_dict())
    assert again.as_dict() == record.as_dict()
    assert (again.figures, again.curve, again.violations) == (record.figures, record.curve, record.violations)
    assert again.figures["accuracy"].value < BASE_ACCURACY
