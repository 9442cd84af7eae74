"""This module turns a ledger into tables and series for `study`, the trials artifact, the plots, the exports and the report."""

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from components.models.space import Space, Value
from components.search.trial import STATUSES, Ledger, is_scored
from components.text import csv_cell, inline_code

if TYPE_CHECKING:
    import pandas

COLUMNS = (
    "number",
    "status",
    "score",
    "best_epoch",
    "epochs",
    "device_seconds",
    "wall_seconds",
    "peak_memory_bytes",
    "seed",
    "worker",
    "attempts",
    "based_on",
    "reused_from",
    "error",
)
"""Columns of the CSV before the hyperparameters."""


@dataclass(frozen=True)
class Progress:
    """The study after one more trial, in the order of their numbers.

    Attributes:
        number: Number of that trial.
        device_seconds: Sum over all trials up to this one.
        best: Highest score up to this one.
    """

    number: int
    device_seconds: float
    best: float


def best_so_far(ledger: Ledger) -> list[Progress]:
    """Return the course of the study; it begins with the first scored trial, and failed ones cost time as well."""
    course, seconds, best = [], 0.0, -math.inf
    for trial in sorted(ledger.trials, key=lambda t: t.number):
        seconds += trial.device_seconds
        if is_scored(trial):
            best = max(best, trial.accuracy)
        if trial.is_finished and best > -math.inf:
            course.append(Progress(trial.number, seconds, best))
    return course


def hyperparameter_names(ledger: Ledger) -> list[str]:
    """Return all names in the space's order, then those that only trials have."""
    names = [row["name"] for row in ledger.spec.get("space", [])]
    names += [name for trial in ledger.trials for name in trial.hyperparameters]
    return list(dict.fromkeys(names))


def trials_frame(ledger: Ledger) -> "pandas.DataFrame":
    """Return one row per trial: `COLUMNS`, then each hyperparameter by its name.

    Numbers are numbers, whole ones `Int64`; what a trial does not have is missing. `based_on` is text, numbers with spaces between.
    """
    import pandas

    names = hyperparameter_names(ledger)
    rows = [
        {
            **dataclasses.asdict(trial),
            "best_epoch": trial.best_epoch,
            "based_on": " ".join(map(str, trial.based_on)),
            **{name: trial.hyperparameters.get(name) for name in names},
        }
        for trial in ledger.trials
    ]
    frame = pandas.DataFrame(rows, columns=list(dict.fromkeys([*COLUMNS, *names])), dtype=object)
    return frame.astype({name: dtype for name in frame.columns if (dtype := _dtype(frame[name]))})


def _dtype(column: Iterable[Any]) -> str | None:
    kinds = {type(value) for value in column if value is not None}
    if kinds and kinds <= {int, float}:
        return "Int64" if kinds == {int} else "float64"
    return "boolean" if kinds == {bool} else None


def trials_csv(ledger: Ledger) -> str:
    """Return one row per trial; a hyperparameter without a value is empty, and no cell can be taken for a formula."""
    frame = trials_frame(ledger).map(csv_cell).rename(columns=csv_cell)
    return frame.to_csv(index=False, lineterminator="\r\n")


def trials_markdown(ledger: Ledger) -> str:
    """Return the trials as a table in Markdown, hyperparameters in one cell."""
    names = hyperparameter_names(ledger)
    head = ["trial", "status", "validation accuracy", "epochs", "device-seconds", "worker", "hyperparameters"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    frame = trials_frame(ledger)
    for row in frame.astype(object).where(frame.notna(), None).to_dict("records"):
        active = {name: row[name] for name in names if row[name] is not None}
        score = "" if row["score"] is None else f"{row['score']:.4f}"
        cells = [
            row["number"],
            row["status"],
            score,
            row["epochs"],
            f"{row['device_seconds']:.1f}",
            row["worker"],
            inline_code(active),
        ]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


def overview(ledger: Ledger) -> dict[str, Any]:
    """Return the study as JSON values: `study show --json`."""
    best = ledger.best()
    return {
        "name": ledger.name,
        "spec": ledger.spec,
        "states": {status: ledger.count(status) for status in STATUSES},
        "device_seconds": ledger.device_seconds,
        "best": None if best is None else dataclasses.asdict(best),
        "best_so_far": [dataclasses.asdict(progress) for progress in best_so_far(ledger)],
        "trials": [dataclasses.asdict(trial) for trial in ledger.trials],
        "reused": [dataclasses.asdict(trial) for trial in ledger.reused],
    }


def space_of(ledger: Ledger) -> Space:
    """Return the space the study was asked to search."""
    return Space.from_json(ledger.spec["space"])


def unit_matrix(space: Space, rows: list[dict[str, Value]]) -> np.ndarray:
    """Return (n, parameters) float64 in 0..1, each on its own scale, NaN where there is no value."""
    return np.array(
        [[math.nan if p.name not in row else p.fraction(row[p.name]) for p in space.parameters] for row in rows]
    ).reshape(len(rows), len(space.parameters))


def importance(ledger: Ledger) -> dict[str, float]:
    """Return each hyperparameter's share (summing to 1) in what the score depends on, highest first.

    A forest is fitted to the scored trials; a parameter matters as much as the fit suffers when its values are shuffled.
    Empty below ten scored trials, or where all scores are alike.

    Source: Breiman 2001, Random Forests, https://doi.org/10.1023/A:1010933404324
    """
    from sklearn.ensemble import ExtraTreesRegressor
    from sklearn.inspection import permutation_importance

    space, scored = space_of(ledger), [t for t in ledger.trials if is_scored(t)]
    scores = np.array([t.score for t in scored])
    if len(scored) < 10 or np.ptp(scores) == 0:
        return {}
    points = np.nan_to_num(unit_matrix(space, [t.hyperparameters for t in scored]), nan=-0.5)
    forest = ExtraTreesRegressor(n_estimators=60, min_samples_leaf=2, random_state=0).fit(points, scores)
    suffers = permutation_importance(
        forest, points, scores, scoring="neg_mean_squared_error", n_repeats=5, random_state=0
    )
    loss = np.maximum(suffers.importances_mean, 0.0)
    total = loss.sum()
    if total == 0:
        return {}
    shares = {p.name: float(share / total) for p, share in zip(space.parameters, loss, strict=True)}
    return dict(sorted(shares.items(), key=lambda item: -item[1]))
