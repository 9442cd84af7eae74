"""Compare search methods at an equal budget: this project's against random search, Optuna and scikit-optimize.

`python -m benchmarks.search` uses a synthetic objective with the shape of an MLP's learning curves, and takes minutes.
`python -m benchmarks.search --data DIR` trains the MLP on a subset of the real Fashion-MNIST in DIR. Loads TensorFlow.
`--json` keeps every trial; `python -m benchmarks.search.curves` draws such files.
"""

import argparse
import json
from pathlib import Path

from benchmarks.search.budget import EPOCHS, NUM_TRIALS
from benchmarks.search.comparison import lines, run
from benchmarks.search.methods import METHODS
from benchmarks.search.objectives import real, synthetic


def main() -> None:
    """Print the table, or everything as JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.search", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder with the four files of Fashion-MNIST")
    parser.add_argument("--images", type=int, default=4000, help="of the subset")
    parser.add_argument("--subset", type=int, default=0, help="seed that the subset is drawn with")
    parser.add_argument(
        "--budget",
        type=float,
        default=float(EPOCHS * NUM_TRIALS),
        help="of each search: epochs, or device-seconds on data",
    )
    parser.add_argument("--seeds", type=int, default=5, help="how many")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument(
        "--method", action="append", choices=tuple(METHODS), help="only these; the first is the baseline"
    )
    parser.add_argument("--repeat", type=int, default=0, help="train each winner again so often, with other seeds")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    methods = given.method or tuple(METHODS)
    objective = real(given.data, given.images, given.subset) if given.data else synthetic
    seeds = range(given.first_seed, given.first_seed + given.seeds)
    result = run(objective, budget=given.budget, seeds=seeds, methods=methods, repetitions=given.repeat)
    print(json.dumps(result, indent=1) if given.json else "\n".join(lines(result)))


if __name__ == "__main__":
    main()
