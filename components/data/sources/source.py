"""Opens a source, wherever it is, as members that a reader can read."""

import hashlib
import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from urllib.parse import urlsplit

from components.data.digests import digest_file
from components.data.findings import shown
from components.data.parallel import in_order
from components.data.readers import fashion_mnist
from components.data.readers.archives import ZipMembers
from components.data.readers.file_members import FileMembers
from components.data.sources.cache import Cached, RawCache
from components.data.sources.http import HttpFile
from components.data.sources.kaggle import download_url, find_credentials
from components.data.sources.objects import find_files
from components.data.sources.transfer import Expected, Remote
from components.dataset_name import KAGGLE, local_path, pinned_digest, redacted
from components.errors import (
    ConfigurationError,
    DataError,
    ParameterError,
    PermissionDeniedError,
    StorageError,
    UnavailableError,
)

log = logging.getLogger(__name__)

SUMS = "SHA256SUMS"
"""A file of this name beside the data, as `sha256sum` writes it, pins the files it lists."""

MAX_OBJECTS = 1_000
_MANY = 32
_FETCHERS, _FEW = 8, 8
_MAX_SUMS_BYTES = 2**20


@dataclass(frozen=True)
class Opened:
    """A source on this machine.

    Attributes:
        members: What a reader reads.
        shown: The source as reports name it, without credentials.
        checksums: SHA-256 of each raw file, or of many small ones together.
    """

    members: FileMembers | ZipMembers
    shown: str
    checksums: dict[str, str]


@contextmanager
def open_source(name: str, source: str, reader: ModuleType, cache: str) -> Iterator[Opened]:
    """Open a dataset's source, fetching it first where it is remote; the cache is touched only then.

    Args:
        name: The dataset.
        source: A path or URI; empty means the reader's `DEFAULT_SOURCE`.
        reader: Module with `PATTERN` and `LIMITS`.
        cache: Directory or store URI of the cache; empty means the user's.

    Yields:
        The source, usable inside the block.

    Raises:
        ParameterError: There is no such source.
        DataError: It is damaged, or too large.
        UnavailableError: It does not answer.
        PermissionDeniedError: It may not be read.
        ConfigurationError: Credentials are missing.
        StorageError: Disk full.
    """
    path = local_path(source) if source else None
    if path is not None:
        opened = open_local(name, path, source, reader)
        with opened.members:
            yield opened
        return
    remotes = _remotes(name, source, reader)
    with RawCache(cache) as raw_cache:
        if len(remotes) <= _FEW:  # in this thread, so that an interruption ends the download at once
            cached = {remote.name: raw_cache.get(remote) for remote in remotes}
        else:
            fetched = in_order(raw_cache.get, remotes, num_threads=_FETCHERS)
            cached = dict(zip([remote.name for remote in remotes], fetched, strict=True))
        try:
            opened = _open_cached(name, cached, redacted(source or reader.DEFAULT_SOURCE), reader)
            with opened.members:
                yield opened
        except DataError:
            # Whole as sent and yet unusable: not worth keeping, the next run looks for a better one.
            for remote in remotes:
                if not remote.is_pinned:
                    raw_cache.forget(remote)
            raise


def _open_cached(name: str, cached: dict[str, Cached], source: str, reader: ModuleType) -> Opened:
    digests = {key: value.sha256 for key, value in cached.items()}
    if SUMS in cached:
        _check_sums(cached.pop(SUMS).path, digests)
        del digests[SUMS]
    if len(cached) == 1:
        ((key, value),) = cached.items()
        members = _open_zip(name, value.path, key, reader)
    else:
        members = FileMembers({key: value.path for key, value in cached.items()}, limits=reader.LIMITS)
    return Opened(members, source, _summary(digests))


def open_local(name: str, path: Path, source: str, reader: ModuleType) -> Opened:
    """Open a directory or a zip archive on this machine."""
    if not path.exists():
        raise ParameterError(f"source of {name} must exist; got {shown(str(path))}. Check the path")
    try:
        if path.is_dir():
            files = FileMembers.from_directory(path, pattern=reader.PATTERN, limits=reader.LIMITS)
            if not files.names:
                raise ParameterError(
                    f"source of {name} must hold its files; got {shown(str(path))} without them.{_hint(path)}"
                )
            digests = {key: digest_file(files.path(key)) for key in files.names}
            _check_sums(path / SUMS, digests)
            return Opened(files, redacted(source), _summary(digests))
        if not path.is_file():
            raise ParameterError(f"source of {name} must be a directory or a file; got {shown(str(path))}")
        members = _open_zip(name, path, path.name, reader)
        digest = digest_file(path)
    except PermissionError as error:
        raise PermissionDeniedError(
            f"{error.filename} must be readable; got {error.strerror}. Check its owner"
        ) from error
    except OSError as error:
        raise StorageError(
            f"{error.filename or path} must be readable; got {error.strerror}. Check the disk"
        ) from error
    pin = pinned_digest(source)
    if pin and pin != digest:
        raise DataError(f"{path.name} must have SHA256 {pin}; got {digest}. Check the source")
    _check_sums(path.parent / SUMS, {path.name: digest})
    return Opened(members, redacted(source), {path.name: f"sha256:{digest}"})


def _hint(directory: Path) -> str:
    archive = next(iter(sorted(directory.glob("*.zip"))), None)
    return f" It holds {shown(archive.name)}: give that" if archive else " Check the path"


def _open_zip(name: str, path: Path, label: str, reader: ModuleType) -> ZipMembers:
    with path.open("rb") as file:
        begins = file.read(4)
    if begins[:2] != b"PK":
        raise DataError(
            f"source of {name} must be a directory or a zip archive; got {label} that begins with"
            f" {begins.hex() or 'nothing'}. Check the source"
        )
    return ZipMembers(path, pattern=reader.PATTERN, limits=reader.LIMITS, label=label)


def _remotes(name: str, source: str, reader: ModuleType) -> list[Remote]:
    """Return the files that make up a remote source."""
    place = source or reader.DEFAULT_SOURCE
    if place == KAGGLE:
        return [_kaggle_file(reader.KAGGLE_DATASET)]
    parts = urlsplit(place)
    pin = pinned_digest(place)
    pinned = Expected(digests={"sha256": pin} if pin else {})
    if parts.scheme in ("http", "https"):
        url = place.partition("#")[0]
        if reader is fashion_mnist and not parts.path.endswith(".zip"):
            return _published_files(url, is_default=not source)
        return [HttpFile(url=url, name=parts.path.rpartition("/")[2] or f"{name}.zip", expected=pinned)]
    uri = f"{parts.scheme}://{parts.netloc}{parts.path}"
    files = find_files(uri, parts.scheme, parts.netloc, parts.path, most=MAX_OBJECTS)
    if len(files) == 1:
        files[0].expected = pinned.joined(files[0].expected)
        return files
    wanted = [f for f in files if f.name == SUMS or re.fullmatch(reader.PATTERN, f.name)]
    if not wanted:
        raise ParameterError(f"source {uri} must hold the files of {name}; got {shown(files[0].name)} and others")
    return wanted


def _published_files(url: str, *, is_default: bool) -> list[Remote]:
    """Return Fashion-MNIST's four files; at their publisher's place they must be the published ones."""
    files: list[Remote] = []
    for name in fashion_mnist.FILES:
        expected, missing = Expected(), None
        place = url.rstrip("/") + "/" + name
        if is_default:
            digests = {"md5": fashion_mnist.PUBLISHED_MD5[name]}
            expected = Expected(num_bytes=fashion_mnist.PUBLISHED_BYTES[name], digests=digests)
            missing = UnavailableError(
                f"{place} must be there; its publisher seems to have moved it. Give a copy as fashion-mnist=SOURCE"
            )
        files.append(HttpFile(url=place, name=name, expected=expected, missing=missing))
    return files


def _kaggle_file(dataset: str) -> Remote:
    accept = f"Open https://www.kaggle.com/datasets/{dataset} once with that account"
    return HttpFile(
        url=download_url(dataset),
        name=dataset.rpartition("/")[2] + ".zip",
        auth=find_credentials(),
        missing=UnavailableError(f"Kaggle must have the dataset {dataset}; got HTTP 404. Give a copy as NAME=SOURCE"),
        refused={
            401: ConfigurationError(
                "Kaggle's token must be valid; got HTTP 401. Make a new one at https://www.kaggle.com/settings"
            ),
            403: PermissionDeniedError(f"Kaggle's account must be allowed to read {dataset}; got HTTP 403. {accept}"),
        },
    )


def _check_sums(path: Path, digests: Mapping[str, str]) -> None:
    """Compare files with the digests that `sha256sum` wrote, where there are some."""
    if not path.is_file():
        return
    if path.stat().st_size > _MAX_SUMS_BYTES:
        raise DataError(f"{path} must have at most {_MAX_SUMS_BYTES:,} bytes; got more. Remove it")
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        digest, _, name = line.partition(" ")
        name = name.strip().removeprefix("*").removeprefix("./")
        if name in digests and digests[name] != digest.lower():
            raise DataError(f"{name} must have SHA256 {digest} as {SUMS} says; got {digests[name]}. It is damaged")


def _summary(digests: Mapping[str, str]) -> dict[str, str]:
    """Return the digests by name, or where they are many one digest over all of them."""
    if len(digests) <= _MANY:
        return {name: f"sha256:{digest}" for name, digest in sorted(digests.items())}
    lines = (f"{digest}  {name}\n".encode() for name, digest in sorted(digests.items()))
    return {f"{len(digests)} files": "sha256:" + hashlib.sha256(b"".join(lines)).hexdigest()}
