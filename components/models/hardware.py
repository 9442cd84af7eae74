"""What the hardware offers, what a training cost and whether its export is faithful; imports neither TensorFlow nor torch."""

import ctypes
import os
import resource
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime

PARITY_TOLERANCE = 1e-4
"""Largest difference between a probability of the native model and of its ONNX export."""


CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")
CPU_INFO = Path("/proc/cpuinfo")


def num_usable_cores(quota: Path = CPU_QUOTA) -> int:
    """Return how many threads a framework should use: `OMP_NUM_THREADS`, else the cores this process may keep busy.

    Frameworks count the node's cores. In a pod limited to two of sixty-four, that many threads wait for each other most
    of the time.

    Args:
        quota: The control group's limit, "<microseconds or max> <period>".
    """
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdigit() and int(asked) > 0:
        return int(asked)
    cores = len(os.sched_getaffinity(0))
    try:
        limit, period = quota.read_text(encoding="ascii").split()
        return max(1, min(cores, round(int(limit) / int(period))))
    except (OSError, ValueError):
        return cores


def cpu_has_bfloat16(cpu_info: Path = CPU_INFO) -> bool:
    """Return whether the processor multiplies bfloat16; emulated, it is slower than float32.

    Args:
        cpu_info: Linux's description of the processor; where there is none, the answer is no.
    """
    try:
        words = set(cpu_info.read_text(encoding="ascii", errors="replace").split())
    except OSError:
        return False
    return bool(words & {"avx512_bf16", "amx_bf16", "bf16"})


def keep_freed_memory() -> bool:
    """Let the C library keep freed memory for the next allocation; return whether it could be told.

    glibc maps every large block anew and returns it when freed. A training step frees and asks for the same tensors
    again, so it would spend a tenth of its time on page faults and on zeroing. The parameters are those of mallopt(3).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        return False
    trim_threshold, mmap_max = -1, -4
    return mallopt(mmap_max, 0) == 1 and mallopt(trim_threshold, -1) == 1


def fits_on_gpu(num_bytes: int, free_bytes: int) -> bool:
    """Return whether images may stay in a GPU's memory: a quarter of what is free must remain for the training.

    At least 4 GiB must remain, but never more than half, so that a small card is used as well.

    Args:
        num_bytes: Size of the images on the device.
        free_bytes: Free memory of the device.
    """
    return num_bytes <= free_bytes - min(max(free_bytes // 4, 4 * 2**30), free_bytes // 2)


class Stopwatch:
    """Wall time since it was made, and the highest memory of the process."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds since it was made."""
        return time.perf_counter() - self._start

    @property
    def peak_memory_bytes(self) -> int:
        """Highest resident memory of this process so far."""
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def onnx_difference(onnx_path: str, images: np.ndarray, expected: np.ndarray) -> float:
    """Return the largest absolute difference between the exported model's probabilities and the expected ones.

    Args:
        onnx_path: The exported model.
        images: (n, H, W, C) uint8 raw pixels.
        expected: (n, K) float32 probabilities of the native model.
    """
    session = onnxruntime.InferenceSession(onnx_path, providers=["CPUExecutionProvider"])
    (given,) = session.run(["probabilities"], {"images": images})
    return float(np.abs(given - expected).max())
