import dataclasses
import time

import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.backends.backend_agg import FigureCanvasAgg

from components.models.space import Parameter, Space
from components.search.plots import MAX_DIMENSIONS, MIN_TRIALS, convergence, drawings
from components.search.trial import Ledger, Trial

SPACE = Space(
    (
        Parameter(name="units", low=64, high=1024, step=64, default=256),
        Parameter(name="optimizer", choices=("SGD", "Adam"), default="Adam"),
        Parameter(name="momentum", low=0.1, high=0.9, default=0.9),
        Parameter(name="rate", low=1e-4, high=1e-2, log=True, default=1e-3),
        Parameter(name="flip", choices=(True, False), default=False),
        Parameter(name="batch", low=16, high=256, log=True, default=64),
    )
)


def make_ledger(count):
    """A study whose scores depend on the rate, one trial in five pruned."""
    rng = np.random.default_rng(0)
    trials = []
    for number in range(count):
        values = SPACE.sample(rng)
        score = 0.9 - 0.05 * abs(np.log10(values["rate"]) + 3) + 0.003 * rng.normal()
        status = "completed" if number % 5 else "pruned"
        trials.append(
            Trial(number=number, status=status, hyperparameters=values, score=float(score), device_seconds=1.0)
        )
    return Ledger(name="study", spec={"space": SPACE.to_json()}, trials=tuple(trials))


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (0, set()),
        (1, {"convergence"}),
        (MIN_TRIALS - 1, {"convergence"}),
        (MIN_TRIALS, {"convergence", "objective", "evaluations", "importance"}),
    ],
)
def test_views_appear_with_the_trials_they_need(count, expected):
    """An unfinished study has the views its trials allow, all of them drawable, and pyplot is left alone."""
    drawn = drawings(make_ledger(count))

    assert expected == set(drawn)
    for figure in drawn.values():
        FigureCanvasAgg(figure).draw()
    assert [] == pyplot.get_fignums()


def test_500_trials_are_drawn_in_seconds():
    """The matrix plots of a long study are quick, and limited to what can be read (processor time of one thread)."""
    started = time.process_time()
    drawn = drawings(make_ledger(500))

    assert time.process_time() - started < 5.0
    panels = [axes for axes in drawn["objective"].axes if axes.get_visible() and axes.lines]
    assert len(panels) <= MAX_DIMENSIONS * (MAX_DIMENSIONS + 1) / 2


def test_a_study_of_one_parameter_has_no_matrix():
    """With one parameter there are no pairs to plot."""
    space = Space((SPACE.parameters[3],))
    trials = tuple(
        dataclasses.replace(t, hyperparameters={"rate": t.hyperparameters["rate"]}) for t in make_ledger(12).trials
    )

    assert {"convergence", "importance"} == set(
        drawings(Ledger(name="s", spec={"space": space.to_json()}, trials=trials))
    )


def test_convergence_compares_studies_over_their_time():
    """Each study is one line that falls from its first to its best error, over its own device-seconds."""
    ledgers = {"short": make_ledger(5), "long": make_ledger(20)}
    lines = {line.get_label(): line for line in convergence(ledgers).axes[0].lines if line.get_label() in ledgers}

    assert [5.0, 20.0] == [lines[name].get_xdata()[-1] for name in ledgers]
    for name, ledger in ledgers.items():
        np.testing.assert_allclose(1 - ledger.best().score, lines[name].get_ydata()[-1])
