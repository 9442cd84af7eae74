"""All ways of fetching a file share this: the place it goes to, the patience, and the checks afterwards."""

import base64
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from components.errors import DataError
from components.stores.digests import new_digest

MAX_BYTES = 2**40
"""Largest raw file: five million photographs."""

CHUNK_BYTES = 2**20


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long to try.

    Attributes:
        connect_seconds: For a connection.
        read_seconds: For the next bytes.
        tries: In a row without a new byte.
        first_pause_seconds: Before the second try; doubles from there.
        longest_pause_seconds: Bound of a pause.
    """

    connect_seconds: float = 10.0
    read_seconds: float = 60.0
    tries: int = 5
    first_pause_seconds: float = 0.5
    longest_pause_seconds: float = 20.0


PATIENCE = Patience()


@dataclass
class Partial:
    """A download in progress: its bytes, and which version of the file they belong to.

    A killed process leaves both files, and the next one goes on from there if the version is still the same.
    """

    path: Path
    validator: str = ""

    @classmethod
    def open(cls, path: Path) -> "Partial":
        """Open the download, with the bytes that an earlier attempt left."""
        try:
            state = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
            if path.is_file() and isinstance(state["validator"], str) and state["validator"]:
                return cls(path, state["validator"])
        except (OSError, ValueError, KeyError, TypeError):
            pass
        partial = cls(path)
        partial.discard()
        return partial

    @property
    def size(self) -> int:
        """Return the number of bytes that have arrived."""
        return self.path.stat().st_size if self.path.exists() else 0

    def begin(self, validator: str) -> None:
        """Start anew with this version of the file."""
        self.discard()
        self.validator = validator
        self.path.touch()
        self.path.with_suffix(".json").write_text(json.dumps({"validator": validator}), encoding="utf-8")

    def discard(self) -> None:
        """Delete the download."""
        self.validator = ""
        self.path.unlink(missing_ok=True)
        self.path.with_suffix(".json").unlink(missing_ok=True)


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What is known of a file before or while it is fetched; empty means unknown.

    Attributes:
        num_bytes: Length.
        digests: Hexadecimal digest by the names of `stores.digests`.
    """

    num_bytes: int | None = None
    digests: dict[str, str] = field(default_factory=dict)

    def joined(self, other: "Expected") -> "Expected":
        """Return both together; this one's values win."""
        num_bytes = other.num_bytes if self.num_bytes is None else self.num_bytes
        return Expected(num_bytes=num_bytes, digests=other.digests | self.digests)


class Remote(Protocol):
    """One file somewhere else.

    Attributes:
        name: File name.
        key: Identifies the place, for the cache's index; never shown.
        label: The place as reports name it.
        expected: What is known beforehand.
        is_pinned: Whether a digest is fixed in the program or by the user, so that a cached copy needs no question whether it is still current.
    """

    @property
    def name(self) -> str: ...  # noqa: D102 - see above

    @property
    def key(self) -> str: ...  # noqa: D102

    @property
    def label(self) -> str: ...  # noqa: D102

    @property
    def expected(self) -> Expected: ...  # noqa: D102

    @property
    def is_pinned(self) -> bool: ...  # noqa: D102

    def fetch(self, partial: Partial, known_validator: str) -> Expected | None:
        """Bring all bytes into `partial`.

        Args:
            partial: What an earlier try left, or nothing.
            known_validator: The version that is cached; empty for none.

        Returns:
            What the sender said of the file, or None where the cached version is still current.
        """


def check(partial: Partial, expected: Expected, label: str) -> str:
    """Check a fetched file and return its SHA-256 as hex digits.

    Raises:
        DataError: Length or a digest differs; names both.
    """
    num_bytes = partial.size
    if expected.num_bytes is not None and num_bytes != expected.num_bytes:
        raise DataError(
            f"{label} must have all its bytes; expected {expected.num_bytes:,} bytes, got {num_bytes:,}. Run again"
        )
    wanted = {name: new_digest(name) for name in {"sha256", *expected.digests}}
    with partial.path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            for value in wanted.values():
                value.update(chunk)
    got = {name: value.hexdigest() for name, value in wanted.items()}
    for name, digest in expected.digests.items():
        if got[name] != digest:
            raise DataError(
                f"{label} must have {name.upper()} {digest}; got {got[name]}. It is damaged or another version: run again, or"
                " check the source"
            )
    return got["sha256"]


def hex_of_base64(text: str) -> str:
    """Return a base64 digest, as object stores give it, as hex digits."""
    return base64.b64decode(text).hex()
