"""Images are decoded on all cores straight into one array on disk: memory does not grow with their number."""

import errno
import hashlib
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from components.data.examples import Members
from components.data.findings import Findings
from components.data.packed import PackedImages
from components.data.parallel import in_order
from components.data.readers.images import UndecodableError, decode
from components.errors import DataError, StorageError, file_error

_BATCH = 256
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def decode_members(
    members: Members, names: Sequence[str], size: tuple[int, int], findings: Findings, scratch: Path
) -> tuple[PackedImages, np.ndarray, np.ndarray]:
    """Decode images in the order of `names`.

    Args:
        members: Archive or directory that holds them.
        names: N member names.
        size: Height and width of every image, pixels.
        findings: Receives `quarantined` and `normalised`.
        scratch: Folder for the packed images; they need H x W x 3 bytes each.

    Returns:
        Images (N, H, W, 3) uint8; which of them (N,) bool are usable; SHA-256 of the pixels (N, 32) uint8.

    Raises:
        StorageError: The disk is full.
    """
    usable = np.zeros(len(names), bool)
    digests = np.zeros((len(names), 32), np.uint8)

    def decode_batch(start: int) -> list[tuple[int, str, tuple[str, ...]]]:
        end = min(start + _BATCH, len(names))
        unusual: list[tuple[int, str, tuple[str, ...]]] = []
        batch = np.zeros((end - start, *size, 3), np.uint8)
        for i in range(start, end):
            try:
                image, notes = decode(members.read(names[i]), size)
            except (UndecodableError, DataError) as error:
                unusual.append((i, str(error), ()))
                continue
            batch[i - start] = image
            usable[i] = True
            digests[i] = np.frombuffer(hashlib.sha256(image).digest(), np.uint8)
            if notes:
                unusual.append((i, "", notes))
        images.write(start, batch)
        return unusual

    with _finding_room(scratch, len(names), size):
        images = PackedImages(scratch, (len(names), *size, 3))
        try:
            for unusual in in_order(decode_batch, range(0, len(names), _BATCH)):
                for i, reason, notes in unusual:
                    findings.normalised.update(notes)
                    if reason:
                        findings.quarantine(names[i], reason, names[i])
        except BaseException:
            images.close()
            raise
    return images, usable, digests


@contextmanager
def _finding_room(scratch: Path, num_images: int, size: tuple[int, int]) -> Iterator[None]:
    """Turn what the operating system says of the packed images into an error that says how much room they need."""
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise file_error(error, place=error.filename or scratch) from error
        raise StorageError(
            f"{num_images:,} images of {size[0]} x {size[1]} pixels must find {num_images * math.prod(size) * 3:,} bytes of"
            f" disk; got {error.strerror}. Make room, choose a smaller size, or set data_limit"
        ) from error
