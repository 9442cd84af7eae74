"""Opens what a person names as pictures: files, folders, archives, and arrays of images as data sets have them."""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from components.data.examples import Members
from components.data.readers.archives import is_archive, open_archive
from components.data.readers.directory import FileMembers
from components.data.readers.idx import gunzip, parse_idx
from components.data.readers.pairing import IMAGE_SUFFIXES
from components.errors import DataError, FashionTuningError, file_error
from components.text import escaped

_IDX = re.compile(r".*-images-idx3-ubyte(\.gz)?")

Read = Callable[[], bytes | np.ndarray]
"""Gives a picture: the content of an image file, or an image (H, W, C) uint8; raises a `FashionTuningError`."""


@dataclass(frozen=True)
class _Part:
    """The pictures of one path."""

    names: Sequence[str]
    read: Callable[[int], bytes | np.ndarray]


class Pictures:
    """The pictures that some paths name, in the paths' order, those of a folder or archive in the order of their names.

    A path that gives no picture counts as one that cannot be read.

    Attributes:
        num_ignored: Files of folders and archives that no image format's name ends.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        """Look at every path; pictures are read when they are asked for.

        Args:
            paths: Image files, folders, zip or tar archives, `.npy` arrays (N, H, W, C), and MNIST's IDX files.
        """
        self.num_ignored = 0
        self._opened: list[Members] = []
        self._parts = [self._part(path) for path in paths]

    def __len__(self) -> int:
        return sum(len(part.names) for part in self._parts)

    def __iter__(self) -> Iterator[tuple[str, Read]]:
        """Yield each picture's name and the call that reads it; threads may make such calls."""
        for part in self._parts:
            for number, name in enumerate(part.names):
                yield name, _Reading(part, number)

    def close(self) -> None:
        """Close the archives."""
        for members in self._opened:
            members.close()

    def _part(self, path: Path) -> _Part:
        label = os.fsencode(path).decode("utf-8", "backslashreplace")
        try:
            if path.is_dir():
                return self._members(label, FileMembers.from_directory(path))
            if is_archive(path.name):
                return self._members(label, open_archive(path))
            if path.suffix == ".npy":
                return _array(label, np.load(path, mmap_mode="r", allow_pickle=False))
            if _IDX.fullmatch(path.name):
                return _array(label, _idx(path))
        except FashionTuningError as error:
            return _failing(label, error)
        except OSError as error:
            return _failing(label, file_error(error, "must be readable", escaped(label)))
        except (ValueError, EOFError) as error:
            return _failing(label, DataError(f"{escaped(label)} must be readable; got {error}. Check the path"))
        single = FileMembers({label: path})
        return _Part([label], lambda _: single.read(label))

    def _members(self, label: str, members: Members) -> _Part:
        self._opened.append(members)
        names = sorted(name for name in members.names if name.lower().endswith(IMAGE_SUFFIXES))
        refused = sorted(name for name in members.refused if name.lower().endswith(IMAGE_SUFFIXES))
        self.num_ignored += len(members.names) - len(names)
        if not names and not refused:
            return _failing(label, DataError(f"{escaped(label)} must hold images; got none. Check the path"))

        def read(number: int) -> bytes:
            if number >= len(names):
                reason = members.refused[refused[number - len(names)]]
                raise DataError(f"{escaped(refused[number - len(names)])} is not read: {reason}")
            data = members.read(names[number])
            if isinstance(members, FileMembers):
                members.digests.clear()  # nobody asks for them, and there may be millions
            return data

        return _Part(_Labels(label.rstrip("/"), [*names, *refused]), read)


@dataclass(frozen=True)
class _Reading:
    part: _Part
    number: int

    def __call__(self) -> bytes | np.ndarray:
        return self.part.read(self.number)


class _Labels(Sequence[str]):
    """Names behind the path that holds them, put together when they are asked for."""

    def __init__(self, label: str, names: Sequence[str]) -> None:
        self._label, self._names = label, names

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, number):
        return f"{self._label}/{self._names[number]}"


class _Numbers(Sequence[str]):
    """The names of an array's images: `images.npy[17]`."""

    def __init__(self, label: str, number: int) -> None:
        self._label, self._number = label, number

    def __len__(self) -> int:
        return self._number

    def __getitem__(self, number):
        if number >= self._number:
            raise IndexError(number)
        return f"{self._label}[{number}]"


def _failing(label: str, error: FashionTuningError) -> _Part:
    def read(_: int) -> bytes:
        raise error

    return _Part([label], read)


def _array(label: str, images: np.ndarray) -> _Part:
    if images.dtype != np.uint8 or images.ndim not in (3, 4):
        raise DataError(
            f"{escaped(label)} must be uint8 (N, H, W, C); got {images.dtype} {images.shape}. Check that it holds images"
        )
    images = images[..., None] if images.ndim == 3 else images
    return _Part(_Numbers(label, len(images)), lambda number: np.array(images[number]))


def _idx(path: Path) -> np.ndarray:
    data = FileMembers({path.name: path}).read(path.name)
    return parse_idx(gunzip(data, path.name) if path.suffix == ".gz" else data, path.name, num_dims=3)
