"""Decoding and ingest against Pillow one image after another; loads no framework."""

import io
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.harness import Options, Row, interleaved, row, seconds
from components.data.contract import TrainData
from components.data.ingest import ingest
from components.data.readers.images import decode
from components.data.sample.sample import write_sample
from components.models.hardware import num_usable_cores
from components.parameters import DataSettings

NUM_PRODUCTS = 2_000
SIZE = (80, 60)


def measure(options: Options) -> list[Row]:
    """Return the rate of decoding alone and of a whole ingest of the generated catalogue."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_sample(folder / "sample", num_train=500, num_test=100, num_products=NUM_PRODUCTS)
        archive = folder / "sample" / "fashion-products.zip"
        with zipfile.ZipFile(archive) as opened:
            files = [opened.read(name) for name in opened.namelist() if name.endswith(".jpg")]

        def ours() -> float:
            return len(files) / seconds(lambda: [_decoded(data) for data in files])

        def pillow() -> float:
            return len(files) / seconds(lambda: [_tutorial(data) for data in files])

        def whole_ingest() -> float:
            return len(files) / seconds(lambda: ingested(f"fashion-products={archive}", scratch))

        decoding, one_by_one, whole = interleaved(options.repeats, ours, pillow, whole_ingest)
        loading = [1000 * seconds(lambda: TrainData.load(folder / "train")) for _ in range(options.repeats)]
    return [
        row("decoding JPEG", "images/s", decoding, "Pillow", one_by_one, "one core each"),
        row("ingest, zip to packed arrays", "images/s", whole, "Pillow, decoding only", one_by_one,
            f"{num_usable_cores()} cores; checks, duplicates and splits included"),
        row("loading packed arrays", "ms", loading, note=f"{len(files):,} images"),
    ]  # fmt: skip


def ingested(source: str, scratch: str) -> Path:
    """Run ingest on NAME=SOURCE; return the scratch folder, in which it left `train`, `test` and `report`."""
    folder = Path(scratch)
    settings = DataSettings(validation_fraction=0.1, test_fraction=0.15, min_class_count=1, limit=0, seed=0)
    folders: dict[str, Any] = {f"{kind}_dir": folder / kind for kind in ("train", "test", "report")}
    ingest(source, settings=settings, cache=str(folder / "cache"), **folders)
    return folder


def _decoded(data: bytes) -> np.ndarray | None:
    try:
        return decode(data, SIZE)[0]
    except Exception:
        return None  # the sample has defects on purpose


def _tutorial(data: bytes) -> np.ndarray | None:
    try:
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB").resize(SIZE[::-1]))
    except Exception:
        return None
