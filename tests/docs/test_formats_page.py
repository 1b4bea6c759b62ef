"""The page on number formats says what the code does."""

import re
from pathlib import Path

from nasc.compiler.pipeline import parse_pipeline
from nasc.ir import parse_encoding
from nasc.ir.formats import MX
from nasc.targets import target_named

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "formats.md").read_text()

EXAMPLES = {
    "i8": "i8<per 0>",
    "2 to 7": "i4<per 0>",
    "9 to 16": "i12<per 0>",
    "ternary": "ternary<0.5>",
    "with another": "u8<per 0, zeros>",
    "integers in": "i4<block 32>",
    "f8e4m3": "f8e4m3<per 0>",
    "f16": "f16",
    "minifloats": "f4e2m1<block 32 2^>",
}
"""One format for each row of the table of where formats run."""


def part(start: str, end: str) -> str:
    """The page between two texts."""
    return PAGE.split(start)[1].split(end)[0]


def test_the_elements_exist():
    for row in re.findall(r"^\| (`.*?) \|", part("## Elements", "Everything saturates"), re.MULTILINE):
        names = [name for name in re.findall(r"`([^`]+)`", row) if "{" not in name]
        assert names and [str(parse_encoding(name)) for name in names] == names


def test_the_steps_can_be_written():
    steps = re.findall(r"`<([^`>]+)>`", part("## Steps", "With these"))
    assert len(steps) == 15
    assert [str(parse_encoding(f"u8<{step}>")) for step in steps] == [f"u8<{step}>" for step in steps]


def test_the_short_names_are_those_there_are():
    assert re.findall(r"`(mx\w+)`", PAGE.split("**Microscaling")[1])[: len(MX)] == list(MX)


def test_the_passes_can_be_read():
    lines = re.findall(r"^    (\w.*)$", PAGE.split("## Passes")[1], re.MULTILINE)
    assert len(lines) == 7
    for line in lines:
        parse_pipeline(line.split("  ")[0].strip())


def test_formats_run_as_the_table_says():
    cpu = target_named("onnxruntime:cpu")
    table = part("| format | weights | activations |", "Where it says")
    rows = [row.strip("|").split("|") for row in table.splitlines() if row.startswith("| ") and "---" not in row]
    assert len(rows) == len(EXAMPLES)
    for name, *cells in rows:
        (example,) = [e for start, e in EXAMPLES.items() if name.strip().strip("`").startswith(start)]
        for cell, role in zip(cells, ("weight", "activation"), strict=True):
            encoding = parse_encoding(
                example if role == "weight" else example.replace("per 0, zeros", "0.5, 3").replace("per 0", "0.5")
            )
            assert cpu.supports(encoding, role).runs in re.split("[,;]", cell)[0], (name, role)
