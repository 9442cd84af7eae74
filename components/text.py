"""Text from outside (class names, run names, errors) made safe and short for people to read, without changing its meaning."""

import unicodedata
from typing import Any

MAX_LENGTH = 300
APPROACH_NAMES = {"mlp": "MLP", "resnet18": "ResNet18"}


def clean(value: Any, limit: int = MAX_LENGTH) -> str:
    """Return text without control and direction-changing characters, shortened.

    Args:
        value: Anything; numbers and structures are shown as Python writes them.
        limit: Most characters.
    """
    text = "".join(c if unicodedata.category(c)[0] != "C" or c == "\u200d" else " " for c in str(value))
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


def markdown_text(value: Any) -> str:
    """Return text that Markdown shows literally."""
    return "".join(f"\\{c}" if c in r"\`*_{}[]()#+!|<>~&:$" else c for c in clean(value))


def inline_code(value: Any) -> str:
    """Return text as Markdown code."""
    return "`" + clean(value).replace("`", "'").replace("|", "/") + "`"


def approach_name(approach: str) -> str:
    """Return the name people use for an approach."""
    return APPROACH_NAMES.get(approach, clean(approach, 60))


def percent(share: float, digits: int = 1) -> str:
    """Return a share as text: 0.8915 becomes `89.2 %`."""
    return f"{100 * share:.{digits}f} %"


def points(difference: float, digits: int = 1) -> str:
    """Return the size of a difference of shares in percentage points, without its sign."""
    return f"{abs(100 * difference):.{digits}f}"


def p_value(p: float) -> str:
    """Return a p-value as text."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def duration(seconds: float) -> str:
    """Return a duration as text: 4.2 s, 3 min 10 s, 2 h 5 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def size(num_bytes: float) -> str:
    """Return a size as text: 408 kB, 44.8 MB."""
    for unit in ("B", "kB", "MB"):
        if num_bytes < 1000:
            return f"{num_bytes:.0f} {unit}" if num_bytes >= 100 or unit == "B" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.1f} GB"
