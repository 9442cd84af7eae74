"""Zip archives: what is read, what is refused, and that nothing is ever written anywhere."""

import os
import resource
import stat
import struct
import time
import zipfile
import zlib
from pathlib import Path

import pytest

from components.data.readers.archives import ZipMembers
from components.data.readers.members import Limits
from components.errors import DataError, StorageError
from tests.data.builders import make_zip, tree

NAME = "images/1.jpg"


def open_zip(path, **options):
    """Open an archive with the products' pattern."""
    return ZipMembers(path, **options)


def patched(path, old, new, *, nth=0):
    """Replace bytes of a file: the `nth` occurrence from the front, or from the back where it is negative."""
    data = bytearray(path.read_bytes())
    places, at = [], -1
    while (at := data.find(old, at + 1)) >= 0:
        places.append(at)
    data[places[nth] : places[nth] + len(old)] = new
    path.write_bytes(data)
    return path


def many_members(path, number):
    """Write an archive of many members, faster than `zipfile` does."""
    body, directory = bytearray(), bytearray()
    for i in range(number):
        name, data = f"images/{i}.jpg".encode(), b"%d" % i
        common = (0, 0, 0, 0, zlib.crc32(data), len(data), len(data), len(name), 0)
        directory += struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, 20, *common, 0, 0, 0, 0, len(body)) + name
        body += struct.pack("<4s5H3L2H", b"PK\3\4", 20, *common) + name + data
    start = len(body)
    end64 = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, number, number, len(directory), start)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, start + len(directory), 1)
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    path.write_bytes(bytes(body + directory) + end64 + locator + end)
    return path


def central(path, offset, value, form="<L"):
    """Overwrite a field of the first entry of the central directory."""
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\1\2") + offset
    struct.pack_into(form, data, at, value)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_reads_what_zipfile_writes(tmp_path, compression):
    """Stored and deflated members come out as they went in, in the archive's order."""
    members = [("styles.csv", b"a" * 500), (NAME, bytes(range(256))), ("images/22.jpg", b"")]
    path = make_zip(tmp_path / "a.zip", members, compression=compression)

    with open_zip(path) as archive:
        assert [name for name, _ in members] == archive.names
        assert [data for _, data in members] == [archive.read(name) for name in archive.names]


def test_reads_streamed_archive(tmp_path):
    """An archive written to a pipe, sizes behind the data, is read."""

    class Pipe:
        def __init__(self, file):
            self.file = file

        def write(self, data):
            return self.file.write(data)

        def flush(self):
            self.file.flush()

    with (tmp_path / "a.zip").open("wb") as file, zipfile.ZipFile(Pipe(file), "w") as archive:
        archive.writestr(NAME, b"streamed" * 50)
        archive.writestr("styles.csv", b"x")

    with open_zip(tmp_path / "a.zip") as archive:
        assert b"streamed" * 50 == archive.read(NAME)


def test_reads_zip64(tmp_path):
    """An archive with more than 65,535 members, which needs Zip64 records, is read."""
    path = many_members(tmp_path / "a.zip", 66_000)

    with open_zip(path) as archive:
        assert 66_000 == len(archive.names)
        assert b"65999" == archive.read("images/65999.jpg")


def test_a_count_that_wrapped(tmp_path):
    """An archive of more than 65,535 members whose writer knows no Zip64, as macOS makes them, is read."""
    path = many_members(tmp_path / "a.zip", 66_000)
    data = path.read_bytes()
    at = data.rindex(b"PK\6\6")
    directory = struct.unpack_from("<2Q", data, at + 40)
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 66_000 - 65_536, 66_000 - 65_536, *directory, 0)
    path.write_bytes(data[:at] + end)

    with open_zip(path) as archive:
        assert 66_000 == len(archive.names)


def test_reads_zip64_entry(tmp_path):
    """A member whose sizes are in a Zip64 field is read."""
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive, archive.open(NAME, "w", force_zip64=True) as member:
        member.write(b"large")

    with open_zip(path) as archive:
        assert b"large" == archive.read(NAME)


@pytest.mark.parametrize(
    "name",
    [
        "../../x",
        "images/../../etc/passwd",
        "/abs/images/1.jpg",
        "C:\\x",
        "C:/images/1.jpg",
        "a/../images/1.jpg",
        "images/1.jpg/../../x",
        "..\\x",
        "images/1\n.jpg",
        "images/1.jpg\n",
        "images/" + "1" * 4096 + ".jpg",
    ],
)
def test_dangerous_names_are_refused(tmp_path, name):
    """Names that lead elsewhere are named with the reason and never read; nothing is written outside."""
    sentinel = tmp_path / "sentinel"
    sentinel.write_text("untouched")
    folder = tmp_path / "data"
    folder.mkdir()
    path = make_zip(folder / "a.zip", [(name, b"evil"), (NAME, b"good")])

    with open_zip(path) as archive:
        assert [NAME] == archive.names
        assert [name.replace("/", "")] == [refused.replace("/", "") for refused in archive.refused]
        with pytest.raises(KeyError):
            archive.read(name)
    assert {"sentinel", "data/a.zip"} == set(tree(tmp_path))


def test_name_cut_by_nul(tmp_path):
    """A NUL in a name does not make it another name."""
    path = make_zip(tmp_path / "a.zip", [("images/1.jpgXx", b"evil"), ("images/2.jpg", b"good")])
    patched(patched(path, b"jpgXx", b"jpg\0x"), b"jpgXx", b"jpg\0x")

    with open_zip(path) as archive:
        assert ["images/2.jpg"] == archive.names
        assert ["images/1.jpg\0x"] == list(archive.refused)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_duplicate_names(tmp_path):
    """Of two members of one name none is read: which one would be meant?"""
    with open_zip(make_zip(tmp_path / "a.zip", [(NAME, b"a"), (NAME, b"b")])) as archive:
        assert {NAME: "another file has the same name"} == archive.refused
        with pytest.raises(DataError, match="each name once"):
            archive.read(NAME)


def test_symlink_member(tmp_path):
    """A link is no image, wherever it points to."""
    entry = zipfile.ZipInfo(NAME)
    entry.create_system, entry.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    path = make_zip(tmp_path / "a.zip", [(entry, b"/etc/passwd")])

    with open_zip(path) as archive:
        assert ([], {NAME: "it is a link or a device"}) == (archive.names, archive.refused)
        with pytest.raises(KeyError):
            archive.read(NAME)


@pytest.mark.parametrize("num_bytes", [-1, -21, -22, -100, 30])
def test_truncated_archive(tmp_path, num_bytes):
    """An archive that lost its end has no directory."""
    path = make_zip(tmp_path / "a.zip", [(NAME, os.urandom(500)), ("styles.csv", b"x")])
    data = path.read_bytes()
    path.write_bytes(data[:num_bytes])

    with pytest.raises(DataError):
        open_zip(path)


@pytest.mark.parametrize(
    "content", [b"", b"PK", b"PK\3\4" + bytes(100), b"PK\5\6" + b"\xff" * 18, b"PK\5\6" + bytes(17)]
)
def test_no_archive(tmp_path, content):
    """Files that only begin or end like an archive are refused."""
    (tmp_path / "a.zip").write_bytes(content)

    with pytest.raises(DataError):
        open_zip(tmp_path / "a.zip")


def test_empty_archive(tmp_path):
    """An archive without members is one without members."""
    (tmp_path / "a.zip").write_bytes(b"PK\5\6" + bytes(18))

    with open_zip(tmp_path / "a.zip") as archive:
        assert [] == archive.names


def test_absent_file(tmp_path):
    """A path that cannot be opened is a storage error."""
    with pytest.raises(StorageError, match="readable"):
        open_zip(tmp_path / "a.zip")


def test_flipped_byte_in_member(tmp_path):
    """Damage inside a member is found by its checksum; other members still read."""
    path = make_zip(tmp_path / "a.zip", [(NAME, b"A" * 100), ("images/2.jpg", b"B" * 100)])
    patched(path, b"AAAA", b"AAAB")

    with open_zip(path) as archive:
        with pytest.raises(DataError, match="CRC-32"):
            archive.read(NAME)
        assert b"B" * 100 == archive.read("images/2.jpg")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_methods(tmp_path, method):
    """Only stored and deflated members are unpacked."""
    path = make_zip(tmp_path / "a.zip", [(NAME, b"x" * 100)], compression=method)

    with open_zip(path) as archive, pytest.raises(DataError, match="stored or deflated"):
        archive.read(NAME)


def test_encrypted_member(tmp_path):
    """A member with a password is refused."""
    path = central(make_zip(tmp_path / "a.zip", [(NAME, b"x")]), 8, 1, "<H")

    with open_zip(path) as archive, pytest.raises(DataError, match="encrypted"):
        archive.read(NAME)


def test_split_archive(tmp_path):
    """One part of several is refused."""
    path = make_zip(tmp_path / "a.zip", [(NAME, b"x")])
    data = bytearray(path.read_bytes())
    struct.pack_into("<HH", data, len(data) - 22 + 4, 1, 1)
    path.write_bytes(data)

    with pytest.raises(DataError, match="one file"):
        open_zip(path)


def test_bomb(tmp_path):
    """A large member that grows by more than 200 times is refused before anything is unpacked."""
    path = make_zip(tmp_path / "a.zip", [(NAME, bytes(15 * 2**20))], compression=zipfile.ZIP_DEFLATED)

    with open_zip(path) as archive, pytest.raises(DataError, match="200 times"):
        archive.read(NAME)


def test_large_member(tmp_path):
    """A member above the limit is refused, whatever it packs to."""
    path = make_zip(tmp_path / "a.zip", [(NAME, b"ab" * 600)])

    with (
        open_zip(path, limits=Limits(member_bytes=1000)) as archive,
        pytest.raises(DataError, match="at most 1,000 bytes"),
    ):
        archive.read(NAME)


def test_large_total(tmp_path):
    """All members together have a limit as well."""
    path = make_zip(tmp_path / "a.zip", [(f"images/{i}.jpg", os.urandom(600)) for i in range(4)])

    with pytest.raises(DataError, match="at most 2,000 bytes"):
        open_zip(path, limits=Limits(total_bytes=2000))


def test_lying_size(tmp_path):
    """A member that unpacks to more than it says stops there, and its checksum gives it away."""
    path = make_zip(tmp_path / "a.zip", [(NAME, bytes(10 * 2**20))], compression=zipfile.ZIP_DEFLATED)
    central(path, 24, 1000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    with open_zip(path) as archive, pytest.raises(DataError, match="Bad CRC-32"):
        archive.read(NAME)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 5 * 1024


def test_size_that_is_too_large(tmp_path):
    """A member that unpacks to less than it says is damaged."""
    path = central(make_zip(tmp_path / "a.zip", [(NAME, b"abc" * 9)], compression=zipfile.ZIP_DEFLATED), 24, 1000)

    with open_zip(path) as archive, pytest.raises(DataError, match="must have 1000 bytes"):
        archive.read(NAME)


def test_overlapping_members(tmp_path):
    """Two entries that share bytes, the heart of a quadratic bomb, are refused."""
    path = make_zip(tmp_path / "a.zip", [("images/1.jpg", b"x" * 400), ("images/2.jpg", b"y" * 400)])
    data = bytearray(path.read_bytes())
    second = data.index(b"PK\1\2", data.index(b"PK\1\2") + 4)
    struct.pack_into("<L", data, second + 42, 100)
    path.write_bytes(data)

    with pytest.raises(DataError, match="overlap"):
        open_zip(path)


def test_member_beyond_the_file(tmp_path):
    """An entry that points behind the data is refused."""
    with pytest.raises(DataError):
        open_zip(central(make_zip(tmp_path / "a.zip", [(NAME, b"x" * 50)]), 42, 2**31))


def test_packed_size_beyond_the_file(tmp_path):
    """An entry that claims more packed bytes than there are is refused without asking for them."""
    with pytest.raises(DataError):
        open_zip(central(make_zip(tmp_path / "a.zip", [(NAME, b"x" * 50)]), 20, 0xFFFFFFF0))


def test_a_million_entries(tmp_path):
    """An archive of a million overlapping entries is refused within seconds, whatever their number."""
    path = tmp_path / "a.zip"
    entry = struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, 20, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"a"
    directory = entry * 1_000_000
    end64 = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, 10**6, 10**6, len(directory), 0)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, len(directory), 1)
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    path.write_bytes(directory + end64 + locator + end)
    started = time.monotonic()

    with pytest.raises(DataError, match="at most 1,000 members"):
        open_zip(path, limits=Limits(num_members=1_000))
    assert time.monotonic() - started < 5
    with pytest.raises(DataError, match="do not overlap"):
        open_zip(path)


def test_count_that_is_too_large(tmp_path):
    """An end record that promises more entries than there are is refused."""
    path = make_zip(tmp_path / "a.zip", [(NAME, b"x")])
    data = bytearray(path.read_bytes())
    struct.pack_into("<HH", data, len(data) - 22 + 8, 900, 900)
    path.write_bytes(data)

    with pytest.raises(DataError, match="directory is damaged"):
        open_zip(path)


def test_files_are_closed(tmp_path):
    """Neither a good nor a refused archive stays open."""
    good = make_zip(tmp_path / "a.zip", [(NAME, b"x")])
    bad = tmp_path / "b.zip"
    bad.write_bytes(zlib.compress(b"no archive"))
    before = len(list(Path("/proc/self/fd").iterdir()))

    open_zip(good).close()
    for _ in range(3):
        with pytest.raises(DataError):
            open_zip(bad)

    assert before == len(list(Path("/proc/self/fd").iterdir()))


def test_a_name_that_is_no_utf8_though_it_says_so(tmp_path):
    """A member with a wrong flag on its name cannot be read; the archive around it is as good as before."""
    path = make_zip(tmp_path / "a.zip", [("caf\N{LATIN SMALL LETTER E WITH ACUTE}.txt", b"x"), (NAME, b"good")])
    wrong = "caf\N{LATIN SMALL LETTER E WITH ACUTE}".encode()
    path.write_bytes(path.read_bytes().replace(wrong, b"caf\xe9\xe9"))

    with open_zip(path) as archive:
        assert 2 == len(archive.names)
        assert b"good" == archive.read(NAME)
        with pytest.raises(DataError, match="must be whole"):
            archive.read(archive.names[0])
