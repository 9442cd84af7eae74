"""Every store keeps small objects under slash-separated keys and has one atomic primitive, create-if-absent."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Protocol

from components.errors import ParameterError, StorageError

DEADLINE_SECONDS = 600.0
"""How long a call is repeated before the store counts as unavailable: outlasts a regional blip."""


class ObjectNotFoundError(StorageError, LookupError):
    """No object has this key."""

    def __init__(self, uri: str) -> None:
        super().__init__(f"{uri} must exist; got no such object")


@dataclass(frozen=True, kw_only=True)
class Stat:
    """Size, version and digests of an object.

    Attributes:
        size: Bytes.
        version: Changes with every write of other content: a generation, an ETag, a file's time and number.
        digests: Hexadecimal digest by the names of `stores.digests`, as far as the store knows them.
    """

    size: int
    version: str
    digests: dict[str, str] = field(default_factory=dict)


class Store(Protocol):
    """Objects of bytes under keys such as `trials/00017/params.json`; threads may share one.

    Every method raises the errors of `components.errors`: `PermissionDeniedError`, `UnavailableError` after the
    deadline, `ConfigurationError` for a missing bucket or missing credentials, `StorageError` for a full disk.

    Attributes:
        uri: Where the keys start, without a slash at the end.
    """

    uri: str

    def __truediv__(self, prefix: str) -> Store:
        """Return the store of the keys under a prefix."""

    def with_deadline(self, seconds: float) -> Store:
        """Return the same store, its calls repeated for at most so long."""

    def create(self, key: str, data: bytes) -> bool:
        """Write an object if there is none of this key, atomically and durably.

        Returns:
            True where this call wrote it, even if the acknowledgement was lost on the way; False where another did.
        """

    def read(self, key: str) -> bytes:
        """Return an object's content, checked against the store's checksum; raise `ObjectNotFoundError` without one."""

    def write(self, key: str, data: bytes) -> None:
        """Write an object, whether or not there was one; readers see the old or the new content."""

    def stat(self, key: str) -> Stat:
        """Return size, version and digests of an object; raise `ObjectNotFoundError` without one."""

    def read_range(self, key: str, start: int, end: int, version: str) -> bytes:
        """Return bytes `start` to `end` (exclusive) of one version of an object.

        A range has no checksum: whoever reads a whole object this way checks it against the digests of `stat`, and reads
        it twice where the store knows none.

        Raises:
            TryAgainError: The object was replaced or removed since it had that version.
        """

    def list(self, prefix: str = "") -> list[str]:
        """Return all keys that start with the prefix, sorted; objects that stand for folders are none."""

    def stats(self, prefix: str = "", *, most: int | None = None) -> dict[str, Stat]:
        """Return each key with its `Stat`, for at most so many keys."""

    def delete(self, key: str) -> None:
        """Remove an object; one that is absent is fine."""

    def sweep(self, min_age_seconds: float) -> None:
        """Remove what killed writers left behind and no reader can see."""


def checked_key(key: str) -> str:
    """Return the key; raise `ParameterError` where it could name something outside the store."""
    parts = key.split("/")
    if not all(parts) or any(part in (".", "..") or part.startswith(".tmp-") for part in parts):
        raise ParameterError(
            f"object key must be parts joined by single slashes, none of them '.' or '..'; got {key!r}"
        )
    if not re.fullmatch(r"[\x20-\x7e]{1,900}", key):
        raise ParameterError(f"object key must be 1 to 900 printable ASCII characters; got {key[:80]!r}")
    return key
