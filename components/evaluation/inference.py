"""This module runs an exported ONNX on raw images and times it; no training framework is involved."""

import functools
import os
import platform
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as runtime_errors

from components.errors import DataError, file_error

INPUT_NAME, OUTPUT_NAME = "images", "probabilities"
BATCH_SIZE = 256

PART_SIZE = 32
"""Fewest images that one thread computes by itself: threads that share an operation wait for each other in each."""

_REFUSED: tuple[type[Exception], ...] = (
    OSError,
    *(error for error in vars(runtime_errors).values() if isinstance(error, type) and issubclass(error, Exception)),
)
"""What a file or onnxruntime may raise, whose errors have no common base of their own."""


class OnnxModel:
    """An exported model: `images` uint8 (N, H, W, C) in, `probabilities` float32 (N, K) out."""

    def __init__(self, source: Path | str | bytes) -> None:
        self.path = "the model" if isinstance(source, bytes) else Path(source)
        try:
            data = source if isinstance(source, bytes) else Path(source).read_bytes()
            self._num_threads = num_threads()
            self._session = _session(data, self._num_threads)
            self._part_session = _session(data, 1) if self._num_threads > 1 else self._session
        except PermissionError as error:
            raise file_error(error, "must be readable") from error
        except _REFUSED as error:
            raise DataError(f"{self.path} must be a readable ONNX model; got {error}. Export it again") from error
        self._pool = ThreadPoolExecutor(self._num_threads)
        inputs = [(i.name, i.type) for i in self._session.get_inputs()]
        outputs = [o.name for o in self._session.get_outputs()]
        if inputs != [(INPUT_NAME, "tensor(uint8)")] or OUTPUT_NAME not in outputs:
            raise DataError(
                f"{self.path} must take {INPUT_NAME} uint8 and give {OUTPUT_NAME}; got {inputs} and {outputs}."
                " Export it again"
            )

    @property
    def metadata(self) -> dict[str, str]:
        """The metadata in the file; see `components.models.facts`."""
        return dict(self._session.get_modelmeta().custom_metadata_map)

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(H, W, C) of the images that it takes."""
        return tuple(self._session.get_inputs()[0].shape[1:])

    @property
    def num_classes(self) -> int:
        """How many probabilities it gives for each image."""
        return next(o.shape[1] for o in self._session.get_outputs() if o.name == OUTPUT_NAME)

    def predict(self, images: np.ndarray, num_classes: int) -> np.ndarray:
        """Return class probabilities.

        Args:
            images: (N, H, W, C) uint8, 0-255; may be memory-mapped.
            num_classes: K that the data knows.

        Returns:
            (N, K) float32.

        Raises:
            DataError: The model does not take these images, or does not give K finite probabilities per image.
        """
        return np.concatenate([np.zeros((0, num_classes), np.float32), *self.batches(images, num_classes)])

    def batches(self, images: np.ndarray, num_classes: int) -> Iterator[np.ndarray]:
        """Yield what `predict` returns, (n, K) float32 at a time."""
        for start in range(0, len(images), BATCH_SIZE):
            batch = images[start : start + BATCH_SIZE]
            probabilities = self._run(batch)
            if probabilities.shape != (len(batch), num_classes):
                raise DataError(
                    f"{self.path} must give {num_classes} probabilities per image; got {probabilities.shape}."
                    " Evaluate it on the data it was trained for"
                )
            sums = probabilities.sum(axis=1)
            if not np.isfinite(probabilities).all() or (probabilities < 0).any() or (np.abs(sums - 1) > 1e-3).any():
                raise DataError(
                    f"{self.path} must give finite probabilities that sum to 1; it did not. Export it again"
                )
            yield probabilities

    def _run(self, images: np.ndarray) -> np.ndarray:
        try:
            if len(images) <= PART_SIZE:
                probabilities = self._run_in(self._session, images)
            else:
                size = max(PART_SIZE, -(-len(images) // self._num_threads))  # a part for each thread
                parts = (images[start : start + size] for start in range(0, len(images), size))
                run = functools.partial(self._run_in, self._part_session)
                probabilities = np.concatenate(list(self._pool.map(run, parts)))
        except PermissionError as error:
            raise file_error(error, "must be readable") from error
        except _REFUSED as error:
            raise DataError(
                f"{self.path} must take images of shape {images.shape[1:]}; got {error}."
                " Evaluate it on the data it was trained for"
            ) from error
        return probabilities.astype(np.float32, copy=False)

    @staticmethod
    def _run_in(session: onnxruntime.InferenceSession, images: np.ndarray) -> np.ndarray:
        (probabilities,) = session.run([OUTPUT_NAME], {INPUT_NAME: np.ascontiguousarray(images)})
        return np.atleast_1d(probabilities)

    def latency(self, images: np.ndarray, batch_size: int, max_seconds: float = 2.0) -> dict[str, float]:
        """Time calls of one batch size.

        Args:
            images: (N, H, W, C) uint8; repeated where N is smaller than the batch.
            batch_size: Images per call.
            max_seconds: Stop after this long, or after 100 calls.

        Returns:
            `median_ms` and `p95_ms` of a call, and `calls`.
        """
        batch = np.ascontiguousarray(np.resize(images[:batch_size], (batch_size, *images.shape[1:])))
        for _ in range(3):
            self._run(batch)
        taken: list[float] = []
        deadline = time.perf_counter() + max_seconds
        while len(taken) < 5 or (len(taken) < 100 and time.perf_counter() < deadline):
            start = time.perf_counter()
            self._run(batch)
            taken.append(1000 * (time.perf_counter() - start))
        return {
            "median_ms": float(np.median(taken)),
            "p95_ms": float(np.quantile(taken, 0.95)),
            "calls": len(taken),
        }


def _session(data: bytes, num_threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    options.log_severity_level = 3
    # Two evaluations often share a node: a thread that spins while it waits steals from the other one.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def num_threads() -> int:
    """Return how many threads this process may keep busy: what it is allowed, not what the node has."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        wanted = int(os.environ.get("OMP_NUM_THREADS", allowed))
    except ValueError:
        wanted = allowed
    return max(1, min(allowed, wanted))


def hardware() -> dict[str, Any]:
    """Return what a latency was measured on: processor, threads, runtime version."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    except OSError:
        pass
    return {"device": f"CPU: {name}", "threads": num_threads(), "runtime": f"onnxruntime {onnxruntime.__version__}"}
