"""More than twenty thousand mutated files: each is read, or refused in the project's own words; nothing else ever happens."""

import io
import os
import random
import resource
import struct
import tarfile
import time
import zipfile
from pathlib import Path

import pytest

from components.data.contract import TestData
from components.data.findings import Findings
from components.data.readers.archives import ZipMembers, open_archive
from components.data.readers.fashion_products import parse_styles
from components.data.readers.idx import format_idx, gunzip, parse_idx
from components.data.readers.images import UndecodableError, decode
from components.data.readers.table import read_rows
from components.errors import DataError
from tests.data.builders import jpeg, make_zip, mnist_arrays, products, row, run_ingest, table, tree

NUM_IDX, NUM_ZIP, NUM_CSV, NUM_GZIP, NUM_JPEG, NUM_INGESTS = 8_000, 7_000, 6_000, 3_000, 3_000, 150
NUM_TAR, NUM_TABLES, NUM_IMAGES = 1_000, 2_000, 300
MEMORY_KIB = 150 * 1024
SLOWEST_SECONDS = 5.0

INTERESTING = (0, 1, 0x7F, 0x80, 0xFF)
INTERESTING_WORDS = (0, 1, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)


def mutate(data: bytes, rng: random.Random) -> bytes:
    """Damage bytes: flips, interesting numbers, cuts, copies, insertions."""
    result = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 8))):
        if not result:
            break
        at = rng.randrange(len(result))
        kind = rng.randrange(7)
        if kind == 0:
            result[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            result[at] = rng.choice(INTERESTING)
        elif kind == 2:
            word = struct.pack(rng.choice("<>") + "L", rng.choice(INTERESTING_WORDS))[: rng.choice((2, 4))]
            result[at : at + len(word)] = word
        elif kind == 3:
            del result[at:]
        elif kind == 4:
            del result[at : at + rng.randrange(1, 50)]
        elif kind == 5:
            result[at:at] = rng.randbytes(rng.randrange(1, 20))
        else:
            start = rng.randrange(len(result))
            result[at:at] = result[start : start + rng.randrange(1, 200)]
    return bytes(result)


@pytest.fixture(autouse=True)
def _bounded():
    """Fail where a test takes more memory than it may."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MEMORY_KIB


def survive(number, call, *errors):
    """Call with numbers; return how often it succeeded. Any other exception, or a slow call, fails the test."""
    passed = 0
    for seed in range(number):
        started = time.monotonic()
        try:
            call(random.Random(seed))
            passed += 1
        except errors:
            pass
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise
        assert time.monotonic() - started < SLOWEST_SECONDS, f"seed {seed}"
    return passed


def test_idx():
    """IDX files: mostly the header, where the sizes are."""
    images = gunzip(format_idx(mnist_arrays(num_train=4)["train-images-idx3-ubyte.gz"]), "x")
    labels = b"\0\0\x08\x01" + struct.pack(">L", 9) + bytes(range(9))

    def call(rng):
        data, num_dims, header = (images, 3, 16) if rng.random() < 0.7 else (labels, 1, 8)
        if rng.random() < 0.8:
            data = mutate(data[:header], rng) + data[header:]
        else:
            data = mutate(data, rng)
        parse_idx(data, "fuzzed", num_dims=num_dims)

    assert 0 < survive(NUM_IDX, call, DataError) < NUM_IDX / 2


def test_gzip():
    """Gzip files around them."""
    data = format_idx(mnist_arrays(num_train=2)["train-images-idx3-ubyte.gz"])

    survive(NUM_GZIP, lambda rng: gunzip(mutate(data, rng), "fuzzed", limit=100_000), DataError)


def test_zip(tmp_path):
    """Archives: mostly the records, where offsets and sizes are; members are read as ingest reads them."""
    members = [
        ("styles.csv", table([row(1)])),
        ("images/1.jpg", b"x" * 300),
        ("images/2.jpg", bytes(3000)),
        ("z/../x", b"e"),
    ]
    make_zip(tmp_path / "stored.zip", members)
    make_zip(tmp_path / "deflated.zip", members, compression=zipfile.ZIP_DEFLATED)
    originals = [(tmp_path / name).read_bytes() for name in ("stored.zip", "deflated.zip")]
    files = set(tree(tmp_path))
    memory = os.memfd_create("fuzzed")  # thousands of small files are slow on some disks
    path = Path(f"/proc/self/fd/{memory}")

    def call(rng):
        data = rng.choice(originals)
        start = data.index(b"PK\1\2") if rng.random() < 0.7 else 0
        os.ftruncate(memory, 0)
        os.pwrite(memory, data[:start] + mutate(data[start:], rng), 0)
        with ZipMembers(path) as archive:
            for name in archive.names:
                assert not name.startswith("/")
                assert ".." not in name.split("/")
                assert len(archive.read(name)) < 2**20

    passed = survive(NUM_ZIP, call, DataError)
    os.close(memory)
    assert 0 < passed < NUM_ZIP / 2
    assert files == set(tree(tmp_path))


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_tar(tmp_path, mode):
    """Tar archives, gzipped or not: read within the archive's own bytes, or refused."""
    path = tmp_path / "fuzzed.tar"
    with tarfile.open(path, mode) as archive:
        for number in range(5):
            entry = tarfile.TarInfo(f"images/{number}.jpg" + "x" * (120 if number == 3 else 0))
            entry.size = 300
            archive.addfile(entry, io.BytesIO(bytes(300)))
    data = path.read_bytes()

    def call(rng):
        path.write_bytes(mutate(data, rng))
        archive = open_archive(path)
        for name in archive.names:
            assert ".." not in name.split("/")
            assert len(archive.read(name)) <= len(data) * 200
        archive.close()

    survive(NUM_TAR, call, DataError)


def test_tables():
    """Tables with quotes and line ends inside them: every row comes out or is named."""
    text = 'sku,title,category\nA-01,"Lamp, ""brass""\nand more",Lamps\nA-02,Chair,Chairs\n' * 10
    encoded = [text.encode(encoding) for encoding in ("utf-8", "utf-16", "cp1252")]

    def call(rng):
        findings = Findings()
        rows = read_rows(mutate(rng.choice(encoded), rng), "t.csv", ["sku", "category"], findings)
        assert len(rows.frame) + len(findings.quarantined) == rows.num_rows

    assert 0 < survive(NUM_TABLES, call, DataError) < NUM_TABLES


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF"])
def test_other_images(kind):
    """Images of other formats: decoded to the right shape, or refused with a reason."""
    original = jpeg(seed=1, image_format=kind)

    def call(rng):
        assert (80, 60, 3) == decode(mutate(original, rng), (80, 60))[0].shape

    assert 0 < survive(NUM_IMAGES, call, UndecodableError) < NUM_IMAGES


def test_csv():
    """Tables: what comes out is always sane, whatever went in."""
    data = table([row(1000 + i, name=rng_name) for i, rng_name in enumerate(["Shirt", "A, B", '"C, D"', "é"] * 5)])

    def call(rng):
        findings = Findings()
        parsed = parse_styles(mutate(data, rng), findings)
        assert len(parsed.ids) == len(set(parsed.ids)) == len(parsed.labels)
        assert all(label.strip() == label != "" and label.isprintable() for label in parsed.labels)
        assert len(parsed.ids) + len(findings.quarantined) == parsed.num_rows

    assert 0 < survive(NUM_CSV, call, DataError) < NUM_CSV


def test_jpeg():
    """Images: decoded to the right shape, or refused with a reason."""
    originals = [
        jpeg(seed=1),
        jpeg(seed=2, mode="L"),
        jpeg(seed=3, mode="CMYK"),
        jpeg(seed=4, progressive=True),
        jpeg(seed=5, size=(40, 40)),
    ]

    def call(rng):
        image, _ = decode(mutate(rng.choice(originals), rng), (80, 60))
        assert (80, 60, 3) == image.shape

    assert 0 < survive(NUM_JPEG, call, UndecodableError) < NUM_JPEG


def test_ingest(tmp_path):
    """Whole archives through the whole ingest: results that load, or one refusal."""
    data = products(tmp_path / "p.zip", per_class=15).read_bytes()
    path = tmp_path / "fuzzed.zip"
    out = tmp_path / "out"

    def call(rng):
        path.write_bytes(mutate(data, rng))
        info = run_ingest(f"fashion-products={path}", out)
        assert info.counts["test"] == len(TestData.load(out / "test_data").labels)

    survive(NUM_INGESTS, call, DataError)

    assert {"p.zip", "fuzzed.zip", "out"} == {p.name for p in tmp_path.iterdir()}
