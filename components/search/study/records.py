"""These are the JSON objects of a study in its store, each with a nonce as well; docs/study.md describes the protocol."""

from typing import Any, NamedTuple, NotRequired, TypedDict

from components.models.space import Value


class ParamsRecord(TypedDict):
    """`params.json`: what a trial tries.

    Attributes:
        hyperparameters: Active values by name.
        seed: Seed of the training.
        based_on: Numbers of the finished trials that the suggestion was made from.
        reused_from: `<study>/<number>` where a warm start took the hyperparameters from; empty otherwise.
        worker: Who created the trial.
    """

    hyperparameters: dict[str, Value]
    seed: int
    based_on: list[int]
    reused_from: str
    worker: str


class ProcessIdentity(TypedDict, total=False):
    """What distinguishes a process from any other on its machine; empty where the system does not say.

    Attributes:
        host: Name of the machine.
        boot: Identifier of the machine's present boot.
        pids: The process namespace, in which `pid` counts.
        pid: Number of the process.
        started: Start time of the process in the kernel's clock ticks.
    """

    host: str
    boot: str
    pids: str
    pid: int
    started: str


class ClaimRecord(TypedDict):
    """`claim.<term>.json`: who works on a trial.

    Attributes:
        nonce: Names this claim among all.
        worker: Who holds it.
        process: The process that holds it.
        started: When it was claimed, in seconds since 1970 by the claimant's clock; for people only.
        deaths: How many earlier owners died on the trial.
    """

    nonce: str
    worker: str
    process: NotRequired[ProcessIdentity]
    started: NotRequired[float]
    deaths: NotRequired[int]


class HeartbeatRecord(TypedDict):
    """`heartbeat.<term>`: how far a trial is.

    Attributes:
        beat: Count of the owner's heartbeats.
        epoch: The claim's term, which versions before 0.2 called its epoch.
        scores: Validation accuracy after each epoch so far.
        device_seconds: Device time of all claims on the trial.
        released: Whether the owner gave the trial back.
        leaving: Whether the owner was told to end, and will have ended `Timing.term_seconds` later; versions before 0.2 do
            not say it.
        nonce: That of the claim.
    """

    beat: int
    epoch: int
    scores: list[float]
    device_seconds: float
    released: bool
    leaving: NotRequired[bool]
    nonce: str


class FaultRecord(TypedDict):
    """`fault.<term>.json`: the device broke during a term.

    Attributes:
        worker: Whose device it was.
        error: Type and first line of the exception.
    """

    worker: str
    error: str


class ReusedRecord(TypedDict):
    """`reused.json`: what a warm start took over from earlier studies.

    Attributes:
        told: Finished trials on the same data and space, as `Trial`'s fields.
        seeds: Hyperparameters that are suggested first, best first.
        origins: `<study>/<number>` of each of them.
    """

    told: list[dict[str, Any]]
    seeds: list[dict[str, Value]]
    origins: list[str]


class Suggestion(NamedTuple):
    """What a new trial shall try.

    Attributes:
        hyperparameters: Active values by name.
        reused_from: `<study>/<number>` where a warm start took them from; empty otherwise.
    """

    hyperparameters: dict[str, Value]
    reused_from: str
