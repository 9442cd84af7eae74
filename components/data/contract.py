"""What ingest hands on: the packed arrays of one dataset, as directories.

`train_data/` holds `images.npy`, `labels.npy`, `split.npy`, `dataset.json` and, where the source has any, `attributes.npy`;
`test_data/` holds `images.npy`, `labels.npy`, `groups.npy`, `seen.npy` and `dataset.json`. File names live here and nowhere else.
"""

import dataclasses
import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np

from components.data.packed import PackedImages, available_bytes
from components.errors import DataError

TRAIN, VALIDATION = 0, 1
"""Values of `split.npy`."""

_CHUNK = 1024  # images written at a time
_TRAINING_COPIES = 6  # the pixels as they are, as float32, and some room for the training itself

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class DatasetInfo:
    """The content of `dataset.json`.

    Attributes:
        name: `fashion-mnist`, `fashion-products` or an own catalogue's name.
        classes: Class names in label order.
        counts: Examples per split: `train`, `validation`, `test`.
        source: Where the raw data came from, without credentials.
        checksums: Digest of each raw file by its name.
        content_hash: SHA-256 over pixels, labels, attributes and splits: equal exactly where the data is equal.
        attributes: What else is known of the training examples: the values of each attribute, in the order of their numbers.
        report: What ingest found: `quarantined`, `repaired`, `duplicate_groups`, ... (the `data` part of `summary.json`).
    """

    name: str
    classes: tuple[str, ...]
    counts: dict[str, int]
    source: str
    checksums: dict[str, str]
    content_hash: str
    attributes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    report: dict[str, Any] = field(default_factory=dict)

    def save(self, directory: Path) -> None:
        """Write `dataset.json`, sorted and stable."""
        text = json.dumps(dataclasses.asdict(self), indent=1, sort_keys=True, ensure_ascii=False)
        (directory / "dataset.json").write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read `dataset.json`; raise `DataError` if it is missing or ingest did not write it."""
        path = directory / "dataset.json"
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            attributes = {name: tuple(texts) for name, texts in values.get("attributes", {}).items()}
            return cls(**{**values, "classes": tuple(values["classes"]), "attributes": attributes})
        except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{path} must be written by the ingest step; got {error}. Run ingest again") from error


@dataclass(frozen=True, kw_only=True)
class TrainData:
    """Training and validation examples of one dataset.

    Attributes:
        images: (N, H, W, C) uint8, 0-255.
        labels: (N,) int64, 0..K-1.
        split: (N,) uint8, `TRAIN` or `VALIDATION`.
        info: Names, counts and hashes.
        attributes: (N, A) int64, the number of each example's value of the A attributes in `info`; -1 is unknown.
    """

    images: np.ndarray
    labels: np.ndarray
    split: np.ndarray
    info: DatasetInfo
    attributes: np.ndarray | None = None

    def save(self, directory: Path | str, *, rows: np.ndarray | None = None) -> None:
        """Write the directory; `dataset.json` comes last, so that a half-written one is recognised.

        Args:
            directory: Made where it is missing.
            rows: (N,) int64, the places in `images` of the N labels, where `images` holds other examples as well.
        """
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "dataset.json").unlink(missing_ok=True)
        _save_rows(directory / "images.npy", self.images, rows)
        np.save(directory / "labels.npy", self.labels.astype(np.int64))
        np.save(directory / "split.npy", self.split.astype(np.uint8))
        (directory / "attributes.npy").unlink(missing_ok=True)
        if self.attributes is not None:
            np.save(directory / "attributes.npy", self.attributes.astype(np.int64))
        self.info.save(directory)

    @classmethod
    def load(cls, directory: Path | str, *, memory_map: bool | None = None) -> Self:
        """Read the directory; raise `DataError` where it does not fit together.

        Args:
            directory: A directory that `save` wrote.
            memory_map: Whether the images stay on disk and are read where they are used. None leaves them there where a
                training would not find room for `_TRAINING_COPIES` of them.
        """
        directory = Path(directory)
        info = DatasetInfo.load(directory)
        if memory_map is None:
            path = directory / "images.npy"
            memory_map = path.exists() and _TRAINING_COPIES * path.stat().st_size > available_bytes()
            if memory_map:
                log.info("the images of %s stay on disk: memory has no room to train with them", info.name)
        images, labels = _load_arrays(directory, memory_map)
        split = _load_array(directory / "split.npy")
        if split.shape != labels.shape:
            raise DataError(
                f"{directory}: split.npy must have {len(labels)} entries; got {len(split)}. Run ingest again"
            )
        attributes = _load_array(directory / "attributes.npy") if info.attributes else None
        if attributes is not None and attributes.shape != (len(labels), len(info.attributes)):
            raise DataError(
                f"{directory}: attributes.npy must be ({len(labels)}, {len(info.attributes)}); got {attributes.shape}."
                " Run ingest again"
            )
        return cls(images=images, labels=labels, split=split, info=info, attributes=attributes)

    def part(self, which: int) -> tuple[np.ndarray, np.ndarray]:
        """Return images (n, H, W, C) uint8 and labels (n,) int64 of `TRAIN` or `VALIDATION`."""
        chosen = self.split == which
        return self.images[chosen], self.labels[chosen]


@dataclass(frozen=True, kw_only=True)
class TestData:
    """Held-out examples of one dataset; no search or training step ever receives them.

    Attributes:
        images: (N, H, W, C) uint8, 0-255.
        labels: (N,) int64, 0..K-1.
        groups: (N,) int64; examples with identical pixels share a number.
        info: Names, counts and hashes.
        seen: (M,) uint64, sorted `short_digests` of all training and validation images, by which later runs know what a model of
            this data was trained or selected on; None where they are unknown.
    """

    __test__ = False  # not a test class, whatever pytest reads into the name

    images: np.ndarray
    labels: np.ndarray
    groups: np.ndarray
    info: DatasetInfo
    seen: np.ndarray | None = None

    def save(self, directory: Path | str, *, rows: np.ndarray | None = None) -> None:
        """Write the directory; `dataset.json` comes last, so that a half-written one is recognised.

        Args:
            directory: Made where it is missing.
            rows: (N,) int64, the places in `images` of the N labels, where `images` holds other examples as well.
        """
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "dataset.json").unlink(missing_ok=True)
        _save_rows(directory / "images.npy", self.images, rows)
        np.save(directory / "labels.npy", self.labels.astype(np.int64))
        np.save(directory / "groups.npy", self.groups.astype(np.int64))
        (directory / "seen.npy").unlink(missing_ok=True)
        if self.seen is not None:
            np.save(directory / "seen.npy", self.seen.astype(np.uint64))
        self.info.save(directory)

    @classmethod
    def load(cls, directory: Path | str, *, memory_map: bool = False) -> Self:
        """Read the directory; raise `DataError` where it does not fit together."""
        directory = Path(directory)
        info = DatasetInfo.load(directory)
        images, labels = _load_arrays(directory, memory_map)
        groups = _load_array(directory / "groups.npy")
        seen = _load_array(directory / "seen.npy") if (directory / "seen.npy").exists() else None
        return cls(images=images, labels=labels, groups=groups, info=info, seen=seen)


def _save_rows(path: Path, images: np.ndarray | PackedImages, rows: np.ndarray | None) -> None:
    """Write `images[rows]` as `np.save` does, without making a copy of it in memory."""
    if rows is not None and isinstance(images, PackedImages) and images.is_in(path.parent):
        images.become(path, rows)
        return
    num_rows = len(images) if rows is None else len(rows)
    header = {"descr": "|u1", "fortran_order": False, "shape": (num_rows, *images.shape[1:])}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for start in range(0, num_rows, _CHUNK):
            chosen = slice(start, start + _CHUNK) if rows is None else rows[start : start + _CHUNK]
            file.write(np.ascontiguousarray(images[chosen], np.uint8).data)


def _load_array(path: Path, memory_map: bool = False) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r" if memory_map else None, allow_pickle=False)
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:
        raise DataError(f"{path} must be an array written by the ingest step; got {error}. Run ingest again") from error


def _load_arrays(directory: Path, memory_map: bool) -> tuple[np.ndarray, np.ndarray]:
    images, labels = _load_array(directory / "images.npy", memory_map), _load_array(directory / "labels.npy")
    if images.dtype != np.uint8 or images.ndim != 4 or len(images) != len(labels):
        raise DataError(
            f"{directory} must hold images (N, H, W, C) uint8 and N labels; got {images.dtype} {images.shape} and"
            f" {len(labels)} labels. Run ingest again"
        )
    return images, labels
