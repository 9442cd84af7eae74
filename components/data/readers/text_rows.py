"""Takes a table's bytes apart into lines, quarantining those that are no text."""

from collections.abc import Iterator

from components.data.findings import Findings

MAX_LINE_BYTES = 10_000

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def header_line(data: bytes) -> str:
    """Return the first line, without byte order mark and line end."""
    return _line(data.removeprefix(_BYTE_ORDER_MARK).partition(b"\n")[0]).decode("utf-8", "replace")


def text_lines(data: bytes, findings: Findings, name: str) -> Iterator[tuple[int, str]]:
    """Yield number and text of every line after the first that is short, UTF-8 and printable; blank ones are skipped.

    Args:
        data: The file, any line ends.
        findings: Receives the others.
        name: File name.
    """
    for number, raw in enumerate(data.split(b"\n")[1:], 2):
        line = _line(raw)
        if not line:
            continue
        if len(line) > MAX_LINE_BYTES:
            findings.quarantine(f"{name} line {number}", f"longer than {MAX_LINE_BYTES:,} bytes", line[:200])
            continue
        try:
            text = line.decode()
        except UnicodeDecodeError:
            findings.quarantine(f"{name} line {number}", "not UTF-8", line)
            continue
        if not text.isprintable():
            findings.quarantine(f"{name} line {number}", "control character", text)
            continue
        yield number, text


def count_lines(data: bytes) -> int:
    """Return how many lines after the first are not blank."""
    return sum(1 for raw in data.split(b"\n")[1:] if _line(raw))


def _line(raw: bytes) -> bytes:
    return raw.removesuffix(b"\r")
