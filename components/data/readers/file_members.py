"""Reads the files of a directory, or a handful of fetched files, through the same calls as a zip archive."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from components.data.findings import shown
from components.data.readers.archives import Limits
from components.errors import DataError, StorageError


class FileMembers:
    """Files by their names relative to a root.

    Attributes:
        names: Names that matched, sorted.
        num_ignored: Files whose names did not match; they are never read.
    """

    def __init__(self, files: Mapping[str, Path], *, limits: Limits | None = None) -> None:
        """Take files by name; `limits.member_bytes` holds while reading."""
        self._files = dict(sorted(files.items()))
        self._limits = limits or Limits()
        self.names = list(self._files)
        self.num_ignored = 0

    @classmethod
    def from_directory(cls, root: Path, *, pattern: str, limits: Limits | None = None) -> Self:
        """List a directory; names match the pattern as `images/1163.jpg`.

        Links that lead out of it, devices and pipes are ignored.

        Raises:
            DataError: It holds more files than `limits.num_members`.
            StorageError: It cannot be listed.
        """
        limits, matches = limits or Limits(), re.compile(pattern, re.ASCII)
        files, num_ignored = {}, 0
        inside = root.resolve()
        for folder, _, names in os.walk(root, onerror=_raise):
            relative = os.path.relpath(folder, root)
            prefix = "" if relative == "." else relative.replace(os.sep, "/") + "/"
            for name in names:
                path = Path(folder, name)
                leads_out = path.is_symlink() and not path.resolve().is_relative_to(inside)
                if leads_out or not matches.fullmatch(prefix + name) or not path.is_file():
                    num_ignored += 1
                    continue
                files[prefix + name] = path
            if len(files) + num_ignored > limits.num_members:
                raise DataError(
                    f"{root} must hold at most {limits.num_members:,} files; got more. Point at the dataset's folder"
                )
        members = cls(files, limits=limits)
        members.num_ignored = num_ignored
        return members

    def path(self, name: str) -> Path:
        """Return where a file lies."""
        return self._files[name]

    def read(self, name: str) -> bytes:
        """Return one file; safe to call from several threads.

        Raises:
            DataError: It is larger than the limit or no plain file.
            StorageError: It cannot be read.
        """
        path, limit = self._files[name], self._limits.member_bytes
        if not path.is_file():  # a FIFO would block for ever
            raise DataError(f"{shown(name)} must be a plain file; got a link to nothing, a device or a pipe")
        try:
            with path.open("rb") as file:
                data = file.read(limit + 1)
        except OSError as error:
            raise StorageError(f"{path} must be readable; got {error.strerror}. Check its permissions") from error
        if len(data) > limit:
            raise DataError(f"{shown(name)} must have at most {limit:,} bytes; got more")
        return data

    def close(self) -> None:
        """Do nothing: no file stays open."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _raise(error: OSError) -> None:
    raise StorageError(f"{error.filename} must be readable; got {error.strerror}. Check its permissions") from error
