"""How long a person waits for `--help`."""

import subprocess
import sys

from benchmarks.harness import Options, Row, row, seconds
from pipelines.__main__ import COMMANDS


def measure(options: Options) -> list[Row]:
    """Return the time of the list of commands, and of the slowest command's own help."""
    taken = {name: [_help(name) for _ in range(options.repeats)] for name in ("", *COMMANDS)}
    alone = taken.pop("")
    slowest = max(taken, key=lambda name: sorted(taken[name])[len(taken[name]) // 2])
    return [
        row("fashion-tuning --help", "s", alone),
        row("--help of the slowest command", "s", taken[slowest], note=slowest),
    ]


def _help(command: str) -> float:
    words = [sys.executable, "-m", "pipelines", *([command] if command else []), "--help"]
    return seconds(lambda: subprocess.run(words, check=True, stdout=subprocess.DEVNULL))
