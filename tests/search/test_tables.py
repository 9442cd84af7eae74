import csv
import io
import json

import numpy as np

from components.models.space import Parameter, Space
from components.search.tables import (
    COLUMNS,
    best_so_far,
    importance,
    overview,
    space_of,
    trials_csv,
    trials_frame,
    trials_markdown,
    unit_matrix,
)
from components.search.trial import Ledger, Trial

SPACE = Space(
    (
        Parameter(name="optimizer", choices=("SGD", "Adam"), default="Adam"),
        Parameter(name="momentum", low=0.1, high=0.9, default=0.9),
        Parameter(name="rate", low=1e-4, high=1e-2, log=True, default=1e-3),
    )
)


def make_ledger(trials, space=SPACE):
    return Ledger(name="study", spec={"space": space.to_json()}, trials=tuple(trials))


def make_trial(number, status="completed", score=None, hyperparameters=None, **values):
    return Trial(number=number, status=status, score=score, hyperparameters=hyperparameters or {"rate": 0.01}, **values)


def test_best_so_far_counts_the_time_of_failures():
    """The series rises only, begins with the first score, and pays for trials that came to nothing."""
    ledger = make_ledger(
        [
            make_trial(0, "failed", device_seconds=5.0),
            make_trial(1, score=0.8, device_seconds=2.0),
            make_trial(2, "diverged", 0.99, device_seconds=1.0),
            make_trial(3, "pruned", 0.7, device_seconds=0.5),
            make_trial(4, "running", 0.95, device_seconds=1.5),
            make_trial(5, score=0.9, device_seconds=2.0),
        ]
    )

    assert [(1, 7.0, 0.8), (2, 8.0, 0.8), (3, 8.5, 0.8), (5, 12.0, 0.9)] == [
        (p.number, p.device_seconds, p.best) for p in best_so_far(ledger)
    ]


def test_csv_has_a_row_per_trial_and_empty_inactive_cells():
    """Reading the CSV back gives the trials; what a trial does not have is empty."""
    ledger = make_ledger(
        [
            make_trial(0, score=0.5, scores=(0.4, 0.5), based_on=(3, 4), hyperparameters={"optimizer": "Adam"}),
            make_trial(1, hyperparameters={"optimizer": "SGD", "momentum": 0.5, "rate": 1e-4}),
        ]
    )
    rows = list(csv.DictReader(io.StringIO(trials_csv(ledger), newline="")))

    assert ["0.5", "2", "3 4", "Adam", "", ""] == [
        rows[0][c] for c in ("score", "best_epoch", "based_on", "optimizer", "momentum", "rate")
    ]
    assert ["", "", "", "SGD", "0.5", "0.0001"] == [
        rows[1][c] for c in ("score", "best_epoch", "based_on", "optimizer", "momentum", "rate")
    ]


def test_frame_has_numbers_where_there_are_numbers():
    """Whole numbers stay whole beside missing ones, and what a trial does not have is missing."""
    ledger = make_ledger(
        [
            make_trial(
                0, score=0.5, scores=(0.4, 0.5), hyperparameters={"optimizer": "Adam", "units": 64, "wide": True}
            ),
            make_trial(1, "failed", hyperparameters={"optimizer": "SGD", "momentum": 0.5, "rate": 1}),
        ]
    )
    frame = trials_frame(ledger)

    assert [*COLUMNS, "optimizer", "momentum", "rate", "units", "wide"] == list(frame.columns)
    assert ["float64", "Int64", "float64", "Int64", "boolean"] == [
        str(frame[name].dtype) for name in ("score", "best_epoch", "momentum", "units", "wide")
    ]
    assert [[False, True], [True, False]] == frame[["score", "momentum"]].isna().to_numpy().tolist()
    assert [0, 0] == [len(trials_frame(make_ledger([]))), len(trials_csv(make_ledger([])).splitlines()) - 1]


def test_markdown_is_one_row_per_trial():
    """Active hyperparameters stand in one cell, and no text breaks the table."""
    ledger = make_ledger(
        [make_trial(0, score=0.5, worker="w0", hyperparameters={"optimizer": "Ad|am"}), make_trial(1, "failed")]
    )

    rows = trials_markdown(ledger).splitlines()[2:]
    assert "| 0 | completed | 0.5000 | 0 | 0.0 | w0 | `{'optimizer': 'Ad/am'}` |" == rows[0]
    assert "| 1 | failed |  | 0 | 0.0 |  | `{'rate': 0.01}` |" == rows[1]


def test_csv_holds_no_formula():
    """Text that a spreadsheet would run is defused, wherever it comes from; numbers stay numbers."""
    texts = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", " =1", "plain"]
    ledger = make_ledger([make_trial(i, error=t, worker=t, score=-0.5) for i, t in enumerate(texts)])
    rows = list(csv.DictReader(io.StringIO(trials_csv(ledger), newline="")))

    assert [f"'{t}" for t in texts[:-1]] + ["plain"] == [row["error"] for row in rows]
    assert [row["error"] for row in rows] == [row["worker"] for row in rows]
    assert "-0.5" == rows[0]["score"]


def test_overview_is_json():
    """Everything `study show --json` prints survives JSON, and says what the ledger says."""
    ledger = make_ledger([make_trial(0, score=0.5, device_seconds=1.0), make_trial(1, "running")])
    values = json.loads(json.dumps(overview(ledger), allow_nan=False))

    assert (0, 1.0, 1, 1) == (
        values["best"]["number"],
        values["device_seconds"],
        values["states"]["completed"],
        values["states"]["running"],
    )
    assert [{"number": 0, "device_seconds": 1.0, "best": 0.5}] == values["best_so_far"]


def test_unit_matrix_uses_each_parameters_own_scale():
    """Choices, logarithms and inactive values are laid out between 0 and 1, inactive as NaN."""
    matrix = unit_matrix(
        SPACE, [{"optimizer": "SGD", "momentum": 0.5, "rate": 1e-3}, {"optimizer": "Adam", "rate": 1e-2}]
    )

    np.testing.assert_allclose([[0.0, 0.5, 0.5], [1.0, np.nan, 1.0]], matrix)
    assert (0, 3) == unit_matrix(SPACE, []).shape


def test_importance_finds_what_the_score_depends_on():
    """The parameter that decides the score gets the largest share; the shares sum to one."""
    rng = np.random.default_rng(0)
    drawn = [SPACE.sample(rng) for _ in range(60)]
    ledger = make_ledger(
        make_trial(i, score=0.9 - 0.1 * abs(np.log10(v["rate"]) + 3), hyperparameters=v) for i, v in enumerate(drawn)
    )
    shares = importance(ledger)

    assert "rate" == next(iter(shares))
    assert shares["rate"] > 0.8
    np.testing.assert_allclose(1.0, sum(shares.values()))


def test_importance_of_too_little_is_nothing():
    """Few trials, or equal scores, are no evidence."""
    rng = np.random.default_rng(0)

    assert {} == importance(make_ledger(make_trial(i, score=i / 9) for i in range(9)))
    assert {} == importance(make_ledger(make_trial(i, score=0.5, hyperparameters=SPACE.sample(rng)) for i in range(20)))


def test_the_space_comes_back_from_the_spec():
    """The ledger alone is enough to know the space, also after it was a file."""
    ledger = make_ledger([])
    spec = json.loads(json.dumps(ledger.spec))

    assert SPACE == space_of(Ledger(name="s", spec=spec, trials=()))
