"""Small raw data in the published formats, for tests."""

import io
import struct
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from components.data.contract import DatasetInfo
from components.data.ingest import ingest
from components.data.readers import fashion_mnist
from components.data.readers.fashion_products import COLUMNS
from components.data.readers.idx import format_idx
from components.parameters import DataSettings


def jpeg(colour=(200, 30, 30), size=(60, 80), seed=None, mode="RGB", image_format="JPEG", **options) -> bytes:
    """Return a small image file: one colour, with noise where a seed is given; `size` is width and height."""
    pixels = np.empty((size[1], size[0], 3), np.uint8)
    pixels[:] = colour
    if seed is not None:
        pixels = np.random.default_rng(seed).integers(0, 256, (10, 8, 3), dtype=np.uint8)
        pixels = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.NEAREST))
    data = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(data, image_format, **options)
    return data.getvalue()


def row(key, label="Topwear", name="Plain Shirt", **fields) -> str:
    """Return one line of `styles.csv`."""
    values = dict(
        zip(COLUMNS, (str(key), "Men", "Apparel", label, "Shirts", "Blue", "Fall", "2012", "Casual", name), strict=True)
    )
    return ",".join((values | fields).values())


def table(rows) -> bytes:
    """Return a `styles.csv`."""
    return ("\n".join([",".join(COLUMNS), *rows]) + "\n").encode()


def make_zip(path: Path, members, *, compression=zipfile.ZIP_STORED) -> Path:
    """Write a zip archive from (name, data) pairs."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return path


def products(path: Path, labels=("Topwear", "Shoes"), per_class=10, *, rows=(), members=(), prefix="") -> Path:
    """Write a product archive: `per_class` different images of each label, and what is given besides.

    Ids count from 1000.
    """
    lines, files = [], []
    for i in range(per_class * len(labels)):
        lines.append(row(1000 + i, labels[i % len(labels)]))
        files.append((f"{prefix}images/{1000 + i}.jpg", jpeg(seed=i)))
    return make_zip(path, [(f"{prefix}styles.csv", table([*lines, *rows])), *files, *members])


def mnist_arrays(num_train=60, num_test=20, seed=0) -> dict[str, np.ndarray]:
    """Return Fashion-MNIST's four arrays, small, every class in equal shares."""
    rng = np.random.default_rng(seed)
    return {
        fashion_mnist.TRAIN_IMAGES: rng.integers(0, 256, (num_train, 28, 28), dtype=np.uint8),
        fashion_mnist.TRAIN_LABELS: (np.arange(num_train) % 10).astype(np.uint8),
        fashion_mnist.TEST_IMAGES: rng.integers(0, 256, (num_test, 28, 28), dtype=np.uint8),
        fashion_mnist.TEST_LABELS: (np.arange(num_test) % 10).astype(np.uint8),
    }


def mnist_files(**changes) -> dict[str, bytes]:
    """Return Fashion-MNIST's four files, small."""
    return {name: format_idx(array) for name, array in mnist_arrays(**changes).items()}


def write_files(directory: Path, files: dict[str, bytes]) -> Path:
    """Write files by name."""
    for name, data in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return directory


def run_ingest(dataset: str, out: Path, *, cache="", history="", **settings) -> DatasetInfo:
    """Ingest into `out/train_data`, `out/test_data` and `out/report`."""
    return ingest(
        dataset,
        settings=DataSettings(**settings),
        train_dir=out / "train_data",
        test_dir=out / "test_data",
        report_dir=out / "report",
        cache=str(cache),
        history=str(history),
    )


def tree(directory: Path) -> dict[str, bytes]:
    """Return every file below a directory by its relative path."""
    return {str(p.relative_to(directory)): p.read_bytes() for p in sorted(directory.rglob("*")) if p.is_file()}


def idx(magic=b"\0\0\x08\x03", dims=(2, 3, 3), body=None) -> bytes:
    """Return an IDX file whose parts may not fit together."""
    body = bytes(range(int(np.prod(dims)))) if body is None else body
    return magic + struct.pack(f">{len(dims)}I", *dims) + body


def peak_memory() -> int:
    """Return this process's largest resident memory, bytes; unlike `getrusage`, not its parent's."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024
