"""Write settings as TOML: plain values, lists of texts, one table per section, with a comment on what each is for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

WIDTH = 100


def toml_text(settings: BaseModel) -> str:
    """The settings of a model and its sections as TOML."""
    return "\n".join(_lines(settings, "")) + "\n"


def _lines(section: BaseModel, name: str) -> Iterator[str]:
    fields = type(section).model_fields
    tables = {key: value for key in fields if isinstance(value := getattr(section, key), BaseModel)}
    if name:
        yield f"[{name}]"
    for key, field in fields.items():
        if key in tables:
            continue
        value = getattr(section, key)
        if field.description:
            yield f"# {field.description}"
        yield f"# {key} is not set" if value is None else f"{key} = {value_text(value)}"
    for key, table in tables.items():
        yield ""
        yield from _lines(table, f"{name}.{key}" if name else key)


def value_text(value: Any) -> str:
    """A value as TOML.

    Raises:
        TypeError: TOML has no such value.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list | tuple):
        items = [value_text(item) for item in value]
        line = f"[{', '.join(items)}]"
        return line if len(line) <= WIDTH else "[\n" + "".join(f"  {item},\n" for item in items) + "]"
    raise TypeError(f"no TOML for a {type(value).__name__}")
