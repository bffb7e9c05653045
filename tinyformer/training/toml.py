"""Writing TOML, as far as settings need it; reading is the standard library's `tomllib`."""

from __future__ import annotations

import json
import math
from typing import Any


def format_toml(sections: dict[str, dict[str, Any]]) -> str:
    """TOML for sections of plain values: text, numbers, truths, lists of these. None is left out."""
    lines = []
    for section, values in sections.items():
        lines.append(f"[{section}]")
        lines += [f"{_key(name)} = {_value(value)}" for name, value in values.items() if value is not None]
        lines.append("")
    return "\n".join(lines)


def _key(name: str) -> str:
    bare = name.isascii() and name.replace("-", "").replace("_", "").isalnum()
    return name if bare else _value(name)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
        text = repr(value)
        return text if "." in text or "e" not in text else text.replace("e", ".0e")
    if isinstance(value, str):
        # JSON's escapes are TOML's, but for DEL. A file name's bytes that are no UTF-8 become question marks.
        text = value.encode("utf-8", "replace").decode()
        return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_value, value)) + "]"
    raise TypeError(f"a {type(value).__name__} has no place in a configuration")
