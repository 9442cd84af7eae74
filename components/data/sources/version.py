"""A source's version changes with its data and is cheap to find, so that a cached ingest is reused while it holds."""

import hashlib
import logging
import os
import stat
from pathlib import Path
from urllib.parse import urlsplit

from components.buckets import BUCKET_STORES
from components.data.sources.objects import find_files
from components.dataset_name import FASHION_MNIST, local_path
from components.errors import FashionTuningError, ParameterError

log = logging.getLogger(__name__)

MAX_OBJECTS, OBJECTS_SECONDS = 1_000, 20.0
"""No more objects than ingest takes; a store that does not answer in time has no version."""

MAX_READ = 1 << 30
SMALLEST_READ = 10_000
"""Local files of up to `MAX_READ` bytes in all are read for their version; each counts as `SMALLEST_READ` bytes at least, for opening it."""

UNKNOWN = ""
"""The source cannot tell; the caller must then take the data as changed."""


def source_version(name: str, source: str) -> str:
    """Return a text that differs whenever the source's data does, or `UNKNOWN`.

    Args:
        name: The name that `parse_dataset` returned.
        source: The part after `=`, as `parse_dataset` returned it. Files are judged by their places and contents, those of a source above
            `MAX_READ` by their places, sizes and modification times; objects by generation or ETag.

    Raises:
        ParameterError: A bucket can be read and has no such object, or too many.
    """
    if not source:
        return "published" if name == FASHION_MNIST else UNKNOWN
    path = local_path(source)
    if path is not None:
        return _of_files(path)
    if urlsplit(source).scheme in ("http", "https"):
        return _of_url(source)
    if urlsplit(source).scheme in BUCKET_STORES:
        return _of_objects(source.partition("#")[0])
    return UNKNOWN


def _of_files(path: Path) -> str:
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    found = [(file, status) for file in files if not stat.S_ISDIR((status := _status(file)).st_mode)]
    is_small = sum(max(status.st_size, SMALLEST_READ) for _, status in found) <= MAX_READ
    digest = hashlib.sha256()
    for file, status in found:
        is_read = is_small and stat.S_ISREG(status.st_mode)
        content = _digest(file) if is_read else str(status.st_mtime_ns).encode()
        digest.update(b"\0".join((os.fsencode(file.relative_to(path)), str(status.st_size).encode(), content, b"")))
    return digest.hexdigest()[:16]


def _status(file: Path) -> os.stat_result:
    try:
        return file.stat()
    except OSError:  # a link may lead to nothing or to itself
        return file.lstat()


def _digest(file: Path) -> bytes:
    try:
        with file.open("rb") as content:
            return hashlib.file_digest(content, "sha256").digest()
    except OSError:
        return b""  # ingest says so


def _of_url(url: str) -> str:
    import requests

    try:
        answer = requests.head(url, timeout=10, allow_redirects=True)
        return answer.headers.get("ETag") or answer.headers.get("Last-Modified") or UNKNOWN if answer.ok else UNKNOWN
    except requests.RequestException as error:
        log.info("version of %s is unknown: %s", urlsplit(url).hostname, type(error).__name__)
        return UNKNOWN


def _of_objects(uri: str) -> str:
    try:
        files = find_files(uri, most=MAX_OBJECTS, deadline_seconds=OBJECTS_SECONDS)
    except ParameterError:
        raise  # ingest would say the same, later
    except FashionTuningError as error:
        log.info("version of %s is unknown: %s", uri, error)
        return UNKNOWN
    lines = sorted(f"{file.object_name}\0{file.version}\n" for file in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:16]
