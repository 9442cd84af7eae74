"""These functions compute digests of files and of pixels."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

_CHUNK_BYTES = 2**20


def digest_file(path: Path) -> str:
    """Return the SHA-256 of a file as hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_images(images: np.ndarray) -> np.ndarray:
    """Return (N, 32) uint8: the SHA-256 of each image's pixels; `images` is (N, H, W, C) uint8."""
    digests = b"".join(hashlib.sha256(image).digest() for image in np.ascontiguousarray(images))
    return np.frombuffer(digests, np.uint8).reshape(len(images), 32)


def short_digests(digests: np.ndarray) -> np.ndarray:
    """Return (N,) uint64: the first 8 bytes of each digest, (N, 32) uint8; of a million images, no two share them by chance."""
    return np.ascontiguousarray(digests[:, :8]).view(">u8").ravel().astype(np.uint64)


def digest_all(parts: Iterable[bytes]) -> str:
    """Return one SHA-256 over parts, each preceded by its length, as hex digits."""
    total = hashlib.sha256()
    for part in parts:
        total.update(len(part).to_bytes(8, "big"))
        total.update(part)
    return total.hexdigest()
