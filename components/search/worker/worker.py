"""A worker of a study claims trials, trains them and posts their results until nothing is left to do."""

import logging
from concurrent.futures import Future, ThreadPoolExecutor

from components.data.contract import TrainData
from components.failpoints import failpoint
from components.models.contract import ApproachModule, Trainer
from components.models.faults import make_trainer
from components.parameters import SearchSettings
from components.search.samplers.base import Sampler
from components.search.samplers.choice import make_sampler
from components.search.study.claims import Timing
from components.search.study.records import ReusedRecord, Suggestion
from components.search.study.spec import StudySpec
from components.search.study.study import Study
from components.search.trial import Ledger, Trial
from components.search.warm_start import find_reusable
from components.search.worker.attempt import Attempt
from components.search.worker.heartbeat import Heartbeat
from components.search.worker.termination import Termination
from components.stores import Store, open_store

log = logging.getLogger(__name__)


def run_worker(
    *,
    study_root: str,
    name: str,
    approach: ApproachModule,
    train_data: TrainData,
    settings: SearchSettings,
    worker: str,
    require_gpu: bool = False,
    timing: Timing | None = None,
) -> Ledger:
    """Work on a study until it is finished, by this worker or another.

    A trial that diverges, runs out of memory or raises is recorded and the study goes on. What the device, the driver or
    the process did (`components.models.faults`) gives the trial back and ends the worker. Killed at any moment, at most the
    running trial is lost, and its successor continues from the trial's last checkpoint.

    Args:
        study_root: URI of the store that holds the studies.
        name: The study's name; the study is created by whoever comes first.
        approach: Module with what `components.models.contract` lists.
        train_data: What to train on. Loaded onto the device only if a trial is left to train.
        settings: Budget and algorithm.
        worker: Shown with the trials; need not be unique.
        require_gpu: Refuse to train without one.
        timing: Periods and time-outs of the protocol; tests shorten them.

    Returns:
        The study as this worker leaves it.

    Raises:
        ParameterError: The name holds a study that was asked for something else.
        TerminatedError: SIGTERM arrived; the running trial was saved and given back.
        TryAgainError: The device or the process failed; the trial was given back.
        UnavailableError: The store was out of reach for longer than its deadline.
    """
    failpoint("start")
    root, timing = open_store(study_root), timing or Timing()
    spec = StudySpec.of(approach, train_data.info, settings, require_gpu=require_gpu)
    study = Study.create_or_open(root, name, spec, timing=timing)
    if not study.is_finished():
        reused = _warm_start(study, root)
        heartbeat = Heartbeat(study)
        with Termination(timing.term_seconds, heartbeat.leave) as termination, heartbeat:
            _Worker(study, approach, train_data, reused, worker, require_gpu, heartbeat, termination).run()
    study.collect()
    ledger = study.snapshot()
    best = ledger.best()
    log.info(
        "study %s: %d trials, %.1f device-seconds, best %s",
        name,
        len(ledger.trials),
        ledger.device_seconds,
        "none" if best is None else f"validation accuracy {best.score:.4f} (trial {best.number})",
    )
    return ledger


def _warm_start(study: Study, root: Store) -> ReusedRecord:
    """Return what is taken over from earlier studies: the study's first worker chose it, and all workers use it."""
    if not study.spec["warm_start"]:
        return {"told": [], "seeds": [], "origins": []}

    def find() -> ReusedRecord:
        return find_reusable(root, study.spec, exclude=study.name).to_json()

    reused = study.reuse(find)
    log.info(
        "study %s: warm start with %d earlier trials and %d first guesses",
        study.name,
        len(reused["told"]),
        len(reused["seeds"]),
    )
    return reused


class _Worker:
    """The state of one call of `run_worker` while there is something to do."""

    def __init__(
        self,
        study: Study,
        approach: ApproachModule,
        train_data: TrainData,
        reused: ReusedRecord,
        name: str,
        require_gpu: bool,
        heartbeat: Heartbeat,
        termination: Termination,
    ) -> None:
        self._study = study
        self._approach = approach
        self._train_data = train_data
        self._first_guesses, self._origins = reused["seeds"], reused["origins"]
        self._name = name
        self._require_gpu = require_gpu
        self._heartbeat = heartbeat
        self._termination = termination
        self._trainer: Trainer | None = None
        self._sampler: Sampler | None = None

    def run(self) -> None:
        """Train trials until the study is finished.

        A result is posted while the next trial is claimed, and acknowledged before that one is trained.
        """
        with ThreadPoolExecutor(1, "result") as poster:
            posted: Future[Trial] | None = None
            while True:
                self._termination.check()
                self._heartbeat.check()
                claim = self._study.claim_next(self._name, self._suggest)
                if posted is not None:
                    posted.result()
                    posted = None
                    failpoint("after-result")
                if claim is not None:
                    trial = Attempt(self._study, claim, self._heartbeat, self._termination).run(self._make_trainer)
                    if trial is not None:
                        failpoint("before-result")
                        self._study.anticipate(trial)
                        posted = poster.submit(self._study.finish, trial)
                        if trial.status == "failed":
                            self._trainer = None  # what broke the trial may have broken it as well
                elif self._study.is_finished():
                    return
                else:
                    self._termination.wait(self._study.pause_seconds)

    def _suggest(self, number: int, ledger: Ledger) -> Suggestion:
        if self._sampler is None:
            spec = self._study.spec
            self._sampler = make_sampler(
                spec["approach"], spec["algorithm"], self._study.space, spec["seed"], first_guesses=self._first_guesses
            )
        hyperparameters = self._sampler.suggest(number, ledger.trials, ledger.reused)
        return Suggestion(hyperparameters, self._origins[number] if number < len(self._first_guesses) else "")

    def _make_trainer(self) -> Trainer:
        if self._trainer is None:
            self._trainer = make_trainer(
                self._approach, self._train_data, require_gpu=self._require_gpu, weights_uri=self._study.spec["weights"]
            )
        return self._trainer
