"""A study: any number of workers share trials through a store, and nothing that was finished is lost.

The protocol needs one primitive, create-if-absent. `params.json` fixes what a trial tries, `claim.<term>.json` who
works on it, `result.json` what came of it; each is written once, and the first writer wins. Two workers on one trial
waste time but do no harm: parameters and seed are fixed, so their results are interchangeable.
"""

import dataclasses
import logging
import time
import uuid
from collections.abc import Callable
from typing import Any, Self, TypedDict, cast

from components.errors import DataError, FashionTuningError, PermissionDeniedError
from components.failpoints import failpoint
from components.models.faults import first_line
from components.models.space import Space, Value
from components.search.study import objects as names
from components.search.study import records
from components.search.study.checkpoints import Checkpoints
from components.search.study.claims import MAX_ATTEMPTS, Claim, Liveness, Timing, is_gone, process_identity
from components.search.study.objects import Records, TrialRecord, decode, encode
from components.search.study.spec import SCHEMA, StudySpec, refuse_another
from components.search.trial import Ledger, SpecRecord, Trial, trial_seed
from components.stores import ObjectNotFoundError, Store

log = logging.getLogger(__name__)

STORE_SHARE = 0.01
"""At most this share of a worker's time is spent on reading what the other workers did."""


class _Reused(TypedDict):
    """`reused.json` with what each trial in it must have."""

    told: list[Trial]
    seeds: list[dict[str, Value]]
    origins: list[str]


Suggest = Callable[[int, Ledger], records.Suggestion]
"""Gives what a new trial shall try, from its number and the ledger."""


class Study:
    """One study in a store. Made by `create_or_open` and `open`.

    Attributes:
        name: Under the study root.
        spec: Content of `spec.json` without its nonce.
        store: The study's own store.
        timing: How patient it is.
    """

    def __init__(self, store: Store, name: str, spec: SpecRecord, timing: Timing) -> None:
        self.name = name
        self.spec = spec
        self.store = store
        self.timing = timing
        self._records = Records()
        self._liveness = Liveness(2 * timing.beat_seconds)
        self._gone: set[tuple[int, int]] = set()
        self._renewed: tuple[float, float] | None = None
        self._reused: tuple[Trial, ...] | None = None

    @classmethod
    def create_or_open(cls, root: Store, name: str, spec: StudySpec, *, timing: Timing | None = None) -> Self:
        """Create a study, or attach to one that was asked to do the same.

        Raises:
            ParameterError: The name holds a study with another spec; the error lists what differs.
        """
        wanted = spec.to_json()
        (root / name).create(names.SPEC, encode(wanted))
        study = cls.open(root, name, timing=timing)
        refuse_another(f"study {root.uri}/{name}", wanted, study.spec)
        return study

    @classmethod
    def open(cls, root: Store, name: str, *, timing: Timing | None = None) -> Self:
        """Open a study that exists; raise `DataError` where there is none."""
        store = root / name
        try:
            content, place = store.read(names.SPEC), f"{store.uri}/{names.SPEC}"
            spec = decode(content, place)
        except ObjectNotFoundError as error:
            raise DataError(
                f"study {store.uri} must exist; got no {names.SPEC} there. Check its name and the study root"
            ) from error
        if spec.get("schema") not in range(1, SCHEMA + 1):
            raise DataError(
                f"study {store.uri} must have schema 1 to {SCHEMA}; got {spec.get('schema')!r}. Use the version it was made with"
            )
        decode(content, place, SpecRecord)  # not before: another schema may have other fields
        try:
            Space.from_json(spec["space"])
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"{place} must have a search space; got {error!r}. Remove the study or name another"
            ) from error
        without_nonce = {key: value for key, value in spec.items() if key != "nonce"}
        return cls(store, name, cast(SpecRecord, without_nonce), timing or Timing())

    def refresh(self, store: Store | None = None) -> None:
        """Read what other workers did meanwhile, through the study's own store or `store`, which is the same with another deadline."""
        start = self.timing.clock()
        # Looked up before the records: a process that ended after the listing may have posted its result meanwhile.
        gone = {(r.number, r.term) for r in self._unfinished() if r.claim and is_gone(r.claim.get("process", {}))}
        self._records.refresh(store or self.store)
        self._gone = gone
        end = self.timing.clock()
        for record in self._unfinished():
            self._liveness.observe(record.number, record.term, record.beat, start, end)
        self._renewed = (end, end - start)

    def is_due(self) -> bool:
        """Return whether a refresh would now cost no more than `STORE_SHARE` of the time."""
        if self._renewed is None:
            return True
        at, cost = self._renewed
        return self.timing.clock() - at >= min(cost / STORE_SHARE, 2 * self.timing.beat_seconds)

    def refresh_if_due(self) -> bool:
        """Refresh where that is due; return whether it did."""
        if not self.is_due():
            return False
        self.refresh()
        return True

    @property
    def space(self) -> Space:
        """The search space."""
        return Space.from_json(self.spec["space"])

    @property
    def pause_seconds(self) -> float:
        """How long to wait before the next refresh, so that refreshes cost at most `STORE_SHARE` of the time."""
        _, cost = self._renewed or (0.0, 0.0)
        return min(max(cost / STORE_SHARE, 0.05), self.timing.poll_seconds)

    def ledger(self) -> Ledger:
        """Return the study as it is now, read anew."""
        self.refresh()
        return self.snapshot()

    def snapshot(self) -> Ledger:
        """Return the study as of the last refresh."""
        if self._reused is None:
            self._reused = self._read_reused()
        trials = tuple(record.trial() for record in self._records.trials.values())
        return Ledger(name=self.name, spec=self.spec, trials=trials, reused=self._reused or ())

    def is_finished(self) -> bool:
        """Return whether no trial is left to start, run or take over, as of now."""
        self.refresh()
        return self._is_finished()

    def _is_finished(self) -> bool:
        if self.is_stopped():
            return True
        unfinished = self._unfinished()
        if self.is_used_up():
            return not any(record.term for record in unfinished)
        return len(self._records.trials) >= self.spec["trials"] and not unfinished

    def is_stopped(self) -> bool:
        """Return whether too many trials failed, as of the last refresh."""
        failed = sum(r.result is not None and r.result.status == "failed" for r in self._records.trials.values())
        return failed > max(1, self.spec["max_failed_fraction"] * self.spec["trials"])

    def is_used_up(self, claim: Claim | None = None, device_seconds: float = 0.0) -> bool:
        """Return whether the device-minutes are gone, as of the last refresh.

        Running trials are taken to have gone on since their last heartbeat.

        Args:
            claim: The calling worker's own claim, of which it knows more than the store does.
            device_seconds: Device time of this claim so far.
        """
        now, spent = self.timing.clock(), 0.0
        for record in self._records.trials.values():
            if claim is not None and record.number == claim.number:
                spent += claim.spent_seconds + device_seconds
                continue
            spent += record.device_seconds
            if record.result is None and record.term and not record.is_released:
                silent = self._liveness.silent_seconds(record.number, record.term, now)
                spent += min(silent, self._patience(record))
        return spent >= 60 * self.spec["minutes"]

    def silent_seconds(self, trial: Trial) -> float:
        """Return for how long a running trial's heartbeat has not changed, as of now; 0 for any other."""
        record = self._records.trials.get(trial.number)
        if record is None or record.result is not None or not record.term:
            return 0.0
        return self._liveness.silent_seconds(record.number, record.term, self.timing.clock())

    def _unfinished(self) -> list[TrialRecord]:
        return [record for record in self._records.trials.values() if record.result is None]

    def claim_next(self, worker: str, suggest: Suggest) -> Claim | None:
        """Claim the lowest trial that no worker trains, else a new one within the budget.

        Args:
            worker: Name of the claimant.
            suggest: Called for a new trial.

        Returns:
            The claim; None where others work on everything that is left, or nothing is left.
        """
        self.refresh_if_due()
        while not self.is_stopped():
            failpoint("before-claim")
            for record in self._unfinished():
                if claim := self._claim_known(record, worker):
                    return claim
            if self.is_used_up() or len(self._records.trials) >= self.spec["trials"]:
                return None
            number = max(self._records.trials, default=-1) + 1
            ledger = self.snapshot()
            hyperparameters, reused_from = suggest(number, ledger)
            params: records.ParamsRecord = {
                "hyperparameters": hyperparameters,
                "seed": trial_seed(self.spec["seed"], number),
                "based_on": [t.number for t in ledger.trials if t.is_finished],
                "reused_from": reused_from,
                "worker": worker,
            }
            if self.store.create(names.params_key(number), encode(params)):
                record = TrialRecord(number, params=params)
                self._records.add(record)
                if claim := self._claim(record, worker):
                    return claim
            self.refresh()
        return None

    def _patience(self, record: TrialRecord) -> float:
        """Return how long a claim's heartbeat may stay the same before its owner counts as gone, in seconds."""
        return self.timing.term_seconds if record.is_leaving else self.timing.ttl_seconds

    def _claim_known(self, record: TrialRecord, worker: str) -> Claim | None:
        """Claim a trial that was never claimed or whose owner is gone; None while it lives."""
        if record.term == 0:
            return None if self.is_used_up() else self._claim(record, worker)
        gone = record.is_released or (record.number, record.term) in self._gone
        if not gone and not self._liveness.is_stale(record.number, record.term, self._patience(record)):
            return None
        failpoint("stale")
        if record.deaths >= MAX_ATTEMPTS:
            self._give_up(record, f"worker died {record.deaths} times")
            return None
        if len(record.faults) >= MAX_ATTEMPTS:
            self._give_up(record, f"the device broke {len(record.faults)} times, though it could train the defaults")
            return None
        return self._claim(record, worker)

    def _claim(self, record: TrialRecord, worker: str) -> Claim | None:
        term, nonce = record.term + 1, uuid.uuid4().hex
        body: records.ClaimRecord = {
            "nonce": nonce,
            "worker": worker,
            "process": process_identity(),
            "started": time.time(),
            "deaths": record.deaths if record.term else 0,
        }
        won = self.store.create(names.claim_key(record.number, term), encode(body))
        failpoint("claim-sent")
        record.term, record.claim = term, body if won else None
        if not won:
            return None
        if term > 1:
            log.info("trial %d: taken over, attempt %d", record.number, term)
            failpoint("taken-over")
        failpoint("claimed")
        return Claim(
            number=record.number,
            term=term,
            nonce=nonce,
            worker=worker,
            hyperparameters=record.params["hyperparameters"],
            seed=record.params["seed"],
            based_on=tuple(record.params["based_on"]),
            reused_from=record.params["reused_from"],
            spent_seconds=record.device_seconds,
            faults=len(record.faults),
            claimed=self.timing.clock(),
        )

    def _give_up(self, record: TrialRecord, error: str) -> None:
        """Record as failed a trial under which too many workers died or too many devices broke."""
        trial = dataclasses.replace(record.trial(), status="failed", score=None, error=error)
        self._accept(trial)
        log.warning("trial %d: failed: %s", record.number, trial.error)

    def owns(self, claim: Claim) -> bool:
        """Return whether the claim is still the trial's newest and the trial has no result, as of the last refresh."""
        record = self._records.trials.get(claim.number)
        return record is None or (record.term <= claim.term and record.result is None)

    def beat(
        self,
        claim: Claim,
        count: int,
        scores: tuple[float, ...],
        device_seconds: float,
        *,
        store: Store,
        released: bool = False,
        leaving: bool = False,
    ) -> None:
        """Overwrite the claim's heartbeat.

        Args:
            claim: The claim whose heartbeat it is.
            count: Higher each time.
            scores: Validation accuracy after each epoch so far.
            device_seconds: Device time of this claim so far.
            store: The study's store with a deadline fit for heartbeats.
            released: The owner gives the trial back, so that another need not wait.
            leaving: The owner was told to end: others need not wait for long, and its end is no death.
        """
        body: records.HeartbeatRecord = {
            "beat": count,
            "epoch": claim.term,
            "scores": list(scores),
            "device_seconds": claim.spent_seconds + device_seconds,
            "released": released,
            "leaving": leaving,
            "nonce": claim.nonce,
        }
        store.write(names.heartbeat_key(claim.number, claim.term), encode(body))

    def note_fault(self, claim: Claim, error: BaseException) -> None:
        """Note that the device broke under a claim, for the worker that takes the trial over."""
        body: records.FaultRecord = {"worker": claim.worker, "error": f"{type(error).__name__}: {first_line(error)}"}
        try:
            self.store.create(names.fault_key(claim.number, claim.term), encode(body))
        except FashionTuningError as unsaid:
            log.warning("trial %d: fault could not be noted: %s", claim.number, unsaid)

    def anticipate(self, trial: Trial) -> None:
        """Add a result to the mirror before it is posted, so that the next suggestion takes it into account."""
        self._records.add(dataclasses.replace(self._records.trials[trial.number], result=trial))

    def finish(self, trial: Trial) -> Trial:
        """Post the result of a claimed trial; return the accepted one, which another worker may have posted before."""
        accepted = self._accept(trial)
        if accepted is not trial:
            log.info("trial %d: already done by %s", trial.number, accepted.worker)
        return accepted

    def _accept(self, trial: Trial) -> Trial:
        key = names.result_key(trial.number)
        won = self.store.create(key, encode(dataclasses.asdict(trial)))
        failpoint("result-sent")
        result = trial if won else Trial.from_json(decode(self.store.read(key), key, Trial))
        record = dataclasses.replace(self._records.trials[trial.number], result=result)
        self._records.add(record)
        return trial if won else record.trial()

    def checkpoints(self, part: str, *, writer: str = "", binding: dict[str, Any] | None = None) -> Checkpoints:
        """Return the checkpoints of a part of the study, for example `replicates/17`, bound to the study's spec."""
        return Checkpoints(
            self.store / part, writer=writer, binding={"spec": self.spec, "part": part, **(binding or {})}
        )

    def trial_checkpoints(self, claim: Claim) -> Checkpoints:
        """Return the checkpoints of a claimed trial, those of its former owners included."""
        return self.checkpoints(
            names.checkpoints_key(claim.number),
            writer=f"{claim.term:04d}",
            binding={"hyperparameters": claim.hyperparameters, "seed": claim.seed},
        )

    def reuse(self, find: Callable[[], records.ReusedRecord]) -> records.ReusedRecord:
        """Return what a warm start found; the first worker's answer is kept and holds for all of them.

        Args:
            find: Looks through the earlier studies.
        """
        try:
            values = self._decode_reused()
        except ObjectNotFoundError:
            self.store.create(names.REUSED, encode(find()))
            values = self._decode_reused()
        return cast(records.ReusedRecord, values)

    def _decode_reused(self) -> dict[str, Any]:
        return decode(self.store.read(names.REUSED), f"{self.store.uri}/{names.REUSED}", _Reused)

    def _read_reused(self) -> tuple[Trial, ...] | None:
        try:
            rows = self._decode_reused()["told"]
        except ObjectNotFoundError:
            return None if self.spec["warm_start"] else ()
        return tuple(Trial.from_json(row) for row in rows)

    def collect(self, min_age_seconds: float = 7 * 86400.0) -> None:
        """Delete the checkpoints of finished trials and what killed writers left behind, where the store permits it.

        The checkpoints of a trial that ended only because of the budget stay.

        Args:
            min_age_seconds: Age that temporary files must have, which a slow writer may still hold.
        """
        self.refresh()
        try:
            for record in self._records.trials.values():
                if record.result is not None and not record.result.out_of_budget:
                    for key in sorted(record.checkpoints, key=lambda key: not key.endswith("manifest.json")):
                        self.store.delete(key)
            self.store.sweep(min_age_seconds)
        except PermissionDeniedError as error:
            log.warning("checkpoints of finished trials are kept: %s", error)
