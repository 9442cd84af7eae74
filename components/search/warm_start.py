"""A warm start takes over trials from earlier studies under the same root."""

import dataclasses
import logging
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from components.errors import DataError
from components.models.space import Space, Value
from components.search.study.objects import SPEC, decode
from components.search.study.records import ReusedRecord
from components.search.study.spec import meaning
from components.search.study.study import Study
from components.search.trial import Ledger, SpecRecord, Trial, best_trial
from components.stores import ObjectNotFoundError, Store

log = logging.getLogger(__name__)

MAX_REUSED = 100
"""At most so many trials are taken over: a weekly run would make its models slower every week."""

MAX_GUESSES = 3
"""At most so many suggestions are spent on what earlier studies found best."""

_READERS = 8


@dataclass(frozen=True)
class Reusable:
    """What a warm start found.

    Attributes:
        trials: Finished trials on the same data and space, `reused_from` filled in; as good as own ones for a sampler.
        first_guesses: Active hyperparameters to begin with, best first. The best of `trials` is among them: it is trained again,
            because only a study's own trials can win it.
        origins: `<study>/<number>` of each first guess.
    """

    trials: tuple[Trial, ...] = ()
    first_guesses: tuple[dict[str, Value], ...] = ()
    origins: tuple[str, ...] = ()

    def to_json(self) -> ReusedRecord:
        """Return JSON values: `told`, `seeds`, `origins`."""
        return {
            "told": [dataclasses.asdict(trial) for trial in self.trials],
            "seeds": list(self.first_guesses),
            "origins": list(self.origins),
        }


def find_reusable(store: Store, spec: SpecRecord, *, exclude: str) -> Reusable:
    """Look through the studies of one root for trials that save a new study some of its own.

    Trials of studies whose scores mean the same (`components.search.study.spec.meaning`: data, space, epochs, initial weights,
    device, batch size) are taken over, unless they failed. Of other studies of the approach on a
    dataset of this name only the best hyperparameters are taken, moved into the space: what was best on last week's
    catalogue, or on another device, is a good first guess, its score says nothing any more.

    Args:
        store: The study root.
        spec: The new study's, as `StudySpec.to_json` gives it.
        exclude: Name of the new study.

    Returns:
        What was found, the same for the same studies; nothing where there are none. An unreadable study is skipped.
    """
    space = Space.from_json(spec["space"])
    reusable: list[Trial] = []
    others: list[tuple[Trial, str]] = []
    for ledger in _earlier(store, spec["approach"], spec["dataset"], exclude):
        if meaning(ledger.spec) == meaning(spec):
            reusable += [_renamed(t, ledger) for t in ledger.trials if t.is_finished and t.status != "failed"]
        elif (best := ledger.best()) is not None:
            others.append((best, f"{ledger.name}/{best.number}"))
    best_reusable = best_trial(sorted(reusable, key=_rank))
    candidates = [(best_reusable, best_reusable.reused_from)] if best_reusable else []
    candidates += sorted(others, key=lambda pair: (_rank(pair[0]), pair[1]))
    first_guesses, origins = _distinct(candidates, space)
    return Reusable(tuple(_thinned(reusable)), first_guesses, origins)


def _earlier(store: Store, approach: str, dataset: str, exclude: str) -> Iterable[Ledger]:
    """Return the ledgers of the approach's studies on the dataset, in the order of their names."""
    names = sorted({key.partition("/")[0] for key in store.list() if key.count("/") == 1 and key.endswith(f"/{SPEC}")})

    def read(name: str) -> Ledger | None:
        try:
            spec = decode((store / name).read(SPEC), f"{store.uri}/{name}/{SPEC}")
            if (spec.get("approach"), spec.get("dataset")) != (approach, dataset) or not spec.get("space"):
                return None
            return Study.open(store, name).ledger()
        except (DataError, ObjectNotFoundError, KeyError, TypeError) as error:
            log.warning("study %s is not reused: %s", name, error)
            return None

    with ThreadPoolExecutor(_READERS) as pool:
        return [ledger for ledger in pool.map(read, [name for name in names if name != exclude]) if ledger is not None]


def _renamed(trial: Trial, ledger: Ledger) -> Trial:
    return dataclasses.replace(trial, reused_from=f"{ledger.name}/{trial.number}")


def _rank(trial: Trial) -> tuple:
    """Return a sort key: the highest score comes first, trials without one last; the rest makes the order definite."""
    return (trial.score is None, -(trial.score or 0.0), trial.reused_from, trial.number)


def _thinned(trials: list[Trial]) -> list[Trial]:
    """Return at most `MAX_REUSED` trials: half of them are the best ones, the others are spread over the rest."""
    trials = sorted(trials, key=_rank)
    if len(trials) <= MAX_REUSED:
        return trials
    num_best = MAX_REUSED // 2
    rest = trials[num_best:]
    step = len(rest) / (MAX_REUSED - num_best)
    return trials[:num_best] + [rest[int(i * step)] for i in range(MAX_REUSED - num_best)]


def _distinct(
    candidates: list[tuple[Trial, str]], space: Space
) -> tuple[tuple[dict[str, Value], ...], tuple[str, ...]]:
    """Return the first `MAX_GUESSES` different settings, moved into the space, and where they come from."""
    settings: dict[tuple, tuple[dict[str, Value], str]] = {}
    for trial, origin in candidates:
        values = _moved(trial.hyperparameters, space)
        settings.setdefault(space.key(values), (values, origin))
    kept = list(settings.values())[:MAX_GUESSES]
    return tuple(values for values, _ in kept), tuple(origin for _, origin in kept)


def _moved(values: dict[str, Any], space: Space) -> dict[str, Value]:
    """Return the nearest values of the space; the default replaces a value of another kind or a choice that is gone."""
    fitting = {}
    for parameter in space.parameters:
        try:
            fitting[parameter.name] = parameter.conform(values[parameter.name])
        except (KeyError, TypeError, ValueError):
            fitting[parameter.name] = parameter.default
    return fitting
