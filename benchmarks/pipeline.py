"""What the pipeline costs around the work of its steps, on the generated sample; loads no framework itself."""

import functools
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.harness import Options, Row, row, seconds

SETTINGS = ("search_trials=1", "search_epochs=1", "search_workers=1", "train_replicates=1", "data_limit=200")


def measure(options: Options) -> list[Row]:
    """Return the time per step in which no step worked, over a run with next to nothing to train."""
    overheads, runs = [], []
    for _ in range(min(2, options.repeats)):
        with tempfile.TemporaryDirectory() as scratch:
            out = Path(scratch) / "run"
            command = [sys.executable, "-m", "pipelines", "run", "--preset", "quickstart", "--out", str(out)]
            command += [part for setting in SETTINGS for part in ("--set", setting)]
            whole = seconds(functools.partial(subprocess.run, command, check=True, stdout=sys.stderr))
            busy, num_steps = busy_seconds((out / "events.jsonl").read_text(encoding="utf-8"))
        runs.append(whole)
        overheads.append((whole - busy) / num_steps)
    return [
        row("pipeline, overhead per step", "s", overheads, note=f"{num_steps} steps; starting processes included"),
        row("pipeline, smallest whole run", "s", runs, note="both datasets, both approaches, generated sample"),
    ]


def busy_seconds(events: str) -> tuple[float, int]:
    """Return how long at least one step worked, and how many steps there were.

    Args:
        events: Lines of JSON with `event` (`started`, `finished`, `failed`), `step` and `time`.
    """
    changes = [json.loads(line) for line in events.splitlines()]
    changes = sorted((e for e in changes if "time" in e and "step" in e), key=lambda e: e["time"])
    running, since, busy, num_steps = 0, 0.0, 0.0, 0
    for change in changes:
        if change["event"] == "started":
            since = since if running else change["time"]
            running, num_steps = running + 1, num_steps + 1
        elif running:
            running -= 1
            busy += 0.0 if running else change["time"] - since
    return busy, max(1, num_steps)
