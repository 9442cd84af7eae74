"""Opens a source, wherever it is, as members that a reader can read."""

import logging
from dataclasses import dataclass
from pathlib import Path

from components.data.dataset_name import local_path, redacted
from components.data.digests import digest_all, digest_file
from components.data.file_members import FileMembers
from components.data.findings import shown
from components.data.zip_members import Limits, ZipMembers
from components.errors import DataError, ParameterError

log = logging.getLogger(__name__)

_MANY = 32


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


def open_source(name: str, source: str, *, pattern: str, limits: Limits) -> Opened:
    """Open a dataset's source.

    Args:
        name: The dataset.
        source: A path or URI.
        pattern: Names to offer.
        limits: What reading may cost.
    """
    path = local_path(source)
    if path is None:
        raise ParameterError(f"source of {name} must be a path; got {source}")
    return open_local(name, path, redacted(source), pattern=pattern, limits=limits)


def open_local(name: str, path: Path, source: str, *, pattern: str, limits: Limits) -> Opened:
    """Open a directory, a zip archive or a single file on this machine."""
    if path.is_dir():
        files = FileMembers.from_directory(path, pattern=pattern, limits=limits)
        return Opened(files, source, _file_checksums(files))
    if not path.exists():
        raise ParameterError(f"source of {name} must exist; got {shown(str(path))}. Check the path")
    if not path.is_file():
        raise ParameterError(f"source of {name} must be a directory or a file; got {shown(str(path))}")
    with path.open("rb") as file:
        begins = file.read(4)
    if begins[:2] != b"PK":
        raise DataError(
            f"source of {name} must be a directory or a zip archive; {path.name} begins with {begins.hex() or 'nothing'}"
        )
    return Opened(ZipMembers(path, pattern=pattern, limits=limits), source, {path.name: "sha256:" + digest_file(path)})


def _file_checksums(files: FileMembers) -> dict[str, str]:
    digests = {name: digest_file(files.path(name)) for name in files.names}
    if len(digests) <= _MANY:
        return {name: f"sha256:{digest}" for name, digest in digests.items()}
    return {
        f"{len(digests)} files": "sha256:" + digest_all(f"{name} {digest}".encode() for name, digest in digests.items())
    }
