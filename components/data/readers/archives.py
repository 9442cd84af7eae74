"""Members of zip and tar archives are read in place, with limits that hold while reading; nothing is ever extracted.

`zipfile` reads the archives; what it lets pass is checked here: overlapping members (before Python 3.11.8), sizes, links.

Source: APPNOTE.TXT 6.3.10, https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT (0x7075: 4.6.9)
"""

import abc
import errno
import gzip
import lzma
import os
import stat
import struct
import tarfile
import tempfile
import zipfile
import zlib
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np

from components.data.readers.members import Limits, Names
from components.errors import DataError, file_error
from components.text import error_text, escaped

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz")

_LOCAL_HEADER_BYTES = 30
_UTF8, _UNICODE_PATH = 0x800, 0x7075
_DAMAGE = (
    zipfile.BadZipFile, tarfile.TarError, zlib.error, gzip.BadGzipFile, lzma.LZMAError, EOFError, struct.error,
    ValueError, OverflowError, NotImplementedError, RuntimeError, MemoryError,
)  # fmt: skip
"""What the standard library raises on bytes that are no archive."""


def open_archive(path: Path, *, limits: Limits | None = None, label: str = "") -> "ZipMembers | TarMembers":
    """Open an archive, whatever its name.

    Raises:
        DataError: It is neither zip nor tar, is damaged, or exceeds a limit.
        StorageError: It cannot be read.
    """
    label = label or path.name
    try:
        with path.open("rb") as file:
            begins = file.read(512)
    except OSError as error:
        raise file_error(error, "must be readable", path) from error
    if begins[:2] == b"PK":
        return ZipMembers(path, limits=limits, label=label)
    if begins[:2] == b"\x1f\x8b" or begins[257:262] == b"ustar":
        return TarMembers(path, limits=limits, label=label)
    raise DataError(
        f"{label} must be a directory, a zip archive or a tar archive; got a file that begins with"
        f" {begins[:4].hex() or 'nothing'}. Check the source"
    )


def is_archive(name: str) -> bool:
    """Return whether a file is an archive, by its name."""
    return name.lower().endswith(SUFFIXES)


class _Archive(abc.ABC):
    """What zip and tar have in common; see `Members`."""

    def __init__(self, path: Path, limits: Limits | None, label: str) -> None:
        self.path, self.label = path, label or path.name
        self.digests: dict[str, bytes] = {}
        self._limits = limits or Limits()
        self._names = Names()
        self._num_bytes = 0

    @property
    def names(self) -> list[str]:
        """Names of the members, in the archive's order."""
        return list(self._names.offered)

    @property
    def num_companions(self) -> int:
        """Files that systems leave beside the data."""
        return self._names.num_companions

    @property
    def refused(self) -> dict[str, str]:
        """For members that are not read, the reason by name."""
        return self._names.refused

    @abc.abstractmethod
    def close(self) -> None:
        """Close the file."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _count(self, num_members: int, num_bytes: int, name: str) -> None:
        """Add a member's unpacked size; raise `DataError` beyond the limits of the whole archive."""
        if num_members > self._limits.num_members:
            raise DataError(f"{self.label} must have at most {self._limits.num_members:,} members; got more. Split it")
        self._num_bytes += num_bytes
        if self._num_bytes > self._limits.total_bytes:
            raise DataError(
                f"{self.label} must unpack to at most {self._limits.total_bytes:,} bytes; got more at {escaped(name)}"
            )

    def _check_size(self, name: str, packed: int, size: int) -> None:
        limits = self._limits
        if size > limits.member_bytes:
            raise DataError(f"{name} must unpack to at most {limits.member_bytes:,} bytes; got {size:,}")
        if size > limits.ratio * max(packed, 1) and size > limits.free_bytes:
            raise DataError(
                f"{name} must unpack to at most {limits.ratio} times its packed size; got {packed:,} -> {size:,}"
            )


class ZipMembers(_Archive):
    """The members of one zip archive; see `Members`. Names are read as their writer meant them.

    Attributes:
        path: The archive.
        label: What errors call it.
    """

    def __init__(self, path: Path, *, limits: Limits | None = None, label: str = "") -> None:
        """Open the archive and check its directory.

        Args:
            path: The archive.
            limits: What it may cost.
            label: What errors call it, where that is not the file's name.

        Raises:
            DataError: It is no zip, is damaged, or exceeds a limit.
            StorageError: It cannot be read.
        """
        super().__init__(path, limits, label)
        self._infos: dict[str, zipfile.ZipInfo] = {}
        self._ambiguous: set[str] = set()
        try:
            self._file = path.open("rb")
        except OSError as error:
            raise file_error(error, "must be readable", path) from error
        try:
            self._zip = self._opened(self._file)
            self._take(self._zip.filelist)
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._zip.close()
        self._file.close()

    def read(self, name: str) -> bytes:
        """Return one member, its length and checksum verified; safe to call from several threads.

        Raises:
            DataError: The member is damaged, encrypted, compressed in another way, or too large.
        """
        info, where = self._infos[name], f"{self.label}: {name}"
        if name in self._ambiguous:
            raise DataError(f"{self.label} must hold each name once; got {escaped(name)} twice. Pack it again")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise DataError(
                f"{where} must be stored or deflated; got method {info.compress_type}. Pack the archive again"
            )
        if info.flag_bits & 1:
            raise DataError(f"{where} must not be encrypted. Pack the archive again without a password")
        self._check_size(where, info.compress_size, info.file_size)
        try:
            with self._zip.open(info) as member:
                data = member.read(info.file_size)
                member.read(1)  # at its end the checksum is compared
        except _DAMAGE as error:
            raise DataError(f"{where} must be whole; got {error_text(error)}. The archive is damaged") from error
        except OSError as error:
            if error.errno == errno.EINVAL:  # an offset that no file has
                raise DataError(f"{where} must be whole; got an impossible place. The archive is damaged") from error
            raise file_error(error, "must be readable", self.path) from error
        if len(data) != info.file_size:
            raise DataError(f"{where} must have {info.file_size} bytes; got {len(data)}. The archive is damaged")
        return data

    def _opened(self, file: BinaryIO) -> zipfile.ZipFile:
        try:
            # Its directory is read at once: ask before how long that is.
            end = zipfile._EndRecData(file)  # type: ignore[attr-defined]
            if end and end[zipfile._ECD_SIZE] > self._limits.num_members * 400:  # type: ignore[attr-defined]
                raise DataError(
                    f"{self.label} must have at most {self._limits.num_members:,} members; got more. Split it"
                )
            if end and (end[zipfile._ECD_DISK_NUMBER] or end[zipfile._ECD_DISK_START]) not in (0, 0xFFFF):  # type: ignore[attr-defined]
                raise DataError(f"{self.label} must be one file; got part of a split archive. Join it")
            try:
                opened = zipfile.ZipFile(file)
            except UnicodeDecodeError:
                opened = zipfile.ZipFile(_Unflagged(file, end))
        except (*_DAMAGE, OSError) as error:
            raise DataError(
                f"{self.label} must be a whole zip archive; got {os.fstat(file.fileno()).st_size:,} bytes and"
                f" {error_text(error)}. It may be cut short: fetch it again"
            ) from error
        num_members = end[zipfile._ECD_ENTRIES_TOTAL] if end else len(opened.filelist)  # type: ignore[attr-defined]
        # Writers without Zip64 let the number of members wrap at 65,536, and every reader counts for itself.
        if (len(opened.filelist) - num_members) % 0x10000:
            raise DataError(
                f"{self.label} must list {num_members:,} members; got {len(opened.filelist):,}: its"
                " directory is damaged. Fetch it again"
            )
        return opened

    def _take(self, infos: list[zipfile.ZipInfo]) -> None:
        """Check all entries together, and keep those that are files."""
        starts = np.fromiter((info.header_offset for info in infos), np.int64, len(infos))
        least = np.fromiter((info.compress_size for info in infos), np.int64, len(infos)) + _LOCAL_HEADER_BYTES
        order = np.argsort(starts, kind="stable")
        following = np.append(starts[order][1:], self._zip.start_dir)
        if len(wrong := np.flatnonzero(starts[order] + least[order] > following)):
            raise DataError(
                f"{self.label} must hold members that do not overlap; got two at byte {following[wrong[0]]}. Refused"
            )
        for number, info in enumerate(infos, 1):
            raw = _decoded(info)
            self._count(number, info.file_size, raw)
            mode = info.external_attr >> 16 if info.create_system == 3 else 0
            if raw.endswith(("/", "\\")):
                continue
            if mode and stat.S_IFMT(mode) not in (0, stat.S_IFREG):
                self._names.refuse(raw, "it is a link or a device")
            elif (name := self._names.add(raw)) is not None:
                if name in self._infos:
                    self._ambiguous.add(name)
                self._infos[name] = info
            info.date_time = info.extra = None  # type: ignore[assignment] # a third of an entry's memory
        infos.clear()
        self._zip.NameToInfo.clear()


class _Unflagged:
    """An archive's bytes, without the UTF-8 flag on names that are no UTF-8: `zipfile` would give the whole archive up."""

    def __init__(self, file: BinaryIO, end: list[Any]) -> None:
        self._file, self._flags = file, {}
        is_large = end[zipfile._ECD_SIGNATURE] == zipfile.stringEndArchive64  # type: ignore[attr-defined]
        extra = zipfile.sizeEndCentDir64 + zipfile.sizeEndCentDir64Locator if is_large else 0  # type: ignore[attr-defined]
        at = end[zipfile._ECD_LOCATION] - end[zipfile._ECD_SIZE] - extra  # type: ignore[attr-defined]
        file.seek(at)
        directory, place = file.read(end[zipfile._ECD_SIZE]), 0  # type: ignore[attr-defined]
        while directory[place : place + 4] == b"PK\1\2" and place + 46 <= len(directory):
            lengths = struct.unpack_from("<3H", directory, place + 28)
            name, high = directory[place + 46 : place + 46 + lengths[0]], directory[place + 9]
            if high & _UTF8 >> 8 and not _is_utf8(name):
                self._flags[at + place + 9] = high & ~(_UTF8 >> 8)
            place += 46 + sum(lengths)

    def read(self, size: int = -1) -> bytes:
        start = self._file.tell()
        data = bytearray(self._file.read(size))
        for place, flag in self._flags.items():
            if start <= place < start + len(data):
                data[place - start] = flag
        return bytes(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def _is_utf8(name: bytes) -> bool:
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return True


def _decoded(info: zipfile.ZipInfo) -> str:
    """Return a member's name: flagged as UTF-8, in the Unicode path field, as UTF-8 without a flag, else as cp437."""
    if info.flag_bits & _UTF8:
        return info.orig_filename
    raw = info.orig_filename.encode("cp437")
    extra = info.extra
    while len(extra) >= 4:
        kind, length = struct.unpack_from("<2H", extra)
        body, extra = extra[4 : 4 + length], extra[4 + length :]
        if kind == _UNICODE_PATH and len(body) > 5 and body[1:5] == zlib.crc32(raw).to_bytes(4, "little"):
            return body[5:].decode("utf-8", "surrogateescape")
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return info.orig_filename


class TarMembers(_Archive):
    """The members of one tar archive, gzipped or not; see `Members`.

    A gzipped one is unpacked as a whole into a temporary file without a name first: it cannot be read in any other order.
    """

    def __init__(self, path: Path, *, limits: Limits | None = None, label: str = "") -> None:
        """Open the archive and list it; see `ZipMembers`."""
        super().__init__(path, limits, label)
        self._places: dict[str, tuple[int, int]] = {}
        self._ambiguous: set[str] = set()
        try:
            self._file: BinaryIO = path.open("rb")
        except OSError as error:
            raise file_error(error, "must be readable", path) from error
        try:
            self._take()
        except (*_DAMAGE, OSError) as error:
            self._file.close()
            if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
                raise file_error(error, "must be readable", path) from error
            raise DataError(
                f"{self.label} must be a whole tar archive; got {error_text(error)}. It may be cut short: fetch it again"
            ) from error
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def read(self, name: str) -> bytes:
        """Return one member; safe to call from several threads.

        Raises:
            DataError: The member is too large, or cut short.
        """
        (start, size), where = self._places[name], f"{self.label}: {name}"
        if name in self._ambiguous:
            raise DataError(f"{self.label} must hold each name once; got {escaped(name)} twice. Pack it again")
        self._check_size(where, size, size)
        data = os.pread(self._file.fileno(), size, start)
        if len(data) != size:
            raise DataError(f"{where} must have {size} bytes; got {len(data)}. The archive is damaged")
        return data

    def _take(self) -> None:
        if self._file.read(2) == b"\x1f\x8b":
            packed, self._file = self._file, tempfile.TemporaryFile()  # noqa: SIM115 - `close` closes it
            with packed:
                packed.seek(0)
                self._unpack(packed)
        self._file.seek(0)
        with tarfile.open(fileobj=self._file, mode="r:", errors="surrogateescape") as archive:
            for number, entry in enumerate(archive, 1):
                archive.members.clear()  # type: ignore[attr-defined] # it would keep a kilobyte for each
                self._count(number, entry.size, entry.name)
                if entry.isdir():
                    continue
                if not entry.isreg() or entry.issparse():
                    self._names.refuse(entry.name, "it is a link or a device")
                elif (name := self._names.add(entry.name)) is not None:
                    if name in self._places:
                        self._ambiguous.add(name)
                    self._places[name] = (entry.offset_data, entry.size)

    def _unpack(self, packed: BinaryIO) -> None:
        most = min(self._limits.total_bytes, self._limits.ratio * os.fstat(packed.fileno()).st_size + 2**20)
        with gzip.GzipFile(fileobj=packed) as unpacked:
            while chunk := unpacked.read(2**20):
                if self._file.tell() + len(chunk) > most:
                    raise DataError(f"{self.label} must unpack to at most {most:,} bytes; got more")
                self._file.write(chunk)
        self._file.flush()
