"""The end of a search: who wins, on what evidence, and what is written."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from nasc.ir import NascError, UsageError
from nasc.search.figures import METRICS, Figures, value_text
from nasc.search.output import Manifest, read_manifest
from nasc.search.protocols import Split
from nasc.search.result import Result, brief
from nasc.search.run import search
from synthetic import SmallBuilder, SmallJudge, accuracy, bits, configuration, problem

FILES = ["best", "front.json", "nasc.toml", "report.html", "study.journal", "study.json", "trials.jsonl"]
EIGHTEEN = "linear: weights=[i2,i4,i8], activations=[u4,u8], biases=[i2,i4,i8]"


def run(
    output: Path,
    trials: int = 40,
    builder: SmallBuilder | None = None,
    judge: SmallJudge | None = None,
    **flags: object,
) -> Result:
    given = {"search.trials": trials, **{k.replace("__", "."): v for k, v in flags.items()}}
    return search(problem(builder, judge), configuration(given, folder=output).settings, output)


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Result:
    return run(tmp_path_factory.mktemp("search") / "out")


def test_the_winner_keeps_quality_on_new_samples_with_few_bit_operations(result: Result) -> None:
    test = result.best.test["accuracy"]
    assert test.difference is not None
    assert test.difference > -0.01
    assert result.reference is not None
    saved = result.baseline.figures["bit_operations"].value / result.best.figures["bit_operations"].value
    assert saved > 24
    assert result.reference.figures["bit_operations"].value / result.best.figures["bit_operations"].value > 1.4


def test_the_default_objectives_trade_bit_operations_where_time_says_nothing(result: Result) -> None:
    assert [str(o) for o in result.goals.objectives] == ["accuracy:max", "bit_operations:min"]
    assert any("bit operations take latency's place" in text for text in result.notices)
    assert "latency" in result.best.figures, "the winner is measured all the same"


def test_where_time_counts_it_is_the_objective(tmp_path: Path) -> None:
    found = run(tmp_path / "out", 16, judge=SmallJudge(overhead=None))
    assert [str(o) for o in found.goals.objectives] == ["accuracy:max", "latency:min"]
    assert "not slower than the fastest of them" in found.rule
    fastest = min(r.figures["latency"].value for r in found.trials if "latency" in r.figures)
    assert found.best.figures["latency"].value <= 1.02 * fastest


def test_where_time_cannot_be_had_it_is_said(tmp_path: Path) -> None:
    judge = SmallJudge(overhead=None, missing={"latency": "there is no clock"})
    found = run(tmp_path / "out", 8, judge=judge)
    assert [o.metric.name for o in found.goals.objectives] == ["accuracy", "bit_operations"]
    assert "latency cannot be measured (there is no clock); bit operations take its place" in found.notices
    assert not judge.timed
    with pytest.raises(UsageError, match="latency cannot be had here: there is no clock"):
        run(tmp_path / "two", 8, judge=judge, search__objectives=["accuracy", "latency"])
    with pytest.raises(UsageError, match="energy cannot be had for this network"):
        run(tmp_path / "three", 8, judge=judge, search__constraints=["energy<=1mJ"])
    assert not (tmp_path / "two").exists()


@dataclass
class Lucky(SmallJudge):
    """Validation flatters every network by one and a half points; other samples tell the truth."""

    def quality(self, network, split: Split) -> Figures:  # type: ignore[no-untyped-def]
        found = dict(super().quality(network, split))
        if split == "validation" and any(w < 32 for _, w, _ in bits(network.graph).values()):
            figure = accuracy(network.graph, "validation")
            difference = (figure.difference or 0.0) + 0.015
            found["accuracy"] = replace(figure, value=figure.value + 0.015, difference=difference)
            found.pop("loss")
        return found


def test_luck_on_validation_samples_does_not_win(tmp_path: Path) -> None:
    honest = run(tmp_path / "one", judge=Lucky())
    assert honest.refused, "some would have won on validation samples alone"
    assert all((f["accuracy"].difference or 0.0) < -0.005 for f in honest.refused.values())
    assert (honest.best.test["accuracy"].difference or 0.0) > -0.01
    fooled = run(tmp_path / "two", judge=Lucky(splits=frozenset({"validation", "test"})))
    assert (fooled.best.test["accuracy"].difference or 0.0) < -0.01, "without a second look luck wins"


@pytest.mark.parametrize("splits", [("validation", "confirmation"), ("validation",)])
def test_where_no_candidate_surely_keeps_the_tolerance_the_rule_says_what_chose(
    tmp_path: Path, splits: tuple[Split, ...]
) -> None:
    found = run(tmp_path / "out", 10, judge=SmallJudge(splits=frozenset(splits)), search__tolerance="0.01pt")
    chosen = "since no network surely keeps accuracy>=baseline-0.01pt, the feasible one with the best accuracy"
    assert found.rule == f"{chosen} (at its lower bound)"
    assert any("the best quality wins instead" in text for text in found.notices)
    assert found.rule in found.summary()[0]
    assert read_manifest(tmp_path / "out" / "best" / "manifest.json").rule == found.rule


def test_the_folder_holds_what_the_documentation_says_and_nothing_else(result: Result) -> None:
    names = sorted(p.name for p in result.folder.iterdir() if not p.name.endswith(".lock"))
    assert names == FILES
    assert sorted(p.name for p in (result.folder / "best").iterdir()) == [
        "manifest.json",
        "model.nasc",
        "model.onnx",
        "model.safetensors",
    ]


def test_the_manifest_names_files_by_their_digests_and_reads_back(result: Result) -> None:
    folder = result.folder / "best"
    manifest = read_manifest(folder / "manifest.json")
    for name, digest in manifest.files.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
    assert set(manifest.files) == {"model.onnx", "model.nasc", "model.safetensors"}
    assert manifest.pipeline == result.best.pipeline
    assert manifest.best.test["accuracy"]["value"] == result.best.test["accuracy"].value
    assert manifest.check == {"agrees": True, "samples": 256, "largest_difference": 0.0}
    assert [row["name"] for row in manifest.layers] == ["fc1", "fc2", "fc3", "fc4"]
    assert manifest.command.endswith(f"--output {result.folder}")
    assert Manifest.model_validate(manifest.model_dump()) == manifest


def test_a_damaged_manifest_is_told(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    path.write_text('{"format": 1}')
    with pytest.raises(NascError, match="is no manifest that this version of nasc reads"):
        read_manifest(path)


def test_two_searches_of_one_seed_write_the_same_bytes(tmp_path: Path) -> None:
    one, two = run(tmp_path / "one", 20), run(tmp_path / "two", 20)
    for name in ("best/model.onnx", "best/model.nasc", "front.json"):
        assert (one.folder / name).read_bytes() == (two.folder / name).read_bytes(), name

    def timeless(folder: Path) -> list[dict[str, object]]:
        rows = [json.loads(line) for line in (folder / "trials.jsonl").read_text().splitlines()]
        return [{k: v for k, v in row.items() if k != "rungs"} for row in rows]

    assert timeless(one.folder) == timeless(two.folder)


def test_front_json_holds_the_front(result: Result) -> None:
    found = json.loads((result.folder / "front.json").read_text())
    assert [row["trial"] for row in found["front"]] == [m.number for m in result.front]
    assert found["best"] == result.best.number
    assert found["objectives"] == ["accuracy:max", "bit_operations:min"]


def test_trials_jsonl_has_a_line_per_trial_with_the_cost_of_each_rung(result: Result) -> None:
    rows = [json.loads(line) for line in (result.folder / "trials.jsonl").read_text().splitlines()]
    assert [row["number"] for row in rows] == [r.number for r in result.trials]
    assert all({"build", "static", "calibrate", "quality"} <= row["rungs"].keys() for row in rows if "rungs" in row)
    assert sum("duplicate_of" not in row for row in rows) == 40


def test_the_saved_settings_do_the_same_again(result: Result, tmp_path: Path) -> None:
    settings = configuration(path=result.folder / "nasc.toml").settings
    again = search(problem(), settings, tmp_path / "again")
    assert [r.pipeline for r in again.trials] == [r.pipeline for r in result.trials]
    assert again.best.pipeline == result.best.pipeline


class Reader(HTMLParser):
    """Sees whether tags close in order, and gathers text outside of scripts and styles."""

    VOID = ("meta", "br", "wbr")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for key, value in attrs if key in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in ("li", "p", "td", "th", "tr") and tag not in self.open:
            return
        while self.open and self.open[-1] != tag:
            assert self.open.pop() in ("p", "li"), f"</{tag}> closes nothing"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if not {"script", "style"} & set(self.open):
            self.text.append(data)


def test_the_report_stands_alone_and_says_what_matters_without_scripts(result: Result) -> None:
    page = result.report().read_text()
    reader = Reader()
    reader.feed(page)
    text = re.sub(r"\s+", " ", " ".join(reader.text))
    assert not reader.open
    assert not reader.links, "the report reaches for nothing outside of itself"
    assert page.count("Plotly.newPlot(") == 2
    for expected in (
        "accuracy on test samples",
        "bit operations take latency's place",
        "uniform 8 bits",
        result.command,
        result.best.pipeline,
        "fc4",
        "counted from the graph",
        "looked at again",
    ):
        assert expected in text, expected


def test_names_in_the_report_cannot_end_its_scripts(result: Result) -> None:
    from nasc.search.report import report_html

    evil = replace(result, name="</script><script>alert(1)</script>", source="<img src=x>")
    trials = (replace(evil.trials[0], origin="</script><b>"), *evil.trials[1:])
    page = report_html(replace(evil, trials=trials))
    assert "<script>alert" not in page
    assert "<img" not in page.split("</style>")[1].split("<script>")[0]
    assert "</script><b>" not in page


def test_one_objective_and_a_weighted_sum_have_reports_too(tmp_path: Path) -> None:
    weighted = run(tmp_path / "one", 10, search__objectives=["accuracy:max:1", "bit_operations:min:0.5"])
    assert weighted.rule == "the feasible network with the largest weighted sum of the objectives"
    single = run(tmp_path / "two", 10, search__objectives=["size"], search__constraints=["accuracy>=baseline-2pt"])
    feasible = [r for r in single.trials if r.feasible]
    assert single.best.figures["size"].value == min(r.figures["size"].value for r in feasible)
    assert single.report().stat().st_size > 1_000_000


def test_where_no_candidate_keeps_the_constraints_it_is_said_why(tmp_path: Path) -> None:
    with pytest.raises(NascError, match="none of .* keeps the constraints") as told:
        run(tmp_path / "out", 10, search__constraints=["size<=10B"])
    assert "They ended because of: size<=10B (10 times)." in str(told.value)
    rows = [json.loads(line) for line in (tmp_path / "out" / "trials.jsonl").read_text().splitlines()]
    best = min((row for row in rows if "duplicate_of" not in row), key=lambda row: row["figures"]["size"]["value"])
    value = value_text(METRICS["size"], best["figures"]["size"]["value"])
    said = f"Nearest to size<=10B of those that miss it comes trial {best['number']} with {value}"
    assert f"{said}: loosen the constraint, or offer fewer bits (--space)" in str(told.value)
    assert "Nearest to accuracy" not in str(told.value), "no candidate came so far as to miss it"
    assert (tmp_path / "out" / "trials.jsonl").read_text().count("\n") >= 10, "what was found out is kept"


def test_where_constraints_exclude_each_other_the_nearest_to_each_is_named(tmp_path: Path) -> None:
    with pytest.raises(NascError) as told:
        run(tmp_path / "out", 10, search__constraints=["size<=2500B", "accuracy>=baseline-0.1pt"])
    assert re.search(r"Nearest to size<=2500B of those that miss it comes trial \d+ with [\d.]+ kB", str(told.value))
    assert re.search(r"Nearest to accuracy>=baseline-0.1pt of those .* comes trial \d+ with 7\d.*%", str(told.value))
    assert "more bits (--space) or training (--train-epochs)" in str(told.value)


def test_a_reference_outside_of_the_space_is_evaluated_beside_the_trials(tmp_path: Path) -> None:
    found = run(tmp_path / "out", 4, search__space=["*: weights=[i2, i4, i6], activations=u7"])
    assert found.paid == 3
    assert found.reference is not None
    assert found.reference.number is None
    assert "weights=i8, activations=u8" in found.reference.pipeline
    assert found.reference.test
    again = run(tmp_path / "out", 4, search__space=["*: weights=[i2, i4, i6], activations=u7"])
    assert again.reference == found.reference


@dataclass
class NoIntegers(SmallJudge):
    """A device on which integers take longer."""

    def measure(self, network, metrics):  # type: ignore[no-untyped-def]
        found = super().measure(network, metrics)
        slower = {name: replace(figure, verdict="SLOWER") for name, figure in found.items()}
        return slower if any(w <= 8 for _, w, _ in bits(network.graph).values()) else found


def test_what_runs_in_containers_is_said_once_and_in_each_layer(result: Result) -> None:
    layers = read_manifest(result.folder / "best" / "manifest.json").layers
    runs = {row["name"]: (row["weights_run"], row["inputs_run"]) for row in layers}
    formats = {row["name"]: (row["weights"], row["activations"]) for row in layers}
    for name, pair in formats.items():
        assert runs[name] == tuple("native" if format in ("i8", "u8") else "container" for format in pair)
    narrow = ", ".join(name for name, both in runs.items() if "container" in both)
    assert narrow, "the winner has layers of fewer than 8 bits"
    said = [text for text in result.notices if "8-bit containers" in text]
    assert len(said) == 1
    assert said[0].startswith(f"{narrow}: fewer than 8 bits run in 8-bit containers")
    assert re.search(r"the file stores [\d.]+ kB of weights, [\d.]+ kB are counted$", said[0])
    assert said[0] in result.summary()
    assert said[0] in read_manifest(result.folder / "best" / "manifest.json").notices
    assert "fewer than 8 bits run in 8-bit containers" in result.report().read_text()


def test_where_8_bits_are_slower_it_is_said_what_helps(tmp_path: Path) -> None:
    found = run(tmp_path / "out", 4, judge=NoIntegers(overhead=None))
    assert any("`--only-faster` leaves those layers real" in text for text in found.notices)
    asked = run(tmp_path / "two", 4, judge=NoIntegers(overhead=None), search__only_faster=True)
    assert not any("--only-faster" in text for text in asked.notices)
    assert all("only=faster" in r.pipeline for r in asked.trials)
    assert any("in a row gave networks that are known already" in text for text in asked.notices)


def test_finalists_are_trained_where_that_is_possible(tmp_path: Path) -> None:
    builder = SmallBuilder(trains=True)
    found = run(tmp_path / "out", 30, builder=builder)
    assert builder.trained_epochs
    assert any(r.epochs == 3 for r in found.trials)
    again = SmallBuilder(trains=True)
    run(tmp_path / "out", 30, builder=again)
    assert not again.trained_epochs, "what training made of the finalists is kept with the study"


def test_tables_say_what_a_candidate_chooses() -> None:
    text = (
        "cleanup | resize{fc1=24, importance=l1} | quantize{layers=[fc1, fc2], weights=i4, activations=u8} | calibrate"
    )
    assert brief(text) == "fc1=24, fc1 fc2 i4/u8"
    assert brief("quantize{layers=fc1, weights=i4, biases=i8}") == "fc1 i4/f32 bias i8"
    assert brief("") == ""


def test_the_table_has_source_reference_and_winner(result: Result) -> None:
    columns, rows = result.table()
    assert columns == ["trial", "network", "accuracy", "bit operations", "bytes of weights", "weights/inputs"]
    assert [row[1] for row in rows[:2]] == ["source", "uniform 8 bits"]
    assert sum(row[1] == "best" for row in rows) == 1
    assert any("fewer" in row[3] for row in rows)
    assert json.loads(json.dumps(result.as_dict()))["best"] == result.best.number
    assert any("against uniform 8 bits" in line for line in result.summary())
