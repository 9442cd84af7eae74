"""Opens a source, wherever it is, as members that a reader can read."""

import hashlib
import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from urllib.parse import urlsplit

from components.data.digests import digest_file
from components.data.examples import Members
from components.data.parallel import in_order
from components.data.readers import fashion_mnist
from components.data.readers.archives import is_archive, open_archive
from components.data.readers.directory import FileMembers
from components.data.readers.members import JoinedMembers
from components.data.readers.pairing import IMAGE_SUFFIXES
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
    UnavailableError,
    using,
)
from components.text import escaped

log = logging.getLogger(__name__)

SUMS = "SHA256SUMS"
"""A file of this name beside the data, as `sha256sum` writes it, pins the files it lists."""

MAX_OBJECTS = 1_000
_MANY = 32
_FETCHERS, _FEW = 8, 8
_MAX_SUMS_BYTES = 2**28  # a hundred bytes a file


@dataclass(frozen=True)
class Opened:
    """A source on this machine.

    Attributes:
        members: What a reader reads.
        label: The source as reports name it, without credentials.
        digests: SHA-256 of the archives and fetched files it is made of, as hex digits.
    """

    members: Members
    label: str
    digests: dict[str, str]

    @property
    def checksums(self) -> dict[str, str]:
        """SHA-256 of each raw file that was read so far, or of many small ones together."""
        return _summary(self.digests | {name: digest.hex() for name, digest in self.members.digests.items()})


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
        with closing(opened.members):
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
            opened = _open_cached(cached, redacted(source or reader.DEFAULT_SOURCE), reader)
            with closing(opened.members):
                yield opened
        except DataError:
            # Whole as sent and yet unusable: not worth keeping, the next run looks for a better one.
            for remote in remotes:
                if not remote.is_pinned:
                    raw_cache.forget(remote)
            raise


def _open_cached(cached: dict[str, Cached], source: str, reader: ModuleType) -> Opened:
    digests = {key: value.sha256 for key, value in cached.items()}
    if SUMS in cached:
        _check_sums(_read_sums(cached.pop(SUMS).path), digests)
        del digests[SUMS]
    files = {key: value.path for key, value in cached.items()}
    if len(files) == 1:
        ((key, path),) = files.items()
        return Opened(open_archive(path, limits=reader.LIMITS, label=key), source, digests)
    archives = {key: path for key, path in files.items() if is_archive(key)}
    plain = FileMembers({key: path for key, path in files.items() if key not in archives}, limits=reader.LIMITS)
    return Opened(_joined(plain, archives, reader), source, digests)


def open_local(name: str, path: Path, source: str, reader: ModuleType) -> Opened:
    """Open a directory or an archive on this machine."""
    with using(path, "must be readable"):
        if not path.exists():
            raise ParameterError(f"source of {name} must exist; got {escaped(str(path))}. Check the path")
        if path.is_dir():
            return _open_directory(name, path, source, reader)
        if not path.is_file():
            raise ParameterError(f"source of {name} must be a directory or a file; got {escaped(str(path))}")
        digest, sums = digest_file(path), _read_sums(path.parent / SUMS)
    pin = pinned_digest(source)
    if pin and pin != digest:
        raise DataError(f"{path.name} must have SHA256 {pin}; got {digest}. Check the source")
    _check_sums(sums, {path.name: digest})
    return Opened(open_archive(path, limits=reader.LIMITS), redacted(source), {path.name: digest})


def _open_directory(name: str, path: Path, source: str, reader: ModuleType) -> Opened:
    """Open the files of a directory; where it holds archives instead of images, theirs as well."""
    sums = _read_sums(path / SUMS)
    files = FileMembers.from_directory(path, limits=reader.LIMITS, known=sums)
    files.names = [file for file in files.names if file != SUMS]
    archives = {file: path / file for file in files.names if is_archive(file) and "/" not in file}
    has_images = any(file.lower().endswith(IMAGE_SUFFIXES) for file in files.names)
    if archives and not has_images and not any(map(_is_idx, files.names)):
        digests = {file: digest_file(place) for file, place in archives.items()}
        _check_sums(sums, digests)
        return Opened(_joined(files, archives, reader), redacted(source), digests)
    if not any(re.fullmatch(reader.PATTERN, file) for file in files.names if file not in archives):
        raise ParameterError(
            f"source of {name} must hold its files; got {escaped(str(path))} without them. Check the path"
        )
    return Opened(files, redacted(source), {})


def _is_idx(name: str) -> bool:
    return re.fullmatch(fashion_mnist.PATTERN, name) is not None


def _joined(files: FileMembers, archives: Mapping[str, Path], reader: ModuleType) -> JoinedMembers:
    """Return plain files and the members of archives as one source; the archives themselves are no part of it."""
    opened: list[Members] = []
    try:
        for label, path in sorted(archives.items()):
            opened.append(open_archive(path, limits=reader.LIMITS, label=label))
    except BaseException:
        for archive in opened:
            archive.close()
        raise
    files.names = [name for name in files.names if name not in archives]
    return JoinedMembers([files, *opened])


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
    files = find_files(uri, most=MAX_OBJECTS)
    if len(files) == 1:
        files[0].expected = pinned.joined(files[0].expected)
        return [*files]
    wanted: list[Remote] = [
        f for f in files if f.name == SUMS or re.fullmatch(reader.PATTERN, f.name) or is_archive(f.name)
    ]
    if not wanted:
        raise ParameterError(f"source {uri} must hold the files of {name}; got {escaped(files[0].name)} and others")
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


def _read_sums(path: Path) -> dict[str, str]:
    """Return the digests that `sha256sum` wrote, by name; none where the file is missing."""
    if not path.is_file():
        return {}
    if path.stat().st_size > _MAX_SUMS_BYTES:
        raise DataError(f"{path} must have at most {_MAX_SUMS_BYTES:,} bytes; got more. Remove it")
    sums = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        digest, _, name = line.partition(" ")
        sums[name.strip().removeprefix("*").removeprefix("./")] = digest.lower()
    return sums


def _check_sums(sums: Mapping[str, str], digests: Mapping[str, str]) -> None:
    """Raise `DataError` where a file has another digest than it must have."""
    for name, digest in digests.items():
        if name in sums and sums[name] != digest:
            raise DataError(f"{name} must have SHA256 {sums[name]} as {SUMS} says; got {digest}. It is damaged")


def _summary(digests: Mapping[str, str]) -> dict[str, str]:
    """Return the digests by name, or where they are many one digest over all of them."""
    if len(digests) <= _MANY:
        return {name: f"sha256:{digest}" for name, digest in sorted(digests.items())}
    lines = (f"{digest}  {name}\n".encode() for name, digest in sorted(digests.items()))
    return {f"{len(digests)} files": "sha256:" + hashlib.sha256(b"".join(lines)).hexdigest()}
