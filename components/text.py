"""Text from outside (class names, run names, errors) is made safe and short for people, without changing its meaning."""

import functools
import unicodedata
from collections.abc import Sequence
from typing import Any

from components.approaches import APPROACHES

MAX_LENGTH = 300
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")
_LONGEST = 10_000


def clean(value: Any, limit: int = MAX_LENGTH) -> str:
    """Return text without control and direction-changing characters, shortened.

    Args:
        value: Anything; numbers and structures are shown as Python writes them.
        limit: Most characters.
    """
    text = "".join(c if unicodedata.category(c)[0] != "C" or c == "\u200d" else " " for c in str(value))
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


def printable(text: str) -> str:
    """Return text with a blank in place of each control character, so that it cannot steer a terminal or a log."""
    return "".join(c if c.isprintable() else " " for c in text)


def escaped(value: object, limit: int = 120) -> str:
    """Return any value as short printable text in which control characters are escaped, for messages about data.

    Args:
        value: Anything; bytes are read as UTF-8.
        limit: Most characters.
    """
    text = value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
    text = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text[: limit + 1])
    return text if len(text) <= limit else text[: limit - 3] + "..."


def error_text(error: BaseException) -> str:
    """Return what an error of a library says as `escaped` does, its lines beside each other."""
    return escaped(" ".join(line.strip() for line in str(error).splitlines()))


def short_names(names: Sequence[str], limit: int) -> list[str]:
    """Return names cleaned and shortened so that they still differ wherever they did.

    Of a path such as `Home > Clothing > Dresses` its end stays, of other names the beginning, and of those that would look
    the same the part from where they differ. What cannot be told apart that way gets a number.

    Args:
        names: Any texts.
        limit: Most characters of each.
    """
    return list(_short_names(tuple(names), limit))


@functools.lru_cache(maxsize=32)
def _short_names(names: tuple[str, ...], limit: int) -> tuple[str, ...]:
    whole = {name: clean(name, _LONGEST) for name in names}
    short = {name: text if len(text) <= limit else _shortened(text, limit) for name, text in whole.items()}
    for same in _alike(short):
        letters = enumerate(zip(*(whole[name] for name in same), strict=False))
        common = next((place for place, characters in letters if len(set(characters)) > 1), 0)
        for name in same:
            if len(whole[name]) > limit:
                short[name] = clean("…" + whole[name][max(0, common - limit // 3) :], limit)
    taken = set(short.values())
    for same in _alike(short):
        for number, name in enumerate(sorted(same)[1:], 2):
            while (text := f"{short[name][: limit - 2 - len(str(number))].rstrip('…')}… {number}") in taken:
                number += len(same)
            taken.add(text)
            short[name] = text
    return tuple(short[name] for name in names)


def _alike(texts: dict[str, str]) -> list[list[str]]:
    """Return the names that are shown as the same text."""
    groups: dict[str, list[str]] = {}
    for name, text in texts.items():
        groups.setdefault(text, []).append(name)
    return [same for same in groups.values() if len(same) > 1]


def _shortened(text: str, limit: int) -> str:
    for separator in (" > ", "/", " | "):
        parts = text.split(separator)
        for first in range(1, len(parts)):
            if len(end := "…" + separator + separator.join(parts[first:])) <= limit:
                return end
    return text[: limit - 1] + "…"


def csv_cell(value: Any) -> Any:
    """Return a cell of a CSV that people open; text that a spreadsheet would take for a formula gets an apostrophe.

    Source: https://owasp.org/www-community/attacks/CSV_Injection
    """
    return f"'{value}" if isinstance(value, str) and value.lstrip(" ").startswith(_FORMULA_STARTS) else value


def markdown_text(value: Any) -> str:
    """Return text that Markdown shows literally."""
    return "".join(f"\\{c}" if c in r"\`*_{}[]()#+!|<>~&:$" else c for c in clean(value))


def inline_code(value: Any) -> str:
    """Return text as Markdown code."""
    return "`" + clean(value).replace("`", "'").replace("|", "/") + "`"


def approach_name(approach: str) -> str:
    """Return the name people use for an approach."""
    return APPROACHES[approach].title if approach in APPROACHES else clean(approach, 60)


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
