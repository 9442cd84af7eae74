"""This module computes digests, by the names that stores give them, of content that arrives in pieces."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable
from typing import Protocol

import google_crc32c


class Digest(Protocol):
    """The methods that `hashlib`'s objects share with checksums."""

    def update(self, data: bytes, /) -> None:
        """Add the next bytes."""

    def hexdigest(self) -> str:
        """Return the digest of all bytes so far, as stores write it."""


def parts_md5(part_bytes: int) -> str:
    """Return the name of the digest that S3 gives an object which was uploaded in parts of that many bytes."""
    return f"md5 of parts of {part_bytes}"


def new_digest(name: str) -> Digest:
    """Return an empty digest: `sha256`, `sha1`, `md5`, `crc32`, `crc32c`, or one that `parts_md5` names."""
    if name.startswith(prefix := parts_md5(0)[:-1]):
        return _PartsMd5(int(name.removeprefix(prefix)))
    if name in _CHECKSUMS:
        return _CHECKSUMS[name]()
    return hashlib.new(name, usedforsecurity=False)


class _PartsMd5:
    """The MD5 of the parts' MD5, and how many parts there are."""

    def __init__(self, part_bytes: int) -> None:
        self._part_bytes = part_bytes
        self._whole = hashlib.md5(usedforsecurity=False)
        self._part = hashlib.md5(usedforsecurity=False)
        self._left, self._num_parts = part_bytes, 0

    def update(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            piece, view = view[: self._left], view[self._left :]
            if self._left == self._part_bytes:
                self._num_parts += 1
            self._part.update(piece)
            self._left -= len(piece)
            if not self._left:
                self._whole.update(self._part.digest())
                self._part, self._left = hashlib.md5(usedforsecurity=False), self._part_bytes

    def hexdigest(self) -> str:
        whole = self._whole.copy()
        if self._left < self._part_bytes:
            whole.update(self._part.digest())
        return f"{whole.hexdigest()}-{self._num_parts}"


class _Crc32:
    def __init__(self) -> None:
        self._value = 0

    def update(self, data: bytes) -> None:
        self._value = zlib.crc32(data, self._value)

    def hexdigest(self) -> str:
        return f"{self._value:08x}"


class _Crc32c:
    def __init__(self) -> None:
        self._value = google_crc32c.Checksum()

    def update(self, data: bytes) -> None:
        self._value.update(data)

    def hexdigest(self) -> str:
        return self._value.hexdigest().decode()


_CHECKSUMS: dict[str, Callable[[], Digest]] = {"crc32": _Crc32, "crc32c": _Crc32c}
