"""What every store promises: small objects under slash-separated keys, and one atomic primitive, create-if-absent."""

from __future__ import annotations

import re
from typing import Protocol

from components.errors import ParameterError, StorageError

DEADLINE_SECONDS = 600.0
"""How long a call is repeated before the store counts as unavailable: outlasts a regional blip."""


class ObjectNotFoundError(StorageError, LookupError):
    """No object has this key."""

    def __init__(self, uri: str) -> None:
        super().__init__(f"{uri} must exist; got no such object")


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
        """Write an object whatever was there; readers see the old or the new content."""

    def list(self, prefix: str = "") -> list[str]:
        """Return all keys that start with the prefix, sorted."""

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
