"""Reads the members of a zip archive in place, with limits that hold while reading; nothing is ever extracted.

The standard library's `zipfile` is neither strict enough (it opens overlapping members before Python 3.11.8) nor fast
enough (50 µs a member) for 44,000 images of 1.5 kB.

Source: APPNOTE.TXT 6.3.10, https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT
"""

import os
import re
import stat
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple, Self

from components.data.findings import shown
from components.errors import DataError, StorageError

_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_END64_LOCATOR = struct.Struct("<4sLQL")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_STORED, _DEFLATED = 0, 8
_ENCRYPTED, _UTF8 = 0x1, 0x800


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What an archive may cost; the values are those of the project's threat model.

    Attributes:
        num_members: Entries in the directory.
        member_bytes: Unpacked size of one member.
        total_bytes: Unpacked size of all of them.
        ratio: Unpacked to packed size.
    """

    num_members: int = 200_000
    member_bytes: int = 20 * 2**20
    total_bytes: int = 4 * 2**30
    ratio: int = 200


class Member(NamedTuple):
    """One file of the archive: where it lies and what the directory promises."""

    start: int
    end: int
    flags: int
    method: int
    crc: int
    packed: int
    size: int
    is_regular: bool


class ZipMembers:
    """The members of one archive whose names match a pattern.

    Attributes:
        path: The archive.
        label: What errors call it.
        names: Names that matched, in archive order.
        num_ignored: Files whose names did not match; they are never read.
    """

    def __init__(self, path: Path, *, pattern: str, limits: Limits | None = None, label: str = "") -> None:
        """Open the archive and check its whole directory.

        Args:
            path: The archive.
            pattern: Regular expression of the names to offer; all else is ignored.
            limits: What it may cost.
            label: What errors call it, where that is not the file's name.

        Raises:
            DataError: It is no zip, is damaged, or exceeds a limit.
            StorageError: It cannot be read.
        """
        self.path, self.label = path, label or path.name
        self._limits = limits or Limits()
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise StorageError(f"{path} must be readable; got {error.strerror}. Check the path") from error
        try:
            self._num_bytes = os.fstat(self._fd).st_size
            self._members, self.num_ignored = self._read_directory(re.compile(pattern, re.ASCII))
        except BaseException:
            self.close()
            raise
        self.names = list(self._members)

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read(self, name: str) -> bytes:
        """Return one member, its length and checksum verified; safe to call from several threads.

        Raises:
            DataError: The member is damaged, encrypted, compressed in another way, or larger than it says.
        """
        member = self._members[name]
        where = f"{self.label}: {name}"
        if not member.is_regular:
            raise DataError(f"{where} must be a plain file; got a link or device")
        if member.flags & _ENCRYPTED:
            raise DataError(f"{where} must not be encrypted. Pack the archive again without a password")
        if member.method not in (_STORED, _DEFLATED):
            raise DataError(f"{where} must be stored or deflated; got method {member.method}. Pack the archive again")
        raw = os.pread(self._fd, member.end - member.start, member.start)
        if len(raw) < _LOCAL.size or raw[:4] != b"PK\3\4":
            raise DataError(f"{where} must begin with a local header; got other bytes. The archive is damaged")
        *_, len_name, len_extra = _LOCAL.unpack_from(raw)
        begin = _LOCAL.size + len_name + len_extra
        packed = raw[begin : begin + member.packed]
        if len(packed) != member.packed:
            raise DataError(
                f"{where} must have {member.packed} packed bytes; got {len(packed)}. The archive is damaged"
            )
        data = packed if member.method == _STORED else self._inflate(packed, member, where)
        if len(data) != member.size:
            raise DataError(f"{where} must have {member.size} bytes; got {len(data)}. The archive is damaged")
        if zlib.crc32(data) != member.crc:
            raise DataError(
                f"{where} must have CRC-32 {member.crc:08x}; got {zlib.crc32(data):08x}. The archive is damaged"
            )
        return data

    def _inflate(self, packed: bytes, member: Member, where: str) -> bytes:
        # The limit is what the directory promised (checked on opening), plus one byte to notice a lie.
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            data = inflater.decompress(packed, member.size + 1)
        except zlib.error as error:
            raise DataError(f"{where} must be deflated; got {error}. The archive is damaged") from error
        if len(data) > member.size:
            raise DataError(f"{where} must unpack to {member.size} bytes; got more. The archive lies about its size")
        return data

    def _read_directory(self, pattern: re.Pattern[str]) -> tuple[dict[str, Member], int]:
        limits, name = self._limits, self.label
        start, num_bytes, num_members = self._find_directory()
        if num_members > limits.num_members or num_bytes > limits.num_members * 400:
            raise DataError(f"{name} must have at most {limits.num_members:,} members; got {num_members:,}. Split it")
        directory = os.pread(self._fd, num_bytes, start)
        if len(directory) != num_bytes:
            raise DataError(f"{name} must have a directory of {num_bytes} bytes; got {len(directory)}. It is cut short")
        wanted: dict[str, Member] = {}
        extents: list[tuple[int, int]] = []
        total = num_ignored = 0
        for entry_name, member in self._entries(directory, num_members):
            total += member.size
            self._check(entry_name, member, total)
            extents.append((member.start, member.packed + _LOCAL.size))
            if entry_name.endswith("/"):
                continue
            if not pattern.fullmatch(entry_name):
                num_ignored += 1
                continue
            if entry_name in wanted:
                raise DataError(f"{name} must hold each name once; got {shown(entry_name)} twice. Pack it again")
            wanted[entry_name] = member
        ends = self._ends(extents, start)
        return {key: member._replace(end=ends[member.start]) for key, member in wanted.items()}, num_ignored

    def _check(self, entry_name: str, member: Member, total: int) -> None:
        limits, where = self._limits, f"{self.label}: {shown(entry_name)}"
        if member.size > limits.member_bytes:
            raise DataError(f"{where} must unpack to at most {limits.member_bytes:,} bytes; got {member.size:,}")
        if member.size > limits.ratio * max(member.packed, 1) and member.size > 4096:
            raise DataError(
                f"{where} must unpack to at most {limits.ratio} times its packed size; got {member.packed:,} -> {member.size:,}"
            )
        if total > limits.total_bytes:
            raise DataError(
                f"{self.label} must unpack to at most {limits.total_bytes:,} bytes; got more at {shown(entry_name)}"
            )

    def _ends(self, extents: list[tuple[int, int]], directory_start: int) -> dict[int, int]:
        """Return where each member's bytes must end: at the next one's start. Refuse overlaps."""
        extents.sort()
        ends = {}
        for (start, least), (following, _) in pairwise([*extents, (directory_start, 0)]):
            if start + least > following:
                raise DataError(
                    f"{self.label} must hold members that do not overlap; got two at byte {following}. Refused"
                )
            ends[start] = following
        return ends

    def _find_directory(self) -> tuple[int, int, int]:
        """Return start, length and number of members of the central directory."""
        tail_start = max(0, self._num_bytes - _END.size - 65_535)
        tail = os.pread(self._fd, self._num_bytes - tail_start, tail_start)
        at = tail.rfind(b"PK\5\6")
        if at < 0 or len(tail) - at < _END.size:
            raise DataError(
                f"{self.label} must be a whole zip archive; got {self._num_bytes:,} bytes without its directory."
                " It may be cut short: fetch it again"
            )
        _, disk, directory_disk, _, num_members, num_bytes, start, _ = _END.unpack_from(tail, at)
        if 0xFFFF in (num_members, disk) or 0xFFFFFFFF in (num_bytes, start):
            start, num_bytes, num_members = self._find_directory64(tail_start + at)
        elif disk or directory_disk:
            raise DataError(f"{self.label} must be one file; got part of a split archive. Join it")
        if start + num_bytes > tail_start + at:
            raise DataError(
                f"{self.label} must have its directory before its end record; got byte {start}. It is damaged"
            )
        return start, num_bytes, num_members

    def _find_directory64(self, end: int) -> tuple[int, int, int]:
        locator = os.pread(self._fd, _END64_LOCATOR.size, max(0, end - _END64_LOCATOR.size))
        if len(locator) == _END64_LOCATOR.size and locator[:4] == b"PK\6\7":
            at = _END64_LOCATOR.unpack(locator)[2]
            record = os.pread(self._fd, _END64.size, at) if at < self._num_bytes else b""
            if len(record) == _END64.size and record[:4] == b"PK\6\6":
                *_, num_members, num_bytes, start = _END64.unpack(record)
                return start, num_bytes, num_members
        raise DataError(f"{self.label} must have a Zip64 end record; got none. It is damaged")

    def _entries(self, directory: bytes, num_members: int) -> Iterator[tuple[str, Member]]:
        at = 0
        damaged = DataError(f"{self.label} must list {num_members:,} members; its directory is damaged. Fetch it again")
        for _ in range(num_members):
            if at + _CENTRAL.size > len(directory) or directory[at : at + 4] != b"PK\1\2":
                raise damaged
            (
                _,
                made_by,
                _,
                flags,
                method,
                _,
                _,
                crc,
                packed,
                size,
                len_name,
                len_extra,
                len_comment,
                _,
                _,
                attributes,
                start,
            ) = _CENTRAL.unpack_from(directory, at)
            at += _CENTRAL.size
            raw_name = directory[at : at + len_name]
            extra = directory[at + len_name : at + len_name + len_extra]
            at += len_name + len_extra + len_comment
            if at > len(directory):
                raise damaged
            if 0xFFFFFFFF in (packed, size, start):
                packed, size, start = self._zip64(extra, packed, size, start)
            mode = attributes >> 16 if made_by >> 8 == 3 else 0
            regular = not mode or stat.S_IFMT(mode) in (0, stat.S_IFREG)
            name = raw_name.decode("utf-8" if flags & _UTF8 else "cp437", "replace")
            yield name, Member(start, 0, flags, method, crc, packed, size, regular)

    def _zip64(self, extra: bytes, packed: int, size: int, start: int) -> tuple[int, int, int]:
        at = 0
        while at + 4 <= len(extra):
            kind, length = struct.unpack_from("<2H", extra, at)
            body = extra[at + 4 : at + 4 + length]
            at += 4 + length
            if kind != 1:
                continue
            values = iter(struct.unpack_from(f"<{len(body) // 8}Q", body))
            size, packed, start = (next(values, v) if v == 0xFFFFFFFF else v for v in (size, packed, start))
        if max(packed, start) > self._num_bytes:
            raise DataError(f"{self.label} must hold members within its {self._num_bytes:,} bytes. It is damaged")
        return packed, size, start
