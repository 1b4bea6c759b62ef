"""The pages on the IR, the search and the configuration say what the code does."""

import re
from pathlib import Path

from nasc.ir import parse, text, verify
from nasc.search.config import Settings, configuration, flat
from nasc.search.figures import METRICS
from nasc.search.objectives import parse_constraint, parse_objectives
from nasc.search.space_rules import parse_rule
from nasc.search.strategies import STRATEGIES

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_every_graph_of_the_pages_parses_verifies_and_prints_as_it_stands():
    blocks = [b for page in DOCS.glob("*.md") for b in re.findall(r"```nasc\n(.*?)```", page.read_text(), re.DOTALL)]
    assert blocks
    for block in blocks:
        graph = parse(block)
        verify(graph)
        assert text(graph) == block


def test_every_setting_is_documented_with_its_default():
    page = (DOCS / "configuration.md").read_text()
    rows = dict(re.findall(r"^\| `([\w.]+)` \| (.*?) \|", page, re.MULTILINE))
    shown = {None: "unset", True: "true", False: "false"}
    expected = {
        k: shown[v] if v is None or isinstance(v, bool) else str(list(v) if isinstance(v, tuple) else v)
        for k, v in flat(Settings()).items()
    }
    assert rows == expected


def test_the_configuration_example_is_valid(tmp_path: Path):
    (example,) = re.findall(r"```toml\n(.*?)```", (DOCS / "configuration.md").read_text(), re.DOTALL)
    (tmp_path / "nasc.toml").write_text(example)
    settings = configuration(path=tmp_path / "nasc.toml").settings
    assert (settings.seed, settings.search.trials, settings.training.epochs) == (1, 60, 2)


def test_strategies_and_rules_of_the_search_page_exist():
    page = (DOCS / "search.md").read_text()
    table = page.split("## Strategies")[1].split("**Seeds.**")[0]
    named = [
        name for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for name in re.findall(r"`([\w-]+)`", row)
    ]
    assert named == list(STRATEGIES)
    rules = [*re.findall(r"--space '([^']+)'", page), *re.findall(r"`([^`\n]+: \w+=[^`\n]+)`", page)]
    assert [str(parse_rule(rule)).split(":")[0] for rule in rules] == [
        *("linear", "*", "each layer3.*", "each fc*", "grouped *", "each layer1.*", "*")
    ]


def test_objectives_and_constraints_of_the_search_page_can_be_read():
    page = (DOCS / "search.md").read_text()
    objectives = re.findall(r"--objective ([\w:.]+)", page)
    constraints = re.findall(r"--constraint '([^']+)'", page)
    assert [str(o) for o in parse_objectives(objectives)] == objectives
    assert [str(parse_constraint(text)) for text in constraints] == constraints
    table = page.split("A bound is")[1].split("A constraint is checked")[0]
    bounds = [
        text for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for text in re.findall(r"`([^`]+)`", row)
    ]
    unit = {
        "ms": "latency",
        "us": "latency",
        "mJ": "energy",
        "KB": "size",
        "MiB": "size",
        "M": "macs",
        "dB": "fidelity",
    }
    for bound in bounds:
        metric = next((m for u, m in unit.items() if bound.endswith(u)), "accuracy")
        parse_constraint(f"{metric}<={bound}")


def test_the_metrics_of_the_search_page_are_those_there_are():
    page = (DOCS / "search.md").read_text()
    table = page.split("What can be one:")[1].split("**By default**")[0]
    named = {name for text in re.findall(r"`([^`]+)`", table) for name in text.split()}
    assert named == set(METRICS)
