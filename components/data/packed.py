"""Images are packed into an array on disk, which is never in memory as a whole and becomes `images.npy` in place."""

import math
import os
from pathlib import Path

import numpy as np

from components.errors import StorageError

_HEADER_BYTES = 128  # of every image array: NumPy pads to multiples of 64
_CHUNK = 1024


MEMORY_FILES = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current"), Path("/proc/meminfo"))
"""The control group's limit and use, and the machine's memory."""


def available_bytes(files: tuple[Path, Path, Path] = MEMORY_FILES) -> int:
    """Return how many bytes of memory this process may still take: the rest of its control group's limit, or what the machine has free."""
    limit, used, machine = (path.read_text(encoding="ascii") if path.exists() else "" for path in files)
    free = machine.partition("MemAvailable:")[2].split()
    limits = [int(free[0]) * 1024] if free else []
    if limit.strip().isdigit() and used.strip().isdigit():
        limits.append(int(limit) - int(used))
    return min(limits, default=2**63)


class PackedImages:
    """Images of one size in a file, with the operations of an array that ingest needs.

    It reads and writes instead of mapping: mapped pages would count as this process's memory.

    Attributes:
        shape: (N, H, W, C).
        dtype: uint8.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, folder: Path, shape: tuple[int, int, int, int]) -> None:
        """Make an array in a folder, all zeros; it takes no room before it is written."""
        folder.mkdir(parents=True, exist_ok=True)
        self.shape = shape
        self._path = folder / "images.npy.partial"
        self._row_bytes = math.prod(shape[1:])
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        os.ftruncate(self._fd, _HEADER_BYTES + shape[0] * self._row_bytes)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        """Return images (n, H, W, C) uint8 of a slice or of numbers (n,) int64; threads may read at once."""
        if isinstance(rows, slice):
            rows = np.arange(*rows.indices(len(self)))
        if not len(rows):
            return np.empty((0, *self.shape[1:]), np.uint8)
        first, end = int(rows.min()), int(rows.max()) + 1
        if end - first <= 4 * len(rows):
            return self._read(first, end)[rows - first]
        return np.concatenate([self._read(int(row), int(row) + 1) for row in rows])

    def write(self, start: int, images: np.ndarray) -> None:
        """Write images (n, H, W, C) uint8 from a place on; threads may write different places at once."""
        view, at = memoryview(np.ascontiguousarray(images)).cast("B"), self._offset(start)
        while view:
            written = os.pwrite(self._fd, view, at)
            view, at = view[written:], at + written

    def become(self, path: Path, rows: np.ndarray) -> None:
        """Become the file `path`, as `np.save` would have written the rows (n,) int64, ascending; the object cannot be used afterwards."""
        for start in range(0, len(rows), _CHUNK):
            # A row moves towards the front, never across one that is still to be read.
            self.write(start, self[rows[start : start + _CHUNK]])
        os.ftruncate(self._fd, self._offset(len(rows)))
        with os.fdopen(os.dup(self._fd), "wb") as file:
            file.seek(0)
            shape = (len(rows), *self.shape[1:])
            np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        self._path.replace(path)
        self.close()

    def is_in(self, folder: Path) -> bool:
        """Return whether the file lies in a folder."""
        return self._path.parent.resolve() == folder.resolve()

    def close(self) -> None:
        """Delete the file unless it became something."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            self._path.unlink(missing_ok=True)

    def _offset(self, row: int) -> int:
        return _HEADER_BYTES + row * self._row_bytes

    def _read(self, first: int, end: int) -> np.ndarray:
        rows = np.empty((end - first, *self.shape[1:]), np.uint8)
        view, at = memoryview(rows).cast("B"), self._offset(first)
        while view:
            num_read = os.preadv(self._fd, [view], at)
            if not num_read:
                raise StorageError(f"{self._path} must have {self.shape[0]:,} images; got fewer. Check the disk")
            view, at = view[num_read:], at + num_read
        return rows
