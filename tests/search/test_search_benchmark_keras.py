import json
import math

from benchmarks.search.budget import EPOCHS, SPACE, Run
from benchmarks.search.comparison import run
from benchmarks.search.curves import draw
from benchmarks.search.objectives import synthetic


def test_rows_compare_each_method_with_the_first(tmp_path):
    """A short comparison gives a row per method; the first reaches its own best within its own cost."""
    methods = ("random search", "random search, pruning", "Optuna TPE, successive halving", "Keras Tuner tuner.search")
    result = run(budget=100.0, seeds=(0, 1), methods=methods, repetitions=3)
    rows = result["rows"]
    draw([json.loads(json.dumps(result))], tmp_path / "curves.svg")

    assert list(methods) == [row["method"] for row in rows]
    assert rows[0]["trials"] == 100 / EPOCHS
    assert rows[0]["cost_fraction"] <= 1.0
    assert all(row["best_at_half"] <= row["best"] for row in rows)
    assert rows[1]["trials"] > rows[0]["trials"]
    assert 1 == (tmp_path / "curves.svg").read_text().count("<svg ")
    assert all(0.5 < row["best"] < 0.95 for row in rows)
    assert all([3, 3] == [len(scores) for scores in row["repeated_per_seed"]] for row in rows)


def test_an_unreached_score_costs_infinitely():
    """Where a method does not get there, no figure is made up."""
    search = Run(synthetic, budget=50.0, seed=0)
    search.train(SPACE.defaults)

    assert math.inf == search.cost_to_reach(1.0)
    assert 0.0 == search.best_within(EPOCHS - 1)
    assert EPOCHS == search.cost_to_reach(search.trials[0].score)
