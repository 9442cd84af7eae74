"""Reads the files of a directory, or a handful of fetched files, through the same calls as an archive."""

import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Self

from components.data.readers.members import Limits, Names
from components.errors import DataError, using
from components.text import escaped


class FileMembers:
    """Files by their names relative to a root; see `Members`.

    Attributes:
        names: Names, sorted.
        num_companions: Files that systems leave beside the data.
        refused: Reason by name, for files that no reader gets.
        digests: SHA-256 of each file that was read.
        path: The root; None where there is none.
    """

    def __init__(
        self,
        files: Mapping[str, Path] | Mapping[str, Path | str],
        *,
        limits: Limits | None = None,
        known: Mapping[str, str] | None = None,
    ) -> None:
        """Take files by name.

        Args:
            files: Where each lies.
            limits: `member_bytes` holds while reading.
            known: Digests that files must have, as hex digits, by name.
        """
        self._files: dict[str, Path | str] = dict(sorted(files.items()))
        self._limits, self._known = limits or Limits(), known or {}
        self.path: Path | None = None
        self.names = list(self._files)
        self.num_companions = 0
        self.refused: dict[str, str] = {}
        self.digests: dict[str, bytes] = {}

    @classmethod
    def from_directory(
        cls, root: Path, *, limits: Limits | None = None, known: Mapping[str, str] | None = None
    ) -> Self:
        """List a directory; a file's name is its path in it, such as `images/1163.jpg`.

        Links to files and folders inside the directory are followed; others, devices and pipes are refused.

        Raises:
            DataError: It holds more files than `limits.num_members`.
            PermissionDeniedError: A folder in it may not be listed.
            StorageError: It cannot be listed.
        """
        limits, names = limits or Limits(), Names()
        files: dict[str, Path | str] = {}
        with using(root, "must be readable"):
            for number, (raw, reason) in enumerate(_walk(root.resolve())):
                if number >= limits.num_members:
                    raise DataError(
                        f"{root} must hold at most {limits.num_members:,} files; got more. Point at the dataset's folder"
                    )
                if reason:
                    names.refuse(raw, reason)
                elif (name := names.add(raw)) is not None and name not in files:
                    files[name] = raw
        members = cls(files, limits=limits, known=known)
        members.path = root.resolve()
        members.num_companions, members.refused = names.num_companions, names.refused
        return members

    def read(self, name: str) -> bytes:
        """Return one file; safe to call from several threads.

        Raises:
            DataError: It is missing, larger than the limit, no plain file, or has another digest than it must have.
            PermissionDeniedError: It may not be read.
            StorageError: It cannot be read.
        """
        path, limit = Path(self.path or "", self._files[name]), self._limits.member_bytes
        with using(path, "must be readable"):
            if not path.is_file():  # a FIFO would block for ever
                is_there = path.exists() or path.is_symlink()
                found = "got a link to nothing, a device or a pipe" if is_there else "there is no such file"
                raise DataError(f"{escaped(name)} must be a plain file; {found}. Check the path")
            with path.open("rb") as file:
                data = file.read(min(limit, os.fstat(file.fileno()).st_size) + 1)
        if len(data) > limit:
            raise DataError(f"{escaped(name)} must have at most {limit:,} bytes; got more")
        digest = hashlib.sha256(data)
        if self._known.get(name, digest.hexdigest()) != digest.hexdigest():
            raise DataError(
                f"{name} must have SHA256 {self._known[name]} as SHA256SUMS says; got {digest.hexdigest()}. It is damaged"
            )
        self.digests[name] = digest.digest()
        return data

    def close(self) -> None:
        """Do nothing: no file stays open."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _walk(root: Path) -> Iterator[tuple[str, str]]:
    """Yield the path of every file in a directory, and why it may not be read where it may not."""
    folders = [("", os.fspath(root), frozenset({os.path.realpath(root)}))]
    while folders:
        prefix, folder, above = folders.pop()
        with os.scandir(folder) as entries:
            children = sorted(entries, key=lambda entry: entry.name)
        inner = []
        for entry in children:
            name = prefix + entry.name
            target = os.path.realpath(entry.path) if entry.is_symlink() else entry.path
            if entry.is_symlink() and not Path(target).is_relative_to(root):
                yield name, "it is a link that leads out of the source"
            elif (kind := _kind(entry)) == "folder":
                if target in above:
                    yield name, "it is a link to a folder that holds it"
                else:
                    inner.append((name + "/", entry.path, above | {os.path.realpath(entry.path)}))
            elif kind == "file":
                yield name, ""
            else:
                yield name, "it is a link to nothing, a device or a pipe"
        folders += reversed(inner)


def _kind(entry: os.DirEntry[str]) -> str:
    """Return whether an entry is or leads to a `folder` or a `file`; else nothing."""
    try:
        return "folder" if entry.is_dir() else "file" if entry.is_file() else ""
    except PermissionError:
        raise
    except OSError:  # a link that leads to itself, or to a name that no file can have
        return ""
