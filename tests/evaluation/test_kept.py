"""What runs cost, and how they stand beside each other."""

import csv
import json

import pytest

from components.evaluation.cost import PRICE_VARIABLE, cost_of, cost_text
from components.evaluation.kept import COLUMNS, compare, read_summaries, runs_frame
from components.evaluation.report.page import _importance, _money
from components.notification.event import lines_of, make_event
from components.stores import open_store
from pipelines.__main__ import run
from tests.search.test_tables import SPACE, make_ledger, make_trial


def summary(accuracy: float, data_hash: str = "a", seed: int = 0, cost: dict | None = None) -> dict:
    """Return the summary of a run with one data set and one approach."""
    scores = {"accuracy": accuracy, "accuracy_ci95": [accuracy - 0.1, accuracy], "macro_f1": accuracy / 2}
    scores |= {"device_seconds": {"search": 3000.0, "train": 600.0}, "best_hyperparameters": {"rate": 0.1}}
    part = {
        "data": {"hash": data_hash},
        "approaches": {"mlp": scores},
        "comparison": {"winner": None, "verdict": "There is nothing to compare"},
        "champion": {"decision": "first", "version": 1, "reason": "there was none"},
    }
    content = {"schema": 1, "parameters": {"seed": seed, "search_trials": 30}, "datasets": {"shoes": part}}
    return content | ({"cost": cost} if cost else {})


@pytest.fixture
def root(tmp_path):
    """A study root with two runs and what is no summary."""
    store = open_store(str(tmp_path))
    price = {"device_seconds": 3600.0, "price_per_hour": 0.71, "currency": "USD", "amount": 0.71}
    runs = {"b-early": summary(0.8), "a-late": summary(0.9, "b", 1, price)}
    for number, (name, content) in enumerate(runs.items()):
        store.create(f"runs/{name}/summary.json", json.dumps(content).encode())
        row = {"run": name, "created": f"2026-11-2{number}T03:00:00+00:00"}
        store.create(f"reports/{number}.json", json.dumps(row).encode())
    store.create("runs/broken/summary.json", b"{")
    store.create("runs/failed/notified-failed.json", b"{}")
    return str(tmp_path)


def test_a_row_per_run_and_data_set(root):
    """Oldest first, by the time of the report; a cost only where the run knew a price."""
    frame = runs_frame(read_summaries(root))

    assert [*COLUMNS, "mlp accuracy", "mlp macro_f1"] == list(frame.columns)
    assert [("b-early", 0.8), ("a-late", 0.9)] == list(zip(frame["run"], frame["mlp accuracy"], strict=True))
    assert [False, True] == frame["cost"].notna().tolist()
    assert (3600.0, 0.71, "USD") == tuple(frame.loc[1, ["device_seconds", "cost", "currency"]])


def test_comparison_names_what_differs(root):
    """Only parameters that differ are shown, and runs on other data are no like for like."""
    comparison = compare(read_summaries(root), ["b", "a-late"])

    assert ["b-early", "a-late"] == comparison["runs"]
    assert {"seed": {"b-early": 0, "a-late": 1}} == comparison["parameters"]
    assert not comparison["datasets"]["shoes"]["same_data"]


def _without(*path: str, instead: object = None) -> dict:
    """Return a summary without one of its parts, or with something else there."""
    whole: dict = {"summary": summary(0.8)}
    *outer, last = ("summary", *path)
    part = whole
    for key in outer:
        part = part[key]
    part.pop(last)
    if instead is not None:
        part[last] = instead
    return whole["summary"]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ([], "[] for the whole"),
        ({"datasets": {}}, "no parameters"),
        (_without("datasets"), "no datasets"),
        (_without("parameters", instead=[]), "[] for parameters"),
        ({"parameters": {}, "datasets": {"x": {}}}, "no datasets.x.data"),
        ({"parameters": {}, "datasets": {"x": None}}, "None for datasets.x"),
        *(
            (_without("datasets", "shoes", part, instead=3), f"3 for datasets.shoes.{part}")
            for part in ("champion", "approaches", "comparison", "data")
        ),
        (_without("datasets", "shoes", "champion", "decision"), "no datasets.shoes.champion.decision"),
        (_without("datasets", "shoes", "approaches", "mlp", "accuracy"), "no datasets.shoes.approaches.mlp.accuracy"),
        (summary(0.8, cost={"currency": "USD"}), "{'currency': 'USD'} for cost"),
    ],
)
def test_a_summary_of_another_shape_hides_no_other(root, content, problem, caplog):
    """It is passed over with its name and what is wrong, as a truncated one is; the other runs are shown."""
    open_store(root).create("runs/b/summary.json", json.dumps(content).encode())

    assert 0 == run(["runs", "list", "--study-root", root])
    assert 0 == run(["runs", "compare", "b-early", "a-late", "--study-root", root])
    assert f"runs/b/summary.json is skipped: wrong form: {problem}" in caplog.text


def test_csv_holds_no_formula(root, tmp_path):
    """A run's id that a spreadsheet would run is defused in the CSV; numbers stay numbers."""
    open_store(root).create("runs/@SUM(A1)/summary.json", json.dumps(summary(0.8)).encode())

    assert 0 == run(["runs", "list", "--study-root", root, "--csv", str(tmp_path / "runs.csv")])

    rows = list(csv.DictReader((tmp_path / "runs.csv").read_text().splitlines()))
    assert ["'@SUM(A1)", "b-early", "a-late"] == [row["run"] for row in rows]
    assert ["0.8", "0.8", "0.9"] == [row["mlp accuracy"] for row in rows]


def test_an_older_summary_with_floats_differs_in_nothing():
    """A whole number that a struct made a float is the same number."""
    older = summary(0.8) | {"parameters": {"seed": 0.0, "search_trials": 30.0}}

    assert {} == compare({"older": older, "newer": summary(0.8)}, ["older", "newer"])["parameters"]


def test_commands_show_them(root, tmp_path, capsys):
    """Lists and comparisons come as tables, as CSV and as JSON; a wrong id is one line that names the right ones."""
    assert 0 == run(["runs", "list", "--study-root", root, "--csv", str(tmp_path / "runs.csv")])
    assert "a-late" in capsys.readouterr().out.splitlines()[-1]
    assert 3 == len((tmp_path / "runs.csv").read_text().splitlines())
    assert 0 == run(["runs", "list", "--study-root", root, "--json"])
    assert ["b-early", "a-late"] == [row["run"] for row in json.loads(capsys.readouterr().out)]
    assert 0 == run(["runs", "compare", "b-early", "a-late", "--study-root", root])
    said = capsys.readouterr().out
    assert "compare with care" in said
    assert "0.8000" in said
    assert 65 == run(["runs", "compare", "c", "--study-root", root])
    assert "There are: b-early, a-late" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert 0 == run(["runs", "list", "--study-root", str(tmp_path / "empty")])
    assert "no run has ended well" in capsys.readouterr().out
    assert 65 == run(["runs", "list", "--study-root", str(tmp_path / "mistyped")])
    assert "--study-root must be a folder or a URI" in capsys.readouterr().err


def test_price_makes_a_cost(monkeypatch):
    """Device time costs what the profile says; without a price, or with nonsense, nothing is claimed."""
    monkeypatch.setenv(PRICE_VARIABLE, "0.71 USD")
    cost = cost_of(7200.0)
    assert (1.42, "1.42 USD") == (cost["amount"], cost_text(cost))
    assert "less than 0.01 USD" == cost_text(cost_of(10.0))
    assert "2 h 0 min of device time" in _money(cost)
    event = make_event(run_id="r", study_root="s", state="succeeded", summary=summary(0.8, cost=cost))
    assert ("Cost", "2 h 0 min of device time, about 1.42 USD") in lines_of(event)
    for nonsense in ("", "free", "0.71", "0.71 $"):
        monkeypatch.setenv(PRICE_VARIABLE, nonsense)
        assert cost_of(7200.0) is None


def test_importance_is_told_where_trials_tell_it():
    """A sentence names the hyperparameters that matter; few trials give none."""
    trials = [
        make_trial(n, score=0.5 + n / 100, hyperparameters={"optimizer": "Adam", "rate": 1e-4 * 1.2**n})
        for n in range(20)
    ]

    assert _importance(make_ledger(trials, SPACE)).startswith("What the score depended on: rate ")
    assert "" == _importance(make_ledger(trials[:5], SPACE))
