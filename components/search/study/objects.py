"""The names of a study's objects in its store, and a mirror of its trials that reads each immutable object once."""

import dataclasses
import json
import re
import threading
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from components.errors import DataError
from components.search.shapes import misfit
from components.search.study.records import ClaimRecord, HeartbeatRecord, ParamsRecord
from components.search.trial import Trial
from components.stores import ObjectNotFoundError, Store

SPEC, REUSED, TRIALS, REPLICATES = "spec.json", "reused.json", "trials/", "replicates"
_KEY = re.compile(
    r"trials/(\d{5,})/(?:(params|result)\.json|(claim|heartbeat|fault)\.(\d{4,})(?:\.json)?|checkpoints/(.+))"
)
_KINDS = {"params": ParamsRecord, "claim": ClaimRecord, "heartbeat": HeartbeatRecord, "result": Trial}
_READERS = 8


def params_key(number: int) -> str:
    """Return the key of what a trial tries."""
    return f"trials/{number:05d}/params.json"


def claim_key(number: int, term: int) -> str:
    """Return the key of the claim of a term; the number in the name is the fencing token."""
    return f"trials/{number:05d}/claim.{term:04d}.json"


def heartbeat_key(number: int, term: int) -> str:
    """Return the key of a claim's heartbeat, the one object that is overwritten."""
    return f"trials/{number:05d}/heartbeat.{term:04d}"


def fault_key(number: int, term: int) -> str:
    """Return the key of the note that the device broke during a term."""
    return f"trials/{number:05d}/fault.{term:04d}.json"


def result_key(number: int) -> str:
    """Return the key of the accepted result."""
    return f"trials/{number:05d}/result.json"


def checkpoints_key(number: int) -> str:
    """Return the prefix of a trial's checkpoints."""
    return f"trials/{number:05d}/checkpoints"


def encode(values: Mapping[str, Any]) -> bytes:
    """Return JSON with a nonce of its own, so that no two objects are alike."""
    return json.dumps({**values, "nonce": values.get("nonce") or uuid.uuid4().hex}, allow_nan=False).encode()


def decode(data: bytes, key: str, kind: Any = dict[str, Any]) -> dict[str, Any]:
    """Return the values of an object; raise `DataError` if it is not JSON of a study.

    Args:
        data: The object.
        key: Its place, for the message.
        kind: The record that it must be.
    """
    try:
        values = json.loads(data)
        if problem := misfit(values, kind):
            raise ValueError(problem)
        return values
    except ValueError as error:
        raise DataError(
            f"{key} must be a JSON object of a study; got {error}. Remove the study or name another"
        ) from error


@dataclass
class TrialRecord:
    """The objects of one trial.

    Attributes:
        number: Number of the trial.
        params: Content of `params.json`.
        term: Number of the highest claim; 0 without one.
        claim: Content of that claim; None if it was not read, or the trial is finished.
        heartbeat: Content of the newest heartbeat, which may be of a former term; None before the first.
        result: Content of `result.json`; None while there is none.
        checkpoints: Keys of checkpoint objects.
        faults: Terms in which the device broke.
    """

    number: int
    params: ParamsRecord
    term: int = 0
    claim: ClaimRecord | None = None
    heartbeat: HeartbeatRecord | None = None
    result: Trial | None = None
    checkpoints: list[str] = field(default_factory=list)
    faults: set[int] = field(default_factory=set)

    @property
    def is_released(self) -> bool:
        """True once the owner gave the trial back."""
        return self.beat is not None and self.heartbeat is not None and self.heartbeat["released"]

    @property
    def is_leaving(self) -> bool:
        """True once the owner was told to end, whether or not it could give the trial back."""
        return self.beat is not None and self.heartbeat is not None and self.heartbeat.get("leaving", False)

    @property
    def deaths(self) -> int:
        """How many owners would have died on the trial if the present one is dead; those that were told to end do not count."""
        return (self.claim.get("deaths", 0) if self.claim else 0) + (not (self.is_released or self.is_leaving))

    @property
    def beat(self) -> int | None:
        """Count of the owner's heartbeats; None before its first."""
        return self.heartbeat["beat"] if self.heartbeat and self.heartbeat["epoch"] == self.term else None

    @property
    def device_seconds(self) -> float:
        """Device time of all claims, as far as it is known."""
        if self.result is not None:
            return self.result.device_seconds
        return self.heartbeat["device_seconds"] if self.heartbeat else 0.0

    def trial(self) -> Trial:
        """Return the trial as every later step reads it."""
        params, based_on = self.params, tuple(self.params["based_on"])
        if self.result is not None:
            return dataclasses.replace(
                self.result,
                number=self.number,
                hyperparameters=params["hyperparameters"],
                seed=params["seed"],
                based_on=based_on,
                reused_from=params["reused_from"],
            )
        scores = tuple(self.heartbeat["scores"]) if self.heartbeat else ()
        return Trial(
            number=self.number,
            hyperparameters=params["hyperparameters"],
            seed=params["seed"],
            based_on=based_on,
            reused_from=params["reused_from"],
            status="running" if self.term else "waiting",
            score=max(scores, default=None),
            scores=scores,
            epochs=len(scores),
            device_seconds=self.device_seconds,
            worker=self.claim["worker"] if self.claim else "",
            attempts=max(self.term, 1),
        )


@dataclass
class _Listing:
    """Which objects a trial has in the store.

    Attributes:
        keys: Keys of `params`, `result`, the newest `claim` and the newest `heartbeat`, as far as they exist.
        term: Number of the newest claim; 0 without one.
        checkpoints: Keys of checkpoint objects.
        faults: Terms in which the device broke.
    """

    keys: dict[str, str] = field(default_factory=dict)
    term: int = 0
    checkpoints: list[str] = field(default_factory=list)
    faults: set[int] = field(default_factory=set)

    def add(self, key: str, match: re.Match[str]) -> None:
        """Note an object by its key and the match of `_KEY`."""
        whole, kind, term, checkpoint = match[2], match[3], int(match[4] or 0), match[5]
        if whole:
            self.keys[whole] = key
        elif kind == "claim" and term > self.term:
            self.term, self.keys["claim"] = term, key
        elif kind == "heartbeat" and key > self.keys.get("heartbeat", ""):
            self.keys["heartbeat"] = key
        elif kind == "fault":
            self.faults.add(term)
        elif checkpoint:
            self.checkpoints.append(key)

    def unread(self, known: TrialRecord | None) -> list[str]:
        """Return the keys of the objects to read, given what is known of the trial."""
        needed = {"params", "result"} if known is None else {"result"} if known.result is None else set()
        if "result" not in self.keys:  # claims and heartbeats of a finished trial are of no use
            is_known = known is not None and known.claim is not None and known.term == self.term
            needed |= {"heartbeat"} if is_known else {"heartbeat", "claim"}
        return [key for part, key in self.keys.items() if part in needed]

    def record(self, number: int, known: TrialRecord | None, contents: Mapping[str, Any]) -> TrialRecord | None:
        """Return the trial from what was read and what is known; None without `params.json`."""
        parts = {part: contents.get(key) for part, key in self.keys.items()}
        params = known.params if known else parts.get("params")
        if params is None:
            return None
        result = known.result if known else None
        if result is None and (row := parts.get("result")) is not None:
            result = Trial.from_json(row)
        record = TrialRecord(number, params, self.term, result=result, checkpoints=self.checkpoints, faults=self.faults)
        if "result" not in self.keys:
            record.heartbeat = parts.get("heartbeat")
            record.claim = parts.get("claim") or (known.claim if known and known.term == self.term else None)
        if known:  # written by this process after the listing began
            record.result = record.result or known.result
            if known.term > record.term:
                record.term, record.claim = known.term, known.claim
        return record


class Records:
    """A mirror of a study's trials; immutable objects are read once, heartbeats of unfinished trials each time.

    Attributes:
        trials: By number, ascending. Replaced as a whole, so that a thread may read it while another renews it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.trials: dict[int, TrialRecord] = {}

    def refresh(self, store: Store) -> None:
        """Read what is new. A study's state is the set of its objects: the order in which they are listed does not matter."""
        known = self.trials
        listings: dict[int, _Listing] = {}
        for key in store.list(TRIALS):
            if match := _KEY.fullmatch(key):
                listings.setdefault(int(match[1]), _Listing()).add(key, match)
        unread = [key for number, listing in listings.items() for key in listing.unread(known.get(number))]
        contents = dict(zip(unread, _read(store, unread), strict=True))
        with self._lock:
            records = dict(self.trials)
            for number, listing in listings.items():
                record = listing.record(number, self.trials.get(number), contents)
                if record is not None:
                    records[number] = record
            self.trials = dict(sorted(records.items()))

    def add(self, record: TrialRecord) -> None:
        """Note a trial that this process created."""
        with self._lock:
            self.trials = {**self.trials, record.number: record}


def _kind(key: str) -> Any:
    match = _KEY.fullmatch(key)
    return _KINDS.get(match[2] or match[3], dict[str, Any]) if match else dict[str, Any]


def _read(store: Store, keys: list[str]) -> list[dict[str, Any] | None]:
    """Return the values of each object; None for one that was collected since the listing."""

    def read(key: str) -> dict[str, Any] | None:
        try:
            return decode(store.read(key), f"{store.uri}/{key}", _kind(key))
        except ObjectNotFoundError:
            return None

    if len(keys) <= _READERS:
        return [read(key) for key in keys]
    with ThreadPoolExecutor(_READERS) as pool:
        return list(pool.map(read, keys))
