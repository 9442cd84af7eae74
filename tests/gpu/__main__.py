"""`make test-gpu`: everything that is promised of a GPU, checked on this machine's own and then measured.

TensorFlow and torch run in processes of their own. The same promises are kept by the CPU, which `make test` checks, as far as
they mean something there. What can be measured comes last: `make bench`'s figures of a GPU, two workers on one card, and where the
published Fashion-MNIST lies beside the checkout an MLP study of 30 trials, by one worker and by four. Exit codes: 0 where everything held, 78 where there is no
GPU, else that of the first part that failed.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

import pynvml

ROOT = Path(__file__).resolve().parent.parent.parent
REAL_DATA = ROOT.parent / "shared" / "data" / "fashion-mnist"


def main() -> int:
    """Check and measure; return the exit code."""
    names = gpu_names()
    if not names:
        print("nothing was checked: this machine has no GPU that nvidia-smi shows", file=sys.stderr)
        return os.EX_CONFIG
    print(f"checking on {', '.join(names)}", flush=True)
    codes = []
    for command in commands():
        started = time.perf_counter()
        codes.append(subprocess.run(command, cwd=ROOT, check=False).returncode)
        print(f"{time.perf_counter() - started:.1f} s: {' '.join(command[1:])}", flush=True)
    return next((code for code in codes if code), os.EX_OK)


def gpu_names() -> list[str]:
    """Return the names of the GPUs that the driver knows and this process may see; none where there is no driver."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return []
    try:
        pynvml.nvmlInit()
        return [
            str(pynvml.nvmlDeviceGetName(pynvml.nvmlDeviceGetHandleByIndex(n)))
            for n in range(pynvml.nvmlDeviceGetCount())
        ]
    except pynvml.NVMLError:
        return []


def commands(real_data: Path = REAL_DATA) -> list[list[str]]:
    """Return the checks of each framework and the measurements, each for a process of its own."""
    module = [sys.executable, "-m"]
    tests = [*module, "pytest", "-q", "-rs", "--gpu", "tests/gpu"]
    groups = ["--only", "mlp", "--only", "resnet18", "--only", "workers"]
    found = [
        [*tests, "--framework=keras"],
        [*tests, "--framework=torch"],
        [*module, "benchmarks", "--out", "build/benchmarks-gpu.json", "--repeats", "3", *groups],
    ]
    if real_data.is_dir():
        found[-1] += ["--only", "study", "--fashion-mnist", str(real_data)]
    return found


if __name__ == "__main__":
    sys.exit(main())
