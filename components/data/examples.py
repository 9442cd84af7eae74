"""Readers take files by name and return one dataset's examples before any split."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from components.data.findings import Findings
from components.data.packed import PackedImages


class Members(Protocol):
    """Files by name: those of a directory, of an archive, of several, or a few fetched ones.

    Attributes:
        names: Names in composed form (NFC) with `/`, without those that systems leave beside the data.
        num_companions: How many of those there are, such as `.DS_Store`.
        refused: Reason by name, for files that cannot be offered.
        digests: SHA-256 of the files that were read, where the source does not have one digest of its own.
    """

    @property
    def names(self) -> Sequence[str]: ...  # noqa: D102 - see above

    @property
    def num_companions(self) -> int: ...  # noqa: D102

    @property
    def refused(self) -> Mapping[str, str]: ...  # noqa: D102

    @property
    def digests(self) -> Mapping[str, bytes]: ...  # noqa: D102

    def read(self, name: str) -> bytes:
        """Return a file's verified content, within the reader's limits; threads may call it at once."""

    def close(self) -> None:
        """Close what is open."""


@dataclass(kw_only=True)
class RawDataset:
    """Examples of one source, normalised to one size.

    Attributes:
        images: (M, H, W, C) uint8, 0-255; only `rows` of it are examples.
        rows: (N,) int64, each example's place in `images`.
        labels: (N,) int64, 0..K-1.
        classes: K class names in label order; all of them have examples.
        ids: (N,) str, the publisher's name of each example.
        digests: (N, 32) uint8, SHA-256 of each example's pixels.
        official_test: (N,) bool where the publisher fixed a test set, else None.
        checksums: Digest of each raw file.
        findings: Defects.
        attributes: (N, A) int64, numbers of each example's values; -1 is unknown.
        attribute_values: The A attributes' values in the order of their numbers; the attributes are sorted by name.
    """

    images: np.ndarray | PackedImages
    rows: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    ids: np.ndarray
    digests: np.ndarray
    official_test: np.ndarray | None
    checksums: dict[str, str]
    findings: Findings
    attributes: np.ndarray | None = None
    attribute_values: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def close(self) -> None:
        """Give back the room of images that were packed and not saved."""
        if isinstance(self.images, PackedImages):
            self.images.close()
