"""Compares search methods at an equal budget."""

import contextlib
import math
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from benchmarks.search.budget import EPOCHS, NUM_TRIALS, Exhausted, Objective, Run
from benchmarks.search.methods import METHODS
from benchmarks.search.objectives import synthetic

REPETITION_SEED = 1_000_000
"""First seed of the winners' repetitions, which no trial has."""


def run(
    objective: Objective = synthetic,
    *,
    budget: float = float(EPOCHS * NUM_TRIALS),
    seeds: Sequence[int] = range(5),
    methods: Sequence[str] = tuple(METHODS),
    repetitions: int = 0,
) -> dict[str, Any]:
    """Compare the methods; the first one sets the score that the others have to reach.

    Args:
        objective: What is searched.
        budget: Most cost of each search, in the objective's unit.
        seeds: One search per method and seed.
        methods: Keys of `METHODS`.
        repetitions: How often the winner of each search is trained again with seeds of its own: the best of many noisy
            scores says more about luck than about the setting.

    Returns:
        `rows`, one per method: `best`, `best_at_half` of the budget and `cost_fraction` (what it took to reach the first
        method's best with the same seed, as a fraction of what that one spent on its whole search; None where it did not
        get there), medians over the seeds and each seed's; `trials` and `suggest_seconds`, medians; `courses`, a list
        of (cost so far, best so far) for each seed; `trials_per_seed`, the hyperparameters and scores of each trial;
        `best_hyperparameters` and `repeated_per_seed`, what the winners' repetitions reached, each seed's.
    """
    searches: dict[str, list[Run]] = {method: [] for method in methods}
    for seed in seeds:
        for method in methods:
            search = _search(METHODS[method], Run(objective, budget, seed))
            searches[method].append(search)
            print(f"seed {seed}, {method}: {search.course[-1][1]:.4f} of {len(search.trials)} trials", file=sys.stderr)
    baseline = searches[methods[0]]
    return {
        "benchmark": "search",
        "budget": budget,
        "rows": [_row(m, searches[m], baseline, repetitions) for m in methods],
    }


def _search(method: Callable[[Run], None], search: Run) -> Run:
    with contextlib.suppress(Exhausted):
        method(search)
    return search


def _row(method: str, searches: list[Run], baseline: list[Run], repetitions: int) -> dict[str, Any]:
    best = [search.course[-1][1] for search in searches]
    at_half = [search.best_within(search.budget / 2) for search in searches]
    fractions = [
        search.cost_to_reach(base.course[-1][1]) / base.spent for search, base in zip(searches, baseline, strict=True)
    ]
    took = [seconds for search in searches for seconds in search.suggest_seconds]
    winners = [max(search.trials, key=lambda t: t.score or 0.0).hyperparameters for search in searches]
    repeated = [
        [
            max(search.objective(winner, REPETITION_SEED + n, lambda _: False)[0], default=0.0)
            for n in range(repetitions)
        ]
        for search, winner in zip(searches, winners, strict=True)
    ]
    return {
        "method": method,
        "best": statistics.median(best),
        "best_per_seed": best,
        "best_at_half": statistics.median(at_half),
        "best_at_half_per_seed": at_half,
        "cost_fraction": _finite(statistics.median(fractions)),
        "cost_fraction_per_seed": [_finite(fraction) for fraction in fractions],
        "trials": statistics.median(len(search.trials) for search in searches),
        "suggest_seconds": statistics.median(took) if took else None,
        "courses": [search.course for search in searches],
        "trials_per_seed": [[(t.hyperparameters, t.scores) for t in search.trials] for search in searches],
        "best_hyperparameters": winners,
        "repeated": statistics.median(statistics.mean(scores) for scores in repeated) if repetitions else None,
        "repeated_per_seed": repeated,
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def lines(result: dict[str, Any]) -> Iterator[str]:
    """Yield the comparison as a table."""
    heads = f"{'best':>7s} {'half':>7s} {'cost of the first':>18s} {'trials':>7s} {'suggest s':>10s} {'repeated':>9s}"
    yield f"{'method':32s} {heads}"
    for row in result["rows"]:
        took = "" if row["suggest_seconds"] is None else f"{row['suggest_seconds']:.3f}"
        share = "never" if row["cost_fraction"] is None else f"{row['cost_fraction']:.0%}"
        repeated = "" if row["repeated"] is None else f"{row['repeated']:.4f}"
        scores = f"{row['best']:7.4f} {row['best_at_half']:7.4f}"
        yield f"{row['method']:32s} {scores} {share:>18s} {row['trials']:7.0f} {took:>10s} {repeated:>9s}"
