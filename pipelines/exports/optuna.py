"""A study becomes one of Optuna, in a journal file that optuna-dashboard opens."""

import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState, create_trial

from components.errors import StorageError, file_error
from components.models.space import Parameter
from components.search.tables import space_of
from components.search.trial import Ledger, Trial

STATES = {
    "waiting": TrialState.WAITING,
    "running": TrialState.RUNNING,
    "completed": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "diverged": TrialState.FAIL,
    "failed": TrialState.FAIL,
}


def export_optuna(ledger: Ledger, path: Path) -> None:
    """Write a study into a journal; one that it holds under the same name is replaced, others stay.

    Epochs are Optuna's steps. Our ledgers have no wall-clock times: the trials get ones in a row that last as long as they did.

    Args:
        ledger: The study, finished or not.
        path: The journal; made where it is not there.

    Raises:
        StorageError: The file is no journal, or cannot be written.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    distributions = {p.name: _distribution(p) for p in space_of(ledger).parameters}
    began = datetime.now(UTC).replace(tzinfo=None) - timedelta(seconds=ledger.device_seconds)
    try:
        storage = optuna.storages.JournalStorage(JournalFileBackend(str(path)))
        if ledger.name in optuna.get_all_study_names(storage):
            optuna.delete_study(study_name=ledger.name, storage=storage)
        study = optuna.create_study(storage=storage, study_name=ledger.name, direction="maximize")
        for name in ("approach", "dataset", "algorithm", "data_hash", "epochs", "minutes"):
            study.set_user_attr(name, ledger.spec.get(name))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study.set_metric_names(["validation accuracy"])
        trials = []
        for trial in ledger.trials:
            trials.append(_frozen(trial, distributions, began))
            began += timedelta(seconds=trial.device_seconds)
        study.add_trials(trials)
    except OSError as error:
        raise file_error(error, "must be a file that can be written", f"--optuna {path}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StorageError(
            f"--optuna must be a file that can be written, new or a journal of Optuna; got {path}"
            f" ({type(error).__name__}: {error}). Name another file"
        ) from error


def _distribution(parameter: Parameter) -> BaseDistribution:
    if parameter.choices:
        return CategoricalDistribution(parameter.choices)
    if parameter.is_integer:
        return IntDistribution(parameter.low, parameter.high, log=parameter.log, step=parameter.step or 1)
    return FloatDistribution(parameter.low, parameter.high, log=parameter.log)


def _frozen(trial: Trial, distributions: dict[str, BaseDistribution], began: datetime) -> FrozenTrial:
    params = {name: value for name, value in trial.hyperparameters.items() if name in distributions}
    facts = (
        "seed",
        "worker",
        "attempts",
        "device_seconds",
        "peak_memory_bytes",
        "error",
        "reused_from",
        "out_of_budget",
    )
    state = STATES[trial.status]
    frozen = create_trial(
        state=state,
        value=trial.score if state == TrialState.COMPLETE else None,
        params=params,
        distributions={name: distributions[name] for name in params},
        intermediate_values=dict(enumerate(trial.scores, 1)),
        user_attrs={
            "number": trial.number,
            "status": trial.status,
            **{name: getattr(trial, name) for name in facts},
        },
    )
    if state != TrialState.WAITING:
        frozen.datetime_start = began
    if state.is_finished():
        frozen.datetime_complete = began + timedelta(seconds=trial.device_seconds)
    return frozen
