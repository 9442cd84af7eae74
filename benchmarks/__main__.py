"""`python -m benchmarks`: every speed figure of this project on this machine, one table and one JSON.

Each group runs in a process of its own, because TensorFlow and torch abort when loaded into one.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.harness import Row, describe_machine, table

GROUPS = ("data", "mlp", "resnet18", "workers", "suggestions", "commands", "pipeline", "sizes")
"""Modules of this package with a function `measure(options) -> list[Row]`."""

ON_DEMAND = ("study",)
"""Such modules that take too long on a CPU to be measured unless they are named."""


def main() -> None:
    """Measure the groups one after another, print the table, write the JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--out", type=Path, default=Path("build/benchmarks.json"), help="file for the figures")
    parser.add_argument("--only", choices=GROUPS + ON_DEMAND, action="append", help="a group; may be repeated")
    parser.add_argument("--repeats", type=int, default=5, help="measurements per figure, of which the median counts")
    parser.add_argument(
        "--fashion-mnist", default="", metavar="DIR", help="published files: adds time to 0.88 accuracy"
    )
    options = parser.parse_args()
    if options.repeats < 1:
        parser.error(f"--repeats must be at least 1; got {options.repeats}")
    started = time.time()
    rows, failures = [], []
    for group in options.only or GROUPS:
        print(f"measuring {group} ...", file=sys.stderr, flush=True)
        command = [sys.executable, "-m", "benchmarks.harness", group, str(options.repeats), options.fashion_mnist]
        finished = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        if finished.returncode:
            failures.append(group)
        else:
            rows += [Row(**row) for row in json.loads(finished.stdout.splitlines()[-1])]
    machine = describe_machine()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "machine": machine,
        "repeats": options.repeats,
        "seconds": round(time.time() - started, 1),
        "failed": failures,
        "rows": [row.to_json() for row in rows],
    }
    options.out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(table(rows, machine))
    print(f"\n{options.out}")
    if failures:
        sys.exit(f"these groups could not be measured: {', '.join(failures)}. Their errors stand above")


if __name__ == "__main__":
    main()
