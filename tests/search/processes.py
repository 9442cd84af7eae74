"""Toy workers as processes of their own, forked from a server that has the imports done, and a reader that trusts nobody."""

import json
import multiprocessing
import os
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    [
        "tests.search.processes",
        "tests.search.steps_to_kill",
        "components.search.worker.worker",
        "components.search.samplers.skopt",
    ]
)


def start(target: Any, arguments: tuple) -> multiprocessing.Process:
    """Start a process of the fork server."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(ROOT)
    try:
        process = _context.Process(target=target, args=arguments)
        process.start()
    finally:
        os.environ.pop("PYTHONPATH")
        if before is not None:
            os.environ["PYTHONPATH"] = before
    return process


def start_worker(study_root: str, log_dir: Path, **options: Any) -> multiprocessing.Process:
    """Start a worker on the study `toy`; see `_work` for the options."""
    log_dir.mkdir(parents=True, exist_ok=True)
    return start(_work, (study_root, str(log_dir), options))


def run_worker(study_root: str, log_dir: Path, **options: Any) -> int:
    """Run a worker to its end; return its exit code, negative for a signal."""
    process = start_worker(study_root, log_dir, **options)
    return finish(process)


def finish(process: multiprocessing.Process, seconds: float = 60.0) -> int:
    """Wait for a worker; return its exit code."""
    process.join(seconds)
    if process.is_alive():
        process.kill()
        process.join()
        raise AssertionError("worker must end; it hung")
    code = process.exitcode
    process.close()
    return code


def _work(study_root: str, log_dir: str, options: dict[str, Any]) -> None:
    """Be a worker.

    Options:
        environment: Variables to set.
        algorithm: Of scikit-optimize, searched with in place of the toy sampler.
        settings: Changes to the toy settings.
        timing: Changes to the toy timing.
        epoch_seconds: Of the toy.
        name: Of the worker.
        knows_processes: Whether it may look which processes of this machine live.
        faults: Of the toy, by trial number: `diverge`, `oom`, `bug`, `kill`, or `wait:<path>`.
        wall_offset: Seconds that this worker's wall clock is off.
        patience: Seconds of the store: `deadline`, `beats` (deadline of heartbeats), `call` (time-outs), `pause` (longest
            between two tries).
    """
    os.environ.update(options.get("environment", {}))
    import dataclasses
    import logging
    import time

    from components import failpoints
    from components.errors import FashionTuningError
    from components.search.study import study as study_module
    from components.search.worker import worker
    from tests.search import toy

    logging.basicConfig(filename=f"{log_dir}/log.txt", level=logging.INFO)
    log = Path(log_dir)
    if algorithm := options.get("algorithm"):
        toy.APPROACH.APPROACH, toy.ALGORITHM = "resnet18", algorithm
    else:
        worker.make_sampler = toy.RandomSampler
    if not options.get("knows_processes", True):
        study_module.process_identity = dict
    if offset := options.get("wall_offset"):
        real_time = time.time
        time.time = lambda: real_time() + offset
    if patience := options.get("patience"):
        _scale(worker, patience)
    toy.ToyTrainer.epoch_seconds = options.get("epoch_seconds", 0.0)
    toy.ToyTrainer.faults = {n: _fault(f) for n, f in options.get("faults", {}).items()}
    real_accept, real_fit = study_module.Study._accept, toy.ToyTrainer.fit

    def accept(study, trial):
        accepted = real_accept(study, trial)
        append(log / "oracle", {"number": accepted.number, "score": accepted.score, "status": accepted.status})
        return accepted

    def fit(trainer, hyperparameters, *, seed, on_epoch, **others):
        append(log / "fits", {"number": seed, "pid": os.getpid(), "time": time.monotonic()})

        def watched(epoch, score, state):
            append(log / "epochs", {"number": seed, "epoch": epoch, "time": time.monotonic()})
            return on_epoch(epoch, score, state)

        return real_fit(trainer, hyperparameters, seed=seed, on_epoch=watched, **others)

    study_module.Study._accept, toy.ToyTrainer.fit = accept, fit
    code = 0
    try:
        worker.run_worker(
            study_root=study_root,
            name="toy",
            approach=toy.APPROACH,
            train_data=toy.train_data(),
            settings=toy.settings(**options.get("settings", {})),
            worker=options.get("name", "worker"),
            timing=dataclasses.replace(toy.QUICK, **options.get("timing", {})),
        )
    except FashionTuningError as error:
        append(log / "errors", {"error": str(error), "code": error.exit_code})
        code = error.exit_code
    append(log / "passed", failpoints.passed())
    os._exit(code)


def _scale(worker: Any, patience: dict[str, float]) -> None:
    """Set the figures of the store's patience, not its logic."""
    import functools

    from components.search.worker import heartbeat
    from components.stores import bucket, retrying, s3

    worker.open_store = functools.partial(worker.open_store, deadline_seconds=patience["deadline"])
    heartbeat.DEADLINE_SECONDS = patience["beats"]
    bucket.SECONDS = patience["call"]
    retrying.LONGEST_SECONDS = patience["pause"]
    retrying.LEAST_SECONDS = min(retrying.LEAST_SECONDS, patience["call"])
    s3._STEPS = (patience["call"], *s3._STEPS)


def _fault(text: str) -> Any:
    if text == "kill":
        return lambda epoch: os.kill(os.getpid(), 9)  # noqa: ARG005
    if text.startswith("wait:"):
        return lambda epoch: _wait_for(Path(text[5:]))  # noqa: ARG005
    return text


def _wait_for(path: Path) -> None:
    import time

    end = time.monotonic() + 30
    while not path.exists() and time.monotonic() < end:
        time.sleep(0.01)


def append(path: Path, values: dict[str, Any]) -> None:
    """Add a line to a file outside the store, whole or not at all."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(descriptor, json.dumps(values).encode() + b"\n")
    os.close(descriptor)


def lines(path: Path) -> list[dict[str, Any]]:
    """Return what `append` wrote; nothing where the file is absent."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def problems(
    objects: dict[str, bytes], log_dir: Path, *, trials: int, kills: int, expected: dict[int, Any]
) -> list[str]:
    """Return what is wrong with a finished study; reads raw objects and the workers' own notes, no code of the study's.

    Args:
        objects: Content by key under the study.
        log_dir: Of the workers.
        trials: The budget.
        kills: How many workers were killed.
        expected: Hyperparameters by number of an uninterrupted run.
    """
    found = []
    load = {key: json.loads(data) for key, data in objects.items() if key.endswith(".json")}
    results = {int(key.split("/")[1]): value for key, value in load.items() if key.endswith("/result.json")}
    params = {int(key.split("/")[1]): value for key, value in load.items() if key.endswith("/params.json")}
    if sorted(results) != list(range(trials)) or sorted(params) != list(range(trials)):
        found.append(f"I4 results {sorted(results)} and params {sorted(params)} of {trials} trials")
    for line in lines(log_dir / "oracle"):
        accepted = results.get(line["number"], {})
        if (accepted.get("score"), accepted.get("status")) != (line["score"], line["status"]):
            found.append(f"I1 acknowledged {line} is lost; the study has {accepted}")
    for number, result in results.items():
        if result["hyperparameters"] != params[number]["hyperparameters"]:
            found.append(f"I3 trial {number} was trained with other parameters")
        if expected and result["hyperparameters"] != expected[number]:
            found.append(f"I8 trial {number} differs from the uninterrupted run")
    fits = [line["number"] for line in lines(log_dir / "fits")]
    if len(fits) - len(set(fits)) > kills:
        found.append(f"I2 trials repeated {len(fits) - len(set(fits))} times after {kills} kills: {fits}")
    epochs = [(line["number"], line["epoch"]) for line in lines(log_dir / "epochs")]
    if len(epochs) - len(set(epochs)) > kills:
        found.append(f"I2 {len(epochs) - len(set(epochs))} epochs repeated after {kills} kills")
    left = [key for key in objects if "checkpoints/" in key or ".tmp-" in key]
    if left:
        found.append(f"I6 left behind: {left}")
    return found
