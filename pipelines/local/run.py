"""`run` does the whole job without a cluster: kfp.local runs the compiled graph in a process that is watched from here."""

import os
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from components.approaches import APPROACHES
from components.data.sources.presence import check_source
from components.dataset_name import KAGGLE, SCHEMES, parse_dataset
from components.errors import DataError, FashionTuningError, ParameterError
from components.evaluation.kept import REPORT, SUMMARY, replace_results
from components.parameters import RunParameters
from components.plan import RUN_ID_VARIABLE
from components.runtime import COMMIT_VARIABLE, EVENTS_VARIABLE
from components.search.study.spec import asked_of, refuse_another
from components.search.study.study import Study
from components.stores import CHECK_SECONDS, open_store
from pipelines.interruption import ENDING, interrupted_once
from pipelines.local.folder import (
    LOCAL_RUN,
    collect,
    only_user_of,
    passes,
    read_settings,
    remove_unfinished,
    write_settings,
)
from pipelines.presets import Asked, default_parameters

ROOT = Path(__file__).resolve().parents[2]
STOP_SECONDS = 12.0
"""How long a stopped run may take to save what it has; workers promise 10 s."""


class RunEndedError(FashionTuningError):
    """The run ended early: a step failed with its own line and code, or it was stopped."""

    def __init__(self, code: int, message: str) -> None:
        self.exit_code = code
        super().__init__(message)


def run_here(asked: Asked, out: Path, *, containers: bool, message_format: str | None, debug: bool) -> float:
    """Run the pipeline on this machine, or go on with a run; its results are in its folder then.

    Args:
        asked: Its parameters; where nothing is asked, those of the first start.
        out: The run's folder.
        containers: Run each step in its image.
        message_format: How a webhook is told of the end; None where nobody is.
        debug: Keep tracebacks in the log.

    Returns:
        Seconds that it took.
    """
    from pipelines.local.notify import notifying

    # Wrong parameters are refused before the folder is made.
    checked = None if asked.is_nothing and read_settings(out) else _checked_parameters(asked, out)
    with only_user_of(out) as lock:
        first = read_settings(out)
        if first and checked is None:
            parameters, containers = first["parameters"], containers or first["containers"]
        else:
            parameters = checked or _checked_parameters(asked, out)
        run_id = _run_id(first, parameters["study_root"], out)
        if first and first["id"] == run_id:
            _refuse_another_search(parameters, run_id, out)
        parameters = _with_sample(parameters, asked, out)
        if first and first["moved"]:
            # kfp's cache names artifacts by their old paths: steps run again, trials do not.
            shutil.rmtree(out / "cache", ignore_errors=True)
        for earlier_pass in passes(out):
            remove_unfinished(earlier_pass)
        _compile(out, containers)
        settings = {"id": run_id, "parameters": parameters, "containers": containers}
        write_settings(out, settings, first["accepted"] if first else None)
        started = time.monotonic()
        try:
            with notifying(out, run_id, parameters["study_root"], message_format) if message_format else nullcontext():
                _run(out, run_id, parameters, debug, lock)
                replace_results({"id": run_id, "study_root": parameters["study_root"]}, out / SUMMARY, out / REPORT)
        except RunEndedError as error:
            is_refused = error.exit_code == ParameterError.exit_code
            if not first or first["accepted"]["parameters"] == parameters or not is_refused:
                raise
            write_settings(out, first["accepted"])
            raise RunEndedError(
                error.exit_code,
                f"{error}. {out} goes on with what it was started with; for anything else take another --out",
            ) from None
        write_settings(out, settings)
        return time.monotonic() - started


def _refuse_another_search(parameters: dict[str, Any], run_id: str, out: Path) -> None:
    """Raise `ParameterError` where a study of the run was asked for another search, before anything changes.

    Whether data or space are others, only the search step can tell.
    """
    root = open_store(parameters["study_root"], deadline_seconds=CHECK_SECONDS)
    remedy = (
        f"take another --out; with --set study_root={root.uri} and search_warm_start its studies begin with what these"
        f" found. Nothing in {out} was changed"
    )
    settings = RunParameters.from_dict(parameters).search
    for dataset in parameters["data_datasets"]:
        for approach in APPROACHES:
            name = f"{run_id}-{parse_dataset(dataset)[0]}-{approach}"
            try:
                spec = Study.open(root, name).spec
            except DataError:
                continue
            wanted = {**spec, **asked_of(approach, settings)}
            refuse_another(f"study {root.uri}/{name}", wanted, spec, remedy=remedy)


def _run_id(first: dict[str, Any] | None, study_root: str, out: Path) -> str:
    """Return what names a run's studies: the same each time it goes on, another for each run that shares a study root."""
    if "://" not in study_root and Path(study_root).is_relative_to(out):
        return LOCAL_RUN
    run_id = first["id"] if first and first["parameters"]["study_root"] == study_root else LOCAL_RUN
    return run_id if run_id != LOCAL_RUN else f"{LOCAL_RUN}-{secrets.token_hex(4)}"


def _checked_parameters(asked: Asked, out: Path) -> dict[str, Any]:
    checked = RunParameters.from_dict(asked.parameters(default_parameters(str(out / "studies")))).to_dict()
    for name in ("study_root", "train_weights"):
        if checked[name] and "://" not in checked[name]:
            checked[name] = _absolute(checked[name])
    checked["data_datasets"] = [_with_absolute_source(dataset) for dataset in checked["data_datasets"]]
    for dataset in checked["data_datasets"]:
        if asked.preset != "quickstart" or "=" in dataset:
            check_source(*parse_dataset(dataset), secrets_are_here=True)
    return checked


def _absolute(path: str) -> str:
    return str(Path(os.path.expanduser(path)).absolute())  # noqa: PTH111 - keeps an unknown ~name


def _with_absolute_source(dataset: str) -> str:
    """Return NAME=SOURCE as it means the same in every directory."""
    name, source = parse_dataset(dataset)
    is_path = source and source != KAGGLE and urlsplit(source).scheme not in SCHEMES
    return f"{name}={_absolute(source)}" if is_path else dataset


def _with_sample(parameters: dict[str, Any], asked: Asked, out: Path) -> dict[str, Any]:
    if asked.preset != "quickstart" or asked.names_datasets:
        return parameters
    from components.data.sample.sample import write_sample

    sample = out / "sample"
    if not sample.exists():
        partial = out / "sample.partial"
        shutil.rmtree(partial, ignore_errors=True)
        write_sample(partial)
        partial.rename(sample)
    sources = [f"fashion-mnist={sample / 'fashion-mnist'}", f"fashion-products={sample / 'fashion-products.zip'}"]
    return parameters | {"data_datasets": sources}


def _compile(out: Path, containers: bool) -> None:
    from pipelines.compilation import compile_pipeline
    from pipelines.profile import load_profile

    if containers:
        from pipelines.local.containers import check_engine

        check_engine(out)
    compile_pipeline(out / "pipeline.yaml", load_profile("local"))


def _environment(out: Path, run_id: str, debug: bool) -> dict[str, str]:
    from pipelines.images import image_tag

    # kfp.local runs two loop iterations at a time, so each process gets half of the machine.
    threads = str(max(1, len(os.sched_getaffinity(0)) // 2))
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))),
        "PYTHONUNBUFFERED": "1",
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", threads),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        RUN_ID_VARIABLE: run_id,
        EVENTS_VARIABLE: str(out / "events.jsonl"),
        COMMIT_VARIABLE: image_tag(needed=False),
    }
    # Two dozen processes import TensorFlow or torch: 6 s each with bytecode, 15 s without.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    return environment | ({"FASHION_TUNING_DEBUG": "1"} if debug else {})


def _run(out: Path, run_id: str, parameters: dict[str, Any], debug: bool, lock: IO[str]) -> None:
    """Start the runner, show its progress, and raise what ended it."""
    from pipelines.local.progress import Progress
    from pipelines.local.redaction import secrets_of, strike_out_files

    earlier = passes(out)
    events = out / "events.jsonl"
    events.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pipelines.local.process", str(out)]
    with (
        (out / "run.log").open("ab") as log,
        Progress(out, parameters["study_root"], run_id) as progress,
        interrupted_once(KeyboardInterrupt),
    ):
        child = subprocess.Popen(  # noqa: S603 - this interpreter with this project's module
            command,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            env=_environment(out, run_id, debug),
            start_new_session=True,
            pass_fds=(lock.fileno(),),  # where this process is killed, the folder is in use until the runner is gone
        )
        try:
            # A failed step ends the run at once: kfp.local would finish its siblings first.
            while child.poll() is None and not progress.failed:
                time.sleep(0.5)
                progress.update()
            progress.update()
        except KeyboardInterrupt as error:
            code = 128 + (error.args[0] if error.args else signal.SIGINT)
            remedy = f"Go on with: fashion-tuning run --out {shlex.quote(str(out))}"
            raise RunEndedError(code, f"stopped; finished trials are kept. {remedy}") from None
        finally:
            for number in ENDING:
                signal.signal(number, signal.SIG_IGN)  # nothing interrupts what must still be done
            _stop(child)
            strike_out_files(out, secrets_of(parameters))
    if progress.failed:
        first = progress.failed[0]
        raise RunEndedError(first["code"], f"{first['step']}: {first['message']} (log: {out / 'run.log'})")
    if child.returncode != 0:
        raise FashionTuningError(f"the runner ended with exit code {child.returncode}; see {out / 'run.log'}")
    collect(out, earlier)


def _stop(child: subprocess.Popen) -> None:
    """End the runner and all its steps: first asking, so that workers save what they have."""
    for ending in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(child.pid, ending)
        except ProcessLookupError:
            break
        deadline = time.monotonic() + STOP_SECONDS
        while time.monotonic() < deadline and _group_lives(child):
            time.sleep(0.1)
    child.wait()


def _group_lives(child: subprocess.Popen) -> bool:
    child.poll()
    try:
        os.killpg(child.pid, 0)
    except ProcessLookupError:
        return False
    return True
