"""Decodes a list of JPEG members into one array with all cores."""

import hashlib
import math
from collections.abc import Sequence

import numpy as np

from components.data.examples import Members
from components.data.findings import Findings
from components.data.parallel import in_order
from components.data.readers.jpeg import UndecodableError, decode
from components.errors import DataError

MAX_PACKED_BYTES = 8 * 2**30
"""Decoded images of one dataset at most: all of them are in memory once."""

_BATCH = 256


def decode_members(
    members: Members, names: Sequence[str], size: tuple[int, int], findings: Findings
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Decode images in the order of `names`.

    Args:
        members: Zip archive or directory that holds them.
        names: N member names.
        size: Height and width of every image, pixels.
        findings: Receives `quarantined` and `normalised`.

    Returns:
        Images (N, H, W, 3) uint8; which of them (N,) bool are usable; SHA-256 of the pixels (N, 32) uint8. The memory
        of the images is the only large one.

    Raises:
        DataError: They would need more than `MAX_PACKED_BYTES`.
    """
    num_bytes = len(names) * math.prod(size) * 3
    if num_bytes > MAX_PACKED_BYTES:
        raise DataError(
            f"{len(names):,} images of {size[0]} x {size[1]} pixels must need at most {MAX_PACKED_BYTES:,} bytes; got"
            f" {num_bytes:,}. Choose a smaller size, or set data_limit"
        )
    images = np.empty((len(names), *size, 3), np.uint8)
    usable = np.zeros(len(names), bool)
    digests = np.zeros((len(names), 32), np.uint8)

    def decode_batch(start: int) -> list[tuple[int, str, tuple[str, ...]]]:
        unusual = []
        for i in range(start, min(start + _BATCH, len(names))):
            try:
                image, notes = decode(members.read(names[i]), size)
            except (UndecodableError, DataError) as error:
                unusual.append((i, str(error), ()))
                continue
            images[i] = image
            usable[i] = True
            digests[i] = np.frombuffer(hashlib.sha256(image).digest(), np.uint8)
            if notes:
                unusual.append((i, "", notes))
        return unusual

    for unusual in in_order(decode_batch, range(0, len(names), _BATCH)):
        for i, reason, notes in unusual:
            findings.normalised.update(notes)
            if reason:
                findings.quarantine(names[i], reason, names[i])
    return images, usable, digests
