"""An attempt trains a claimed trial from its last checkpoint on, and decides when to prune, to save and to stop."""

import logging
import math
from collections.abc import Callable

from components.errors import FashionTuningError, PermissionDeniedError, StorageError, UnavailableError
from components.failpoints import failpoint
from components.models.contract import FitResult, State, Trainer, TrialDivergedError
from components.models.faults import device_fault, is_device_fault, is_out_of_memory
from components.search.study.checkpoints import Checkpoints
from components.search.study.claims import Claim
from components.search.study.pruning import should_prune
from components.search.study.study import Study
from components.search.trial import Trial
from components.search.worker.heartbeat import Heartbeat
from components.search.worker.termination import Termination

log = logging.getLogger(__name__)

PROOF_SEED = 2**30 - 1
"""Of the epoch that a device is proven with."""


class TakenOverError(Exception):
    """Another worker claimed the trial or finished it."""


class Attempt:
    """Trains one claimed trial.

    Args:
        study: The study of the claim.
        claim: What to train.
        heartbeat: Shows the other workers how far the trial is.
        termination: Notices SIGTERM, upon which the attempt saves and ends.
    """

    def __init__(self, study: Study, claim: Claim, heartbeat: Heartbeat, termination: Termination) -> None:
        self._study = study
        self._claim = claim
        self._heartbeat = heartbeat
        self._termination = termination
        self._clock = study.timing.clock
        self._epochs: int = study.spec["epochs"]
        self._checkpoints: Checkpoints = study.trial_checkpoints(claim)
        self._scores: tuple[float, ...] = ()
        self._pruned = self._out_of_budget = False
        self._saved_at, self._save_cost = self._clock(), 0.0
        self._peak_memory_bytes = 0

    def run(self, make_trainer: Callable[[], Trainer]) -> Trial | None:
        """Train, and return the trial with its result; None if another worker has it now.

        Args:
            make_trainer: Returns the trainer; if it fails, the trial has not failed.

        Raises:
            TerminatedError: SIGTERM arrived; the state is saved.
            TryAgainError: The device failed; the trial is given back.
            FashionTuningError: The store or the settings are at fault, not the trial.
            OSError: This machine is at fault.
            ImportError: This installation is at fault.
        """
        claim = self._claim
        self._heartbeat.start(claim)
        status, error = "completed", ""
        try:
            trainer = make_trainer()
            if claim.faults:
                self._prove(trainer)
            step, resume = self._restore()
            self._heartbeat.begin(self._scores)
            self._saved_at = self._clock()
            if step < self._epochs and not self._ends_with_the_budget():
                self._note(self._fit(trainer, resume))
        except TakenOverError:
            self._heartbeat.end()
            log.info("trial %d: taken over by another worker", claim.number)
            return None
        except (FashionTuningError, KeyboardInterrupt, OSError, ImportError):
            self._heartbeat.end(release=True)
            raise
        except TrialDivergedError as diverged:
            status, error = "diverged", str(diverged)
            self._scores = _finite(diverged.scores) or self._scores
        except Exception as failure:
            if is_device_fault(failure):
                self._study.note_fault(claim, failure)
                self._heartbeat.end(release=True)
                raise device_fault(f"trial {claim.number}", failure) from failure
            log.debug("trial %d", claim.number, exc_info=True)
            kind = "out of memory" if is_out_of_memory(failure) else type(failure).__name__
            status, error = "failed", f"{kind}: {failure}"
        device_seconds = self._heartbeat.device_seconds
        self._heartbeat.end()
        if self._pruned:
            status = "pruned"
        if status == "completed" and not self._scores:
            status, error = "failed", "no epoch was trained"
        trial = self._trial(status, error, device_seconds)
        log.info(
            "trial %d: %s after %d epochs, %s%s",
            trial.number,
            status,
            trial.epochs,
            "no score" if trial.score is None else f"validation accuracy {trial.score:.4f}",
            f" ({error})" if error else "",
        )
        return trial

    def _prove(self, trainer: Trainer) -> None:
        """Train the space's defaults for an epoch, to find out whether the device broke the trial or the trial the device.

        Another failure counts against the trial only if the device can train the defaults.
        """
        try:
            trainer.fit(self._study.space.defaults, epochs=1, seed=PROOF_SEED, keep_weights=False)
        except TrialDivergedError:
            return
        except FashionTuningError:
            raise
        except Exception as error:
            raise device_fault(f"trial {self._claim.number}", error) from error

    def _ends_with_the_budget(self) -> bool:
        """Return whether the trial has a score and the study's device-minutes are gone; then it ends as pruned."""
        if self._scores and self._study.is_used_up(self._claim, self._heartbeat.device_seconds):
            self._pruned = self._out_of_budget = True
        return self._out_of_budget

    def _fit(self, trainer: Trainer, resume: State | None) -> FitResult:
        return trainer.fit(
            self._claim.hyperparameters,
            epochs=self._epochs,
            seed=self._claim.seed,
            on_epoch=self._on_epoch,
            resume=resume,
            keep_weights=False,
        )

    def _restore(self) -> tuple[int, State | None]:
        """Return the step and state to go on from; (0, None) at the beginning."""
        saved = self._checkpoints.latest() if self._claim.term > 1 else None
        if saved is None:
            return 0, None
        step, state, meta = saved
        self._scores = tuple(meta["scores"])
        log.info("trial %d: goes on after epoch %d", self._claim.number, step)
        return step, state

    def _on_epoch(self, epoch: int, score: float, state: Callable[[], State]) -> bool:
        if not math.isfinite(score):
            raise TrialDivergedError(f"validation accuracy was {score} after epoch {epoch}", self._scores)
        number = self._claim.number
        self._scores = (*self._scores[: epoch - 1], float(score))
        failpoint("epoch")
        log.info(
            "trial %d epoch %d/%d: validation accuracy %.4f, best %.4f, %.1f s",
            number,
            epoch,
            self._epochs,
            score,
            max(self._scores),
            self._heartbeat.device_seconds,
        )
        self._heartbeat.report(self._scores)
        if not self._study.owns(self._claim):
            raise TakenOverError
        if epoch >= self._epochs:
            return True
        if self._study.spec["pruning"] and should_prune(self._scores, self._others(), max_epochs=self._epochs):
            self._pruned = True
            return False
        if self._ends_with_the_budget():
            self._save(epoch, state)
            return False
        if self._termination.requested:
            self._save(epoch, state)
            self._termination.check()
        elif self._is_checkpoint_due():
            self._save(epoch, state)
        return True

    def _others(self) -> list[tuple[float, ...]]:
        trials = self._study.snapshot().trials
        return [t.scores for t in trials if t.number != self._claim.number and t.scores]

    def _is_checkpoint_due(self) -> bool:
        timing = self._study.timing
        pause = max(timing.checkpoint_seconds, self._save_cost / timing.checkpoint_share)
        return self._clock() - self._saved_at >= pause

    def _save(self, epoch: int, state: Callable[[], State]) -> None:
        """Save a checkpoint; a store that will not take it costs at most the trial."""
        start = self._clock()
        try:
            self._checkpoints.save(epoch, state(), {"scores": self._scores})
        except (StorageError, UnavailableError, PermissionDeniedError) as error:
            log.warning("trial %d: checkpoint skipped: %s", self._claim.number, error)
        self._saved_at = self._clock()
        self._save_cost = self._saved_at - start

    def _note(self, result: FitResult) -> None:
        self._scores = _finite(result.scores) or self._scores
        self._peak_memory_bytes = int(result.peak_memory_bytes)

    def _trial(self, status: str, error: str, device_seconds: float) -> Trial:
        claim = self._claim
        usable = status in ("completed", "pruned")
        return Trial(
            number=claim.number,
            status=status,
            hyperparameters=claim.hyperparameters,
            seed=claim.seed,
            score=max(self._scores) if usable else None,
            scores=self._scores,
            epochs=len(self._scores),
            device_seconds=claim.spent_seconds + device_seconds,
            wall_seconds=self._clock() - claim.claimed,
            peak_memory_bytes=self._peak_memory_bytes,
            worker=claim.worker,
            attempts=claim.term,
            based_on=claim.based_on,
            error=error[:1000],
            reused_from=claim.reused_from,
            out_of_budget=self._out_of_budget,
        )


def _finite(scores: tuple[float, ...]) -> tuple[float, ...]:
    """Return the scores before the first NaN or infinity."""
    kept = []
    for score in scores:
        if not math.isfinite(score):
            break
        kept.append(float(score))
    return tuple(kept)
