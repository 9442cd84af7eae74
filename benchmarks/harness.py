"""How a figure is taken: interleaved repeats, medians, ratios against a baseline measured in the same minutes."""

import dataclasses
import importlib
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the command line asked for.

    Attributes:
        repeats: Measurements per figure.
        fashion_mnist: Directory with the four published files; empty for none.
    """

    repeats: int
    fashion_mnist: str


@dataclass(frozen=True, kw_only=True)
class Row:
    """One figure and, where there is one, what it is compared with.

    Attributes:
        name: What was measured.
        unit: Unit of both values; a rate (`.../s`) is better higher, a time lower.
        value: Median over the repeats.
        low: Smallest of the repeats.
        high: Largest of the repeats.
        baseline: What an ordinary user would have written; empty for none.
        baseline_value: Its median.
        note: What else one must know.
    """

    name: str
    unit: str
    value: float
    low: float
    high: float
    baseline: str = ""
    baseline_value: float | None = None
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """How many times better than the baseline; None without one."""
        if not self.baseline_value:
            return None
        is_rate = self.unit.endswith("/s")
        return self.value / self.baseline_value if is_rate else self.baseline_value / self.value

    def to_json(self) -> dict[str, object]:
        """Return the fields and the ratio."""
        return {**dataclasses.asdict(self), "ratio": self.ratio}


def interleaved(repeats: int, *functions: Callable[[], float]) -> list[list[float]]:
    """Return `repeats` measurements of each function, taken in turns so that a busy minute hits all of them alike."""
    values: list[list[float]] = [[] for _ in functions]
    for _ in range(repeats):
        for function, measured in zip(functions, values, strict=True):
            measured.append(function())
    return values


def row(name: str, unit: str, values: list[float], baseline: str = "", against: list[float] | None = None,
        note: str = "") -> Row:  # fmt: skip
    """Return the medians of both as a row."""
    return Row(
        name=name,
        unit=unit,
        value=statistics.median(values),
        low=min(values),
        high=max(values),
        baseline=baseline,
        baseline_value=statistics.median(against) if against else None,
        note=note,
    )


def seconds(function: Callable[[], object]) -> float:
    """Return the wall time of one call."""
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def describe_machine() -> dict[str, Any]:
    """Return what a figure means nothing without: hardware, load, commit, date."""
    model = platform.processor()
    with open("/proc/cpuinfo", encoding="utf-8") as lines:  # noqa: PTH123 - no file, a view of the kernel's
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model)
    return {
        "date": time.strftime("%Y-%m-%d"),
        "commit": _output("git", "rev-parse", "--short", "HEAD"),
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "gpu": _output("nvidia-smi", "--query-gpu=name", "--format=csv,noheader"),
        "load": [round(load, 1) for load in os.getloadavg()],
        "python": platform.python_version(),
    }


def table(rows: list[Row], machine: dict[str, Any]) -> str:
    """Return the rows as a Markdown table under a line about the machine."""
    head = (
        f"{machine['date']}, commit {machine['commit'] or 'unknown'}, {machine['cores']} cores of {machine['cpu']}, "
        f"{machine['gpu'] or 'no GPU'}, load {machine['load'][0]}"
    )
    lines = [
        head,
        "",
        "| measured | median | range | baseline | its median | ratio | |",
        "|---|--:|--:|---|--:|--:|---|",
    ]
    for r in rows:
        spread = f"{_number(r.low)}-{_number(r.high)}"
        baseline = f"{r.baseline} | {_number(r.baseline_value)} | {r.ratio:.2f}x" if r.ratio else " | | "
        lines.append(f"| {r.name} | {_number(r.value)} {r.unit} | {spread} | {baseline} | {r.note} |")
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _output(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=20).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""


def _measure_group(group: str, options: Options) -> None:
    """Measure one group in this process and print its rows as the last line of stdout."""
    rows: list[Row] = importlib.import_module(f"benchmarks.{group}").measure(options)
    print(json.dumps([dataclasses.asdict(r) for r in rows]), flush=True)


if __name__ == "__main__":
    _measure_group(sys.argv[1], Options(repeats=int(sys.argv[2]), fashion_mnist=sys.argv[3]))
