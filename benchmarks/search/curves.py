"""Draw the courses of searches: `python -m benchmarks.search.curves OUT.svg FILE.json [FILE.json ...]`.

The files are what `python -m benchmarks.search --json` printed, for any subsets and seeds but with one budget.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#666666", "#000000", "#8c510a", "#5e3c99")
"""One for each method; the first eight are Okabe and Ito's, which colour-blind people tell apart."""


def draw(results: list[dict[str, Any]], out: Path) -> None:
    """Draw for each method the median over all searches of the best score so far, against what was spent.

    Args:
        results: What `comparison.run` returned for one budget.
        out: File to write; its ending says the format.
    """
    budget = results[0]["budget"]
    grid = np.linspace(0.04 * budget, budget, 400)
    courses: dict[str, list[np.ndarray]] = {}
    for result in results:
        for row in result["rows"]:
            for course in row["courses"]:
                spent, best = np.array([point for point in course if point[1] > 0]).T
                index = np.searchsorted(spent, grid, side="right") - 1
                courses.setdefault(row["method"], []).append(np.where(index < 0, np.nan, best[index]))
    figure = Figure(figsize=(8, 4.6), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    bottom = 1.0
    for colour, (method, lines) in zip(COLOURS, courses.items(), strict=False):
        median = np.median(lines, axis=0)  # without a value until every search has a score
        bottom = min(bottom, float(np.interp(budget / 8, grid, median)))
        axes.step(grid, median, where="post", color=colour, linewidth=1.8, label=method)
    axes.set(
        xlabel="spent (seconds of CPU time; epochs on the synthetic objective)",
        ylabel="best validation accuracy so far",
    )
    axes.set_xlim(0, budget)
    axes.set_ylim(bottom=bottom - 0.001)  # how bad the first guesses were is not the question
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower right", frameon=False, fontsize=8.5)
    axes.set_title(f"Median of {len(next(iter(courses.values())))} searches a method", loc="left", fontsize=10)
    figure.savefig(out, metadata={"Date": None} if out.suffix == ".svg" else None)


def main() -> None:
    """Draw the files that are named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="picture to write: .svg or .png")
    parser.add_argument("files", type=Path, nargs="+", help="JSON of python -m benchmarks.search")
    given = parser.parse_args()
    draw([json.loads(path.read_text(encoding="utf-8")) for path in given.files], given.out)


if __name__ == "__main__":
    main()
