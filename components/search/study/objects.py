"""What a store says of a study's trials: the names of the objects, and a mirror that reads each immutable one once."""

import json
import re
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from components.errors import DataError
from components.search.trial import Trial
from components.stores import ObjectNotFoundError, Store

SPEC, REUSED, TRIALS, REPLICATES = "spec.json", "reused.json", "trials/", "replicates"
_KEY = re.compile(
    r"trials/(\d{5,})/(?:(params|result)\.json|(claim|heartbeat|fault)\.(\d{4,})(?:\.json)?|checkpoints/(.+))"
)
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


def encode(values: dict[str, Any]) -> bytes:
    """Return JSON with a nonce of its own, so that no two objects are alike."""
    return json.dumps({**values, "nonce": values.get("nonce") or uuid.uuid4().hex}, allow_nan=False).encode()


def decode(data: bytes, key: str) -> dict[str, Any]:
    """Return the values of an object; raise `DataError` where it is not one of ours."""
    try:
        values = json.loads(data)
        if not isinstance(values, dict):
            raise ValueError("not an object")
        return values
    except ValueError as error:
        raise DataError(
            f"{key} must be a JSON object of a study; got {error}. Remove the study or name another"
        ) from error


@dataclass
class TrialRecord:
    """The objects of one trial.

    Attributes:
        number: Of the trial.
        params: Content of `params.json`.
        term: Number of the highest claim; 0 without one.
        claim: Its content.
        heartbeat: Content of the newest heartbeat, which may be of a former term; None before the first.
        result: Content of `result.json`; None while there is none.
        checkpoints: Keys of checkpoint objects.
        faults: Claims under which the device broke.
    """

    number: int
    params: dict[str, Any] = field(default_factory=dict)
    term: int = 0
    claim: dict[str, Any] = field(default_factory=dict)
    heartbeat: dict[str, Any] | None = None
    result: dict[str, Any] | None = None
    checkpoints: list[str] = field(default_factory=list)
    faults: set[int] = field(default_factory=set)

    @property
    def is_released(self) -> bool:
        """True once the owner gave the trial back."""
        return self.beat is not None and bool((self.heartbeat or {}).get("released"))

    @property
    def deaths(self) -> int:
        """How many owners died on it, were its present one dead; those that gave it back do not count."""
        return self.claim.get("deaths", 0) + (not self.is_released)

    @property
    def beat(self) -> int | None:
        """Count of the owner's heartbeats; None before its first."""
        return self.heartbeat["beat"] if self.heartbeat and self.heartbeat["epoch"] == self.term else None

    @property
    def device_seconds(self) -> float:
        """Device time of all attempts, as far as it is known."""
        if self.result is not None:
            return self.result["device_seconds"]
        return self.heartbeat["device_seconds"] if self.heartbeat else 0.0

    def trial(self) -> Trial:
        """Return the trial as every later step reads it."""
        shared = {
            "number": self.number,
            "hyperparameters": self.params["hyperparameters"],
            "seed": self.params["seed"],
            "based_on": tuple(self.params["based_on"]),
            "reused_from": self.params["reused_from"],
        }
        if self.result is not None:
            kept = {key: value for key, value in self.result.items() if key != "nonce"}
            return Trial(**{**kept, **shared, "scores": tuple(kept["scores"])})
        scores = tuple(self.heartbeat["scores"]) if self.heartbeat else ()
        return Trial(
            **shared,
            status="running" if self.term else "waiting",
            score=max(scores, default=None),
            scores=scores,
            epochs=len(scores),
            device_seconds=self.device_seconds,
            worker=self.claim.get("worker", ""),
            attempts=max(self.term, 1),
        )


class Records:
    """A mirror of a study's trials; immutable objects are read once, heartbeats of unfinished trials each time.

    Attributes:
        trials: By number, ascending. Replaced as a whole, so that a thread may read it while another renews it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.trials: dict[int, TrialRecord] = {}

    def refresh(self, store: Store) -> None:
        """Read what is new. State is a set of objects, so no order matters: not of time, of listing or of names."""
        listed: dict[int, TrialRecord] = {}
        for key in store.list(TRIALS):
            match = _KEY.fullmatch(key)
            if match is None:
                continue
            known = self.trials.get(int(match[1])) or TrialRecord(int(match[1]))
            record = listed.setdefault(
                known.number, TrialRecord(known.number, params=known.params, result=known.result)
            )
            if match[2] == "params" and not record.params:
                record.params = {"unread": key}
            elif match[2] == "result" and record.result is None:
                record.result = {"unread": key}
            elif match[3] == "claim" and int(match[4]) > record.term:
                record.term = int(match[4])
                record.claim = known.claim if record.term == known.term and known.claim else {"unread": key}
            elif match[3] == "heartbeat" and (record.heartbeat is None or key > record.heartbeat["unread"]):
                record.heartbeat = {"unread": key}
            elif match[3] == "fault":
                record.faults.add(int(match[4]))
            elif match[5]:
                record.checkpoints.append(key)
        for record in listed.values():
            if record.result is not None:  # how a finished trial came about is nobody's business any more
                record.heartbeat, record.claim = None, {}
        wanted = [
            (record, name, part["unread"])
            for record in listed.values()
            for name in ("params", "claim", "heartbeat", "result")
            if (part := getattr(record, name)) and "unread" in part
        ]
        for (record, name, _), values in zip(wanted, _read(store, [key for *_, key in wanted]), strict=True):
            setattr(record, name, values if values is not None or name in ("heartbeat", "result") else {})
        with self._lock:
            for number, known in self.trials.items():
                # Written by this process after the listing began.
                record = listed.setdefault(number, known)
                record.result = record.result or known.result
                if known.term > record.term:
                    record.term, record.claim = known.term, known.claim
            self.trials = {number: record for number, record in sorted(listed.items()) if record.params}

    def add(self, record: TrialRecord) -> None:
        """Note a trial that this process created."""
        with self._lock:
            self.trials = {**self.trials, record.number: record}


def _read(store: Store, keys: list[str]) -> list[dict[str, Any] | None]:
    """Return the values of each object; None for one that was collected since the listing."""

    def read(key: str) -> dict[str, Any] | None:
        try:
            return decode(store.read(key), f"{store.uri}/{key}")
        except ObjectNotFoundError:
            return None

    if len(keys) <= _READERS:
        return [read(key) for key in keys]
    with ThreadPoolExecutor(_READERS) as pool:
        return list(pool.map(read, keys))
