"""Keeps verified raw files by their SHA-256, on this machine and optionally in a store that all machines share.

    sha256/<digest>       whole files, named after their content
    index/<key>.json      which digest a place had last, and in which version
    partial/<key>         a download in progress
    locks/<key>           held while one process fetches

Only files whose digest was checked get a name under `sha256/`, and the digest is checked again on every use.
"""

import fcntl
import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from components.data.digests import digest_file
from components.data.sources.transfer import Expected, Partial, Remote, check
from components.errors import DataError, PermissionDeniedError, TryAgainError, using
from components.stores import ObjectNotFoundError, Store, open_store

log = logging.getLogger(__name__)

PART_BYTES = 32 * 2**20
LOCK_SECONDS = 3600.0
STALE_SECONDS = 7 * 86_400.0
_FETCHES = 2  # a file that arrives damaged is fetched once more


@dataclass(frozen=True)
class Cached:
    """A verified file on this machine."""

    path: Path
    sha256: str


def default_directory() -> Path:
    """Return the user's cache directory for this program, or a private temporary one where there is none."""
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base, "fashion-tuning")
    home = os.environ.get("HOME")
    if home and os.access(home, os.W_OK):
        return Path(home, ".cache", "fashion-tuning")
    return Path(tempfile.gettempdir(), f"fashion-tuning-{os.getuid()}")


class RawCache:
    """The cache, a context manager.

    Args:
        place: A directory, a store URI such as `gs://bucket/cache`, or empty for the user's cache directory.
    """

    def __init__(self, place: str = "") -> None:
        self._temporary: str | None = None
        self._store: Store | None = None
        if "://" in place and not place.startswith("file://"):
            self._store = open_store(place)
            self._temporary = tempfile.mkdtemp(prefix="fashion-tuning-")
            self.directory = Path(self._temporary)
        else:
            self.directory = Path(place.removeprefix("file://")) if place else default_directory()

    def __enter__(self) -> Self:
        with using(self.directory):
            for name in ("sha256", "index", "partial", "locks"):
                (self.directory / name).mkdir(parents=True, exist_ok=True, mode=0o700)
            if self.directory.stat().st_uid != os.getuid() and not place_is_shared(self.directory):
                raise PermissionDeniedError(f"cache {self.directory} must belong to this user. Give another --cache")
            self._sweep()
        return self

    def __exit__(self, *_: object) -> None:
        if self._temporary:
            shutil.rmtree(self._temporary, ignore_errors=True)

    def get(self, remote: Remote) -> Cached:
        """Return a file's verified copy, fetching it only where the cached one is not current.

        Raises:
            DataError: The file is damaged; nothing is kept.
            StorageError: Disk full.
            FashionTuningError: Fetching fails.
        """
        key = hashlib.sha256(remote.key.encode()).hexdigest()
        with using(self.directory), self._locked(key):
            cached = self._known(key, remote.expected)
            if cached and remote.is_pinned:
                return cached[0]
            return self._fetch(remote, key, cached)

    def forget(self, remote: Remote) -> None:
        """Drop a file that turned out to be unusable, so that the next run fetches it again."""
        key = hashlib.sha256(remote.key.encode()).hexdigest()
        with using(self.directory):
            entry = self._entry(key)
            if entry:
                self._path(entry["sha256"]).unlink(missing_ok=True)
            (self.directory / "index" / f"{key}.json").unlink(missing_ok=True)
            if self._store is not None and entry:
                self._store.delete(f"index/{key}.json")
                for name in self._store.list(f"sha256/{entry['sha256']}/"):
                    self._store.delete(name)

    def _fetch(self, remote: Remote, key: str, cached: tuple[Cached, str] | None) -> Cached:
        partial = Partial.open(self.directory / "partial" / key)
        for attempt in range(_FETCHES):
            try:
                said = remote.fetch(partial, cached[1] if cached else "")
                if said is None:
                    if not cached:
                        raise DataError(f"{remote.label} must be sent in full; got 'not modified'. Check the server")
                    log.info("%s is unchanged, taken from the cache", remote.name)
                    return cached[0]
                digest = check(partial, remote.expected.joined(said), remote.label)
            except DataError:
                partial.discard()
                if attempt + 1 == _FETCHES:
                    raise
                log.warning("%s arrived damaged, fetching it again", remote.name)
                continue
            except OSError:
                partial.discard()  # a full disk: leave nothing behind
                raise
            return self._keep(partial, key, digest, remote)
        raise AssertionError("the loop returns or raises")

    def _keep(self, partial: Partial, key: str, digest: str, remote: Remote) -> Cached:
        path, validator = self._path(digest), partial.validator
        num_bytes = partial.size
        partial.path.replace(path)
        partial.discard()
        entry = {"sha256": digest, "bytes": num_bytes, "validator": validator, "source": remote.label}
        text = json.dumps(entry, indent=1, sort_keys=True) + "\n"
        _write_atomically(self.directory / "index" / f"{key}.json", text)
        log.info("%s fetched: %s bytes, SHA-256 %s", remote.name, f"{num_bytes:,}", digest)
        if self._store is not None:
            self._upload(self._store, path, digest)
            self._store.write(f"index/{key}.json", text.encode())
        return Cached(path, digest)

    def _known(self, key: str, expected: Expected) -> tuple[Cached, str] | None:
        """Return the cached copy and its version where there is a whole one that fits what is expected."""
        entry = self._entry(key)
        if not entry:
            return None
        digest, path = entry["sha256"], self._path(entry["sha256"])
        if expected.digests.get("sha256", digest) != digest:
            return None
        if not path.is_file() and self._store is not None:
            self._download(self._store, path, digest)
        if not path.is_file():
            return None
        if digest_file(path) != digest:
            log.warning("%s in the cache is damaged and removed", digest)
            path.unlink()
            return None
        return Cached(path, digest), entry["validator"]

    def _entry(self, key: str) -> dict[str, Any] | None:
        try:
            if self._store is not None:
                text = self._store.read(f"index/{key}.json").decode()
            else:
                text = (self.directory / "index" / f"{key}.json").read_text(encoding="utf-8")
            entry = json.loads(text)
            if len(entry["sha256"]) == 64 and int(entry["sha256"], 16) >= 0 and isinstance(entry["validator"], str):
                return entry
        except (FileNotFoundError, ObjectNotFoundError):
            return None
        except (ValueError, KeyError, TypeError):
            log.warning("an index entry of the cache is damaged and ignored")
        return None

    def _path(self, digest: str) -> Path:
        return self.directory / "sha256" / digest

    def _upload(self, store: Store, path: Path, digest: str) -> None:
        """Copy a file to the store in parts; the list of parts comes last."""
        num_parts = 0
        with path.open("rb") as file:
            while part := file.read(PART_BYTES):
                store.create(f"sha256/{digest}/{num_parts:04d}", part)
                num_parts += 1
        store.create(f"sha256/{digest}/parts.json", json.dumps({"parts": num_parts}).encode())

    def _download(self, store: Store, path: Path, digest: str) -> None:
        """Copy a file from the store; leave nothing where it is not whole there."""
        temporary = path.with_name(f".{digest}.{os.getpid()}")
        total = hashlib.sha256()
        try:
            num_parts = int(json.loads(store.read(f"sha256/{digest}/parts.json"))["parts"])
            with temporary.open("wb") as file:
                for number in range(num_parts):
                    part = store.read(f"sha256/{digest}/{number:04d}")
                    total.update(part)
                    file.write(part)
            if total.hexdigest() == digest:
                temporary.replace(path)
                return
            log.warning("%s in the shared cache is damaged and removed", digest)
        except ObjectNotFoundError:
            return
        except (ValueError, KeyError, TypeError):
            log.warning("%s in the shared cache has a damaged list of parts", digest)
        finally:
            temporary.unlink(missing_ok=True)
        for name in store.list(f"sha256/{digest}/"):
            store.delete(name)

    @contextmanager
    def _locked(self, key: str) -> Iterator[None]:
        """Let one process at a time fetch a file; the lock of a killed one is free."""
        deadline, has_logged = time.monotonic() + LOCK_SECONDS, False
        with (self.directory / "locks" / key).open("w") as file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise TryAgainError(
                            f"cache {self.directory} must be free; another process has been fetching for an hour. Run again"
                        ) from None
                    if not has_logged:
                        log.info("waiting for another process that fetches the same file")
                        has_logged = True
                    time.sleep(0.1)
            yield

    def _sweep(self) -> None:
        """Remove downloads that were abandoned."""
        for path in (*(self.directory / "partial").iterdir(), *(self.directory / "sha256").glob(".*")):
            try:
                if time.time() - path.stat().st_mtime > STALE_SECONDS:
                    path.unlink()
            except FileNotFoundError:
                continue


def place_is_shared(directory: Path) -> bool:
    """Tell whether a cache directory of another user is meant to be shared: by its group, and not by everybody."""
    mode = directory.stat().st_mode
    return bool(mode & 0o020) and not mode & 0o002


def _write_atomically(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
