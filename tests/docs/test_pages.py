"""The pages on the IR, the search and the configuration say what the code does."""

import re
from pathlib import Path

from nasc.ir import parse, text, verify
from nasc.search.config import Settings, configuration, flat
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
    shown = {None: "unset", (): "[]", True: "true", False: "false"}
    expected = {
        k: shown[v] if v is None or v == () or isinstance(v, bool) else str(v) for k, v in flat(Settings()).items()
    }
    assert rows == expected


def test_the_configuration_example_is_valid(tmp_path: Path):
    (example,) = re.findall(r"```toml\n(.*?)```", (DOCS / "configuration.md").read_text(), re.DOTALL)
    (tmp_path / "nasc.toml").write_text(example)
    settings = configuration(path=tmp_path / "nasc.toml").settings
    assert (settings.seed, settings.search.trials, settings.training.epochs) == (1, 60, 2)


def test_strategies_and_rules_of_the_search_page_exist():
    page = (DOCS / "search.md").read_text()
    (line,) = re.findall(r"\*\*Strategies\*\* \(`--search`\): (.*?)\. All", page, re.DOTALL)
    assert re.findall(r"`([\w-]+)`", line) == list(STRATEGIES)
    rules = re.findall(r"--space '([^']+)'", page)
    assert len(rules) == 3
    assert [str(parse_rule(rule)).split(":")[0] for rule in rules] == ["linear", "each fc*", "fc1"]
