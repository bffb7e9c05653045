"""Numbers and text as a reader of a terminal wants them."""

from __future__ import annotations

import unicodedata
from typing import Any


def printable(text: str) -> str:
    """Text that cannot move the cursor or change colours: control characters become a replacement mark."""
    return "".join(c if c in "\n\t" or unicodedata.category(c) != "Cc" else "\ufffd" for c in text)


def number(value: float | None, digits: int = 4) -> str:
    """A loss with fixed digits, or a dash."""
    return "-" if value is None else f"{value:.{digits}f}"


def percent(share: float) -> str:
    """A share of 1 as 34.5 %."""
    return f"{100 * share:.1f} %"


def quantity(count: float, unit: str) -> str:
    """An amount with a decimal prefix: 1,234,000 B are 1.23 MB."""
    prefixes = ("", "k", "M", "G", "T", "P", "E")
    power = 0
    while abs(count) >= 999.5 and power < len(prefixes) - 1:
        count, power = count / 1000, power + 1
    digits = 0 if not power or count >= 99.95 else 1 if count >= 9.995 else 2
    return f"{count:.{digits}f} {prefixes[power]}{unit}"


def counted(count: int, what: str) -> str:
    """A number of things: 1 layer, 2 layers."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def duration(seconds: float) -> str:
    """Seconds as m:ss or h:mm:ss."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def model_size(event: dict[str, Any]) -> str:
    """The model of a "start" event in words."""
    model, mode = event["model"], event["model"]["mode"]
    layers, heads = counted(model["layers"], "layer"), counted(model["heads"], "head")
    if mode == "encoder-decoder":
        layers = f"{model['layers']} + {model['decoder_layers'] or model['layers']} layers"
    sizes = f"{layers}, width {model['width']}, {heads}, context {model['context']}"
    kind = mode if mode == "decoder" else f"{mode} ({event['objective']})"
    return f"{kind}, {sizes}, {event['parameters']:,} parameters"
