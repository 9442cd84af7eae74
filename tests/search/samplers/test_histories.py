"""No history breaks scikit-optimize's samplers, or anything else that reads scores."""

import json

import numpy as np
import pytest

from components.search import plots
from components.search.samplers.base import History
from components.search.samplers.choice import ALGORITHMS, make_sampler
from components.search.study.pruning import should_prune
from components.search.tables import best_so_far, importance, overview, trials_csv
from components.search.trial import FINISHED, Ledger, is_scored
from tests.search.histories import SPACE, assert_suggestions, every_short_one, random_ones, trial


@pytest.mark.parametrize(
    ("algorithm", "short", "count"), [("gp", True, 12), ("forest", False, 6), ("gbrt", False, 6), ("random", False, 60)]
)
def test_every_history_has_a_next_suggestion(algorithm, short, count):
    """A trial of whatever status, with no, one or many scores, alone or beside any other, stops no study."""
    assert algorithm in ALGORITHMS["resnet18"]
    assert_suggestions(lambda: make_sampler("resnet18", algorithm, SPACE, 3), short=short, count=count)


def test_every_history_is_told_in_numbers():
    """Each finished trial is told once with a finite score between the worst and the best that was reached."""
    for trials, reused in random_ones(300):
        history = History.of(SPACE, len(trials), trials, reused)
        finished = [t for t in (*trials, *reused) if t.status in FINISHED]
        scores = [score for _, score in history.results]
        reached = [t.score for t in finished if is_scored(t)]

        assert len(finished) == len(scores) == len(history.scored)
        assert np.isfinite(scores).all()
        assert sum(history.scored) == len(reached)
        assert not reached or (min(reached) <= min(scores) and max(scores) <= max(reached))


def test_every_history_can_be_read(tmp_path):
    """Tables, plots, pruning, the best trial and the file of a study take whatever a trial left behind."""
    rng = np.random.default_rng(0)
    short = [[trial(n, kind, rng) for n, kind in enumerate(kinds)] for kinds in every_short_one()]
    for number, trials in enumerate((*short, *(trials for trials, _ in random_ones(100)))):
        spec = {"space": json.loads(json.dumps(SPACE.to_json())), "trials": 30}
        ledger = Ledger(name="s", spec=spec, trials=tuple(trials))
        best = ledger.best()

        assert (best is None) == (not any(map(is_scored, trials)))
        assert best is None or best.score == max(t.score for t in trials if is_scored(t))
        assert json.dumps(overview(ledger), allow_nan=False)
        assert len(trials) + 1 == len(trials_csv(ledger).splitlines())
        assert all(np.isfinite(step.best) for step in best_so_far(ledger))
        assert abs(sum(importance(ledger).values()) - 1) < 1e-6 or {} == importance(ledger)
        for t in trials:
            assert t.best_epoch is None or t.scores[t.best_epoch - 1] == max(t.scores)
            assert should_prune(t.scores, [o.scores for o in trials], max_epochs=9) in (True, False)
        if number % 40 == 0 or len(trials) > 15:
            assert ("convergence" in plots.drawings(ledger)) == (best is not None)
        ledger.save(tmp_path / "ledger.json")
        assert ledger == Ledger.load(tmp_path / "ledger.json")
