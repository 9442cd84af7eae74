"""The queries of presigned URLs are struck out of what a local run leaves: kfp.local prints every input of every step."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import urlsplit


class Redacted(io.TextIOBase):
    """Hands whole lines on, with the given texts struck out.

    Args:
        target: The stream or file to write to.
        secrets: Texts that must not appear, longest first.
    """

    def __init__(self, target: TextIO, secrets: Sequence[str]) -> None:
        self._target, self._secrets, self._line = target, secrets, ""

    def write(self, text: str) -> int:
        """Write text; what has no line break yet waits for it."""
        whole, newline, rest = text.rpartition("\n")
        if newline:
            self._target.write(struck_out(self._line + whole + newline, self._secrets))
            self._line = ""
        self._line += rest
        return len(text)

    def flush(self) -> None:
        """Flush what was handed on."""
        self._target.flush()

    def fileno(self) -> int:
        """Return the target's number: processes started from here write there."""
        return self._target.fileno()


def secrets_of(parameters: dict[str, Any]) -> list[str]:
    """Return the queries of the sources' URLs, which may be signatures, longest first."""
    sources = (entry.partition("=")[2] for entry in parameters["data_datasets"])
    return sorted({q for source in sources if "://" in source and (q := urlsplit(source).query)}, key=len, reverse=True)


def struck_out(text: str, secrets: Sequence[str]) -> str:
    """Return the text without the secrets."""
    for secret in secrets:
        text = text.replace(secret, "***")
    return text


def strike_out_files(out: Path, secrets: Sequence[str]) -> None:
    """Strike secrets out of what the plan handed to the runner of a run that is over; it plans anew when it goes on."""
    for path in (out / "artifacts").glob("*/plan/executor_output.json") if secrets else ():
        path.write_text(struck_out(path.read_text(encoding="utf-8"), secrets), encoding="utf-8")
