"""How time and memory grow with a catalogue: ingest by images, evaluate and report by classes; loads no framework.

`python -m benchmarks.sizes ingest 1000000 --classes 45 --memory-gib 4` measures one size under a limit of the address space.
"""

import argparse
import dataclasses
import json
import resource
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg

from benchmarks.harness import Options, Row, row
from components.data.contract import DatasetInfo, TestData
from components.data.ingest import ingest
from components.evaluation.evaluate import Evaluation
from components.evaluation.metrics import Answers, confident_mistakes, score
from components.evaluation.report.report import write_report
from components.evaluation.resampling import accuracy_interval
from components.evaluation.ui_metrics import ui_metrics
from components.parameters import DataSettings

INGESTS = ((44_000, 45), (200_000, 2_000))
"""Images and classes that `make bench` ingests."""

SIZE = (32, 24)
"""Height and width of the generated images, pixels."""

REPORTS = ((6_600, 45), (29_304, 2_000), (150_000, 5_000))
"""Test images and classes that `make bench` evaluates and reports."""

_CHUNK = 10_000


def measure(options: Options) -> list[Row]:  # noqa: ARG001 - a size is measured once
    """Return seconds and peak memory of each size, every one in a process of its own."""
    rows = []
    for num_images, num_classes in INGESTS:
        found = in_process("ingest", num_images, num_classes)
        what = f"ingest, {num_images:,} images, {num_classes:,} classes"
        rows.append(row(what, "images/s", [num_images / found["seconds"]], note=f"{SIZE[1]} x {SIZE[0]} pixels"))
        rows.append(row(f"{what}: peak memory", "MB", [found["peak_mb"]]))
    for num_images, num_classes in REPORTS:
        found = in_process("report", num_images, num_classes)
        what = f"{num_images:,} test images, {num_classes:,} classes"
        rows.append(row(f"evaluate without inference, {what}", "s", [found["evaluate"]]))
        rows.append(row(f"report, {what}", "s", [found["report"]], note=f"page of {found['page_mb']:.2f} MB"))
        rows.append(row(f"evaluate and report, {what}: peak memory", "MB", [found["peak_mb"]]))
    return rows


def in_process(what: str, num_images: int, num_classes: int) -> dict[str, float]:
    """Return the figures of one size, taken in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.sizes", what, str(num_images), "--classes", str(num_classes)]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()[-1])


def write_catalogue(path: Path, num_images: int, num_classes: int) -> None:
    """Write a zip of an own catalogue: different images of noise, classes of shrinking size."""
    rng = np.random.default_rng(0)
    labels = np.minimum(rng.geometric(3 / num_classes, num_images) - 1, num_classes - 1)
    labels[: 3 * num_classes] = np.tile(np.arange(num_classes), 3)[:num_images]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("dataset.yaml", f"label: category\nsize: [{SIZE[0]}, {SIZE[1]}]\n")
        lines = [f"{i},Product {i},Group {k % 50} > Class {k}" for i, k in enumerate(labels)]
        archive.writestr("styles.csv", "\n".join(["id,name,category", *lines]), zipfile.ZIP_DEFLATED)
        for start in range(0, num_images, _CHUNK):
            num = min(_CHUNK, num_images - start)
            coarse = rng.integers(0, 256, (num, SIZE[0] // 8, SIZE[1] // 8, 3), np.uint8)
            images = coarse.repeat(8, axis=1).repeat(8, axis=2)
            for i in range(num):
                archive.writestr(f"images/{start + i}.jpg", simplejpeg.encode_jpeg(images[i], quality=85))


def ingested(archive: Path, out: Path) -> dict[str, float]:
    """Ingest a catalogue; return its figures."""
    settings = DataSettings(validation_fraction=0.1, test_fraction=0.15, min_class_count=1, limit=0, seed=0)
    folders: dict[str, Any] = {f"{kind}_dir": out / kind for kind in ("train", "test", "report")}
    before = resource.getrusage(resource.RUSAGE_SELF)
    started = time.perf_counter()
    info = ingest(f"generated={archive}", settings=settings, cache=str(out / "cache"), **folders)
    taken = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": taken, "cpu_seconds": cpu, "images": sum(info.counts.values()), "classes": len(info.classes)}


def reported(num_images: int, num_classes: int, out: Path) -> dict[str, float]:
    """Evaluate and report two made-up models; return seconds without making the answers up, and the page's size."""
    classes = tuple(f"Group {k % 50} > Kind {k % 700} > Class {k}" for k in range(num_classes))
    labels = np.random.default_rng(1).integers(0, num_classes, num_images)
    info = DatasetInfo(
        name="generated", classes=classes, counts={"test": num_images}, source="", checksums={}, content_hash="0"
    )
    images = np.zeros((num_images, 8, 8, 3), np.uint8)
    data = TestData(images=images, labels=labels, groups=np.arange(num_images) // 2 * 2, info=info)
    data.save(out / "test")
    seconds = {}
    for seed, approach in enumerate(("mlp", "resnet18")):
        started = time.perf_counter()
        batches = MadeUp(labels, num_classes, seed)
        answers = Answers.of(batches, labels)
        seconds["evaluate"] = time.perf_counter() - started - batches.seconds
        started = time.perf_counter()
        record = {
            "schema": 1, "dataset": "generated", "approach": approach, "classes": list(classes),
            "scores": score(answers, labels, classes),
            "accuracy_ci95": list(accuracy_interval(answers.predictions == labels, data.groups)), "replicates": [],
            "latency": {
                "batch_1": {"median_ms": 1.0, "p95_ms": 1.0}, "batch_256": {"median_ms": 1.0, "p95_ms": 1.0},
                "hardware": {"device": "CPU", "threads": 1, "runtime": ""},
            },
            "model_bytes": 1, "model": {"approach": approach}, "data": dataclasses.asdict(info),
            "mistakes": confident_mistakes(answers, labels, data.groups),
        }  # fmt: skip
        evaluation = Evaluation(record=record, answers=answers, labels=labels, groups=data.groups)
        evaluation.save(out / approach)
        ui_metrics(evaluation)
        seconds["evaluate"] += time.perf_counter() - started
    started = time.perf_counter()
    paths = {"html_path": out / "report.html", "summary_path": out / "summary.json", "markdown_path": out / "report.md"}
    write_report(
        evaluation_dirs=[out / "mlp", out / "resnet18"], ingest_report_dirs=[], test_dirs=[out / "test"], parameters={},
        run={"id": "sizes"}, history="", **paths,
    )  # fmt: skip
    seconds["report"] = time.perf_counter() - started
    return seconds | {"page_mb": paths["html_path"].stat().st_size / 1e6}


class MadeUp:
    """Made-up probabilities, 256 images at a time; counts the seconds of making them up."""

    def __init__(self, labels: np.ndarray, num_classes: int, seed: int) -> None:
        self._labels, self._num_classes, self._rng = labels, num_classes, np.random.default_rng(seed)
        self.seconds = 0.0

    def __iter__(self) -> Iterator[np.ndarray]:
        for start in range(0, len(self._labels), 256):
            started = time.perf_counter()
            labels = self._labels[start : start + 256]
            batch = self._rng.random((len(labels), self._num_classes), np.float32)
            batch[np.arange(len(labels)), labels] += 0.6 * self._rng.random(len(labels), np.float32)
            batch /= batch.sum(axis=1, keepdims=True)
            self.seconds += time.perf_counter() - started
            yield batch


def peak_mb() -> float:
    """Return this process's largest resident memory, MB."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024 / 1e6


def main() -> None:
    """Measure one size in this process and print its figures as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sizes", description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("what", choices=("generate", "ingest", "report"))
    parser.add_argument("number", type=int, help="images, of a report those of the test set")
    parser.add_argument("--classes", type=int, default=45)
    parser.add_argument(
        "--memory-gib", type=float, default=0, help="most address space of this process; 0 for no limit"
    )
    parser.add_argument("--folder", type=Path, help="keeps the generated catalogue for another run; made if absent")
    options = parser.parse_args()
    if options.memory_gib:
        most = int(options.memory_gib * 2**30)
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    if options.folder:
        try:
            options.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            parser.error(
                f"--folder must be a directory or one that can be made; got {options.folder}: {error.strerror}"
            )
    with tempfile.TemporaryDirectory(dir=options.folder) as scratch:
        if options.what == "report":
            found = reported(options.number, options.classes, Path(scratch))
            print(json.dumps(found | {"peak_mb": peak_mb()}))
            return
        folder = options.folder or Path(scratch)
        archive = folder / f"generated-{options.number}-{options.classes}.zip"
        if not archive.exists():
            # In another process, so that its memory is not counted.
            command = [sys.executable, "-c", f"from benchmarks.sizes import *\nwrite_catalogue(Path({str(archive)!r}), {options.number}, {options.classes})"]  # fmt: skip
            subprocess.run(command, check=True)
        if options.what == "generate":
            return
        found = ingested(archive, Path(scratch) / "out")
        print(json.dumps(found | {"peak_mb": peak_mb(), "archive_mb": archive.stat().st_size / 1e6}))


if __name__ == "__main__":
    main()
