"""This store lies in a local directory: each object is a file, linked into its place so that creation is atomic and durable."""

from __future__ import annotations

import errno
import os
import stat
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from components.errors import TryAgainError, file_error
from components.stores.contract import ObjectNotFoundError, Stat, checked_key

TEMPORARY = ".tmp-"


class LocalStore:
    """Keys are paths under a directory.

    Creation writes a temporary file beside its place, syncs it and links it there: `link` fails where a name exists and
    is atomic on local file systems and on NFS.

    Args:
        directory: Root of the keys; made on the first write.
    """

    def __init__(self, directory: Path | str) -> None:
        self.directory = Path(directory).absolute()
        self.uri = str(self.directory)

    def __truediv__(self, prefix: str) -> LocalStore:
        return LocalStore(self.directory / checked_key(prefix))

    def with_deadline(self, seconds: float) -> LocalStore:  # noqa: ARG002 (a disk answers or fails)
        """Return this store."""
        return self

    def create(self, key: str, data: bytes) -> bool:
        """Write an object if there is none of this key."""
        path = self._path(key)
        with self._failing("write", path), self._temporary(path, data, durable=True) as temporary:
            try:
                os.link(temporary, path)
            except FileExistsError:
                # Over NFS the answer to a link that was made can be lost and the call repeated.
                if temporary.stat().st_nlink != 2:
                    return False
            _sync_directory(path.parent)
        return True

    def read(self, key: str) -> bytes:
        """Return an object's content."""
        path = self._path(key)
        try:
            with self._failing("read", path):
                return path.read_bytes()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise ObjectNotFoundError(f"{self.uri}/{key}") from None

    def write(self, key: str, data: bytes) -> None:
        """Write an object, whether or not there was one."""
        path = self._path(key)
        with self._failing("write", path), self._temporary(path, data, durable=False) as temporary:
            temporary.replace(path)

    def stat(self, key: str) -> Stat:
        """Return size and version of an object; a file has no digest until it is read."""
        path = self._path(key)
        try:
            with self._failing("read", path):
                status = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            raise ObjectNotFoundError(f"{self.uri}/{key}") from None
        if not stat.S_ISREG(status.st_mode):
            raise ObjectNotFoundError(f"{self.uri}/{key}")
        return _stat(status)

    def read_range(self, key: str, start: int, end: int, version: str) -> bytes:
        """Return bytes `start` to `end` (exclusive) of one version of an object."""
        path = self._path(key)
        try:
            with self._failing("read", path), path.open("rb") as stream:
                stream.seek(start)
                data = stream.read(end - start)
                version_read = _stat(os.fstat(stream.fileno())).version
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            version_read = ""
        if version_read != version:
            raise TryAgainError(
                f"{self.uri}/{key} must stay as it is while it is read; it was replaced or removed. Run again"
            )
        return data

    def stats(self, prefix: str = "", *, most: int | None = None) -> dict[str, Stat]:
        """Return each key with its `Stat`, for at most so many keys."""
        stats: dict[str, Stat] = {}
        for key in self.list(prefix)[:most]:
            try:
                stats[key] = self.stat(key)
            except ObjectNotFoundError:  # removed meanwhile
                continue
        return stats

    def list(self, prefix: str = "") -> list[str]:
        """Return all keys that start with the prefix, sorted."""
        start = self.directory / prefix.rpartition("/")[0]
        skip = len(str(self.directory)) + 1
        keys = []
        for directory, _, names in os.walk(start, onerror=self._walk_failed):
            keys += [f"{directory}/{name}"[skip:] for name in names if not name.startswith(TEMPORARY)]
        return sorted(key for key in keys if key.startswith(prefix))

    def delete(self, key: str) -> None:
        """Remove an object and the directories it leaves empty."""
        path = self._path(key)
        with self._failing("delete", path):
            try:
                path.unlink(missing_ok=True)
            except NotADirectoryError:
                return
            self._remove_empty_parents(path)

    def sweep(self, min_age_seconds: float) -> None:
        """Remove temporary files that no writer has touched for so long, and the directories they leave empty."""
        for directory, _, names in os.walk(self.directory):
            for name in names:
                path = Path(directory, name)
                try:
                    with self._failing("delete", path):
                        if name.startswith(TEMPORARY) and time.time() - path.stat().st_mtime >= min_age_seconds:
                            path.unlink()
                            self._remove_empty_parents(path)
                except FileNotFoundError:
                    continue

    def _remove_empty_parents(self, path: Path) -> None:
        for parent in path.relative_to(self.directory).parents[:-1]:
            try:
                (self.directory / parent).rmdir()
            except OSError:
                break

    def _path(self, key: str) -> Path:
        return self.directory / checked_key(key)

    def _walk_failed(self, error: OSError) -> None:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR):
            with self._failing("list", Path(error.filename)):
                raise error

    @contextmanager
    def _temporary(self, path: Path, data: bytes, *, durable: bool) -> Iterator[Path]:
        """Hold the content in a file beside its place, gone at the end."""
        temporary = path.with_name(f"{TEMPORARY}{uuid.uuid4().hex}")
        for attempt in range(20):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
                break
            except FileNotFoundError:
                # Another process deleted the last object of the directory just now.
                if attempt == 19:
                    raise
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(data)
                if durable:
                    stream.flush()
                    os.fsync(stream.fileno())
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)

    @contextmanager
    def _failing(self, action: str, path: Path) -> Iterator[None]:
        try:
            yield
        except PermissionError as error:
            raise file_error(error, f"must allow this user to {action}", path) from error
        except OSError as error:
            # Nothing to read or delete there: the caller's to answer.
            if action != "write" and isinstance(error, (FileNotFoundError, NotADirectoryError, IsADirectoryError)):
                raise
            raise file_error(error, f"must be possible to {action}", path) from error


def _stat(status: os.stat_result) -> Stat:
    return Stat(size=status.st_size, version=f"{status.st_ino}-{status.st_mtime_ns}-{status.st_size}")


def _sync_directory(directory: Path) -> None:
    """Make a new name in the directory survive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
