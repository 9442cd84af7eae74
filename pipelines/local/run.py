"""`run` does the whole job without a cluster: kfp.local runs the compiled graph in a process that is watched from here."""

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from components.data.sources.presence import check_source
from components.dataset_name import parse_dataset, redacted_dataset
from components.errors import ConfigurationError, FashionTuningError, ParameterError, StorageError
from components.evaluation.kept import forget_results
from components.parameters import RunParameters
from components.plan import RUN_ID_VARIABLE
from components.runtime import COMMIT_VARIABLE, EVENTS_VARIABLE
from pipelines.interruption import interrupted_once
from pipelines.presets import Asked, default_parameters, write_parameters

ROOT = Path(__file__).resolve().parents[2]
LOCAL_RUN = "local"
"""Id of a run that has a study root of its own."""
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

    first = _earlier_settings(out)
    earlier = first if asked.is_nothing else None
    parameters = earlier["parameters"] if earlier else _checked_parameters(asked, out)
    containers = containers or bool(earlier and earlier["containers"])
    run_id = _run_id(first, parameters["study_root"], out)
    with _only_run_in(out):
        if earlier is None:
            parameters = _with_sample(parameters, asked, out)
        if first and first["parameters"] != parameters:
            forget_results(parameters["study_root"], run_id)
        for earlier_pass in (out / "artifacts").glob("*/"):
            _remove_unfinished(earlier_pass)
        _write_inputs(out, {"id": run_id, "parameters": parameters, "containers": containers})
        started = time.monotonic()
        with notifying(out, run_id, parameters["study_root"], message_format) if message_format else nullcontext():
            _run(out, run_id, parameters, debug)
        return time.monotonic() - started


def _earlier_settings(out: Path) -> dict[str, Any] | None:
    path = out / "parameters.json"
    try:
        if not path.exists():
            return None
        settings = json.loads(path.read_text(encoding="utf-8"))
        return {
            "parameters": settings["parameters"],
            "containers": settings["containers"],
            "id": settings.get("id", LOCAL_RUN),
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StorageError(
            f"{path} must hold the parameters of the first start; got {error}. Use another --out"
        ) from None


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
            checked[name] = str(Path(checked[name]).expanduser().absolute())
    for dataset in checked["data_datasets"]:
        if asked.preset != "quickstart" or "=" in dataset:
            check_source(*parse_dataset(dataset), secrets_are_here=True)
    return checked


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


@contextmanager
def _only_run_in(out: Path) -> Iterator[None]:
    """Refuse a second run in the same folder while the first one lives."""
    import fcntl

    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = (out / ".lock").open("w")
    except OSError as error:
        raise StorageError(f"--out must be a folder that can be written; got {out} ({error.strerror})") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigurationError(f"{out} is in use by another run. Wait for it or take another --out") from None
        yield


def _remove_unfinished(folder: Path) -> None:
    """Delete what steps left that a stop or a failure ended: only a finished one has its `executor_output.json`."""
    for step in folder.glob("*/"):
        if step.name.startswith("for-loop-"):
            _remove_unfinished(step)
        elif not (step / "executor_output.json").exists():
            shutil.rmtree(step, ignore_errors=True)


def _write_inputs(out: Path, settings: dict[str, Any]) -> None:
    from pipelines.compilation import compile_pipeline
    from pipelines.profile import load_profile

    if "python3" in str(out):
        raise ParameterError(f"--out must not contain 'python3', which the local runner rewrites; got {out}")
    if settings["containers"]:
        from pipelines.local.containers import check_engine

        check_engine(out)
    compile_pipeline(out / "pipeline.yaml", load_profile("local"))
    path = out / "parameters.json"
    path.touch()
    path.chmod(0o600)  # a presigned source has its signature here
    path.write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
    own = settings["parameters"]["study_root"]
    is_own = "://" not in own and Path(own).is_relative_to(out)  # a repetition has another
    repeated = {name: value for name, value in settings["parameters"].items() if name != "study_root" or not is_own}
    # The signature of a presigned source has no place in a file that people pass on.
    asked = [redacted_dataset(dataset) if "?" in dataset else dataset for dataset in repeated["data_datasets"]]
    write_parameters(out / "parameters.yaml", repeated | {"data_datasets": asked})


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


def _run(out: Path, run_id: str, parameters: dict[str, Any], debug: bool) -> None:
    """Start the runner, show its progress, and raise what ended it."""
    from pipelines.local.progress import Progress
    from pipelines.local.redaction import secrets_of, strike_out_files

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
        )
        try:
            # A failed step ends the run at once: kfp.local would finish its siblings first.
            while child.poll() is None and not progress.failed:
                time.sleep(0.5)
                progress.update()
            progress.update()
        except KeyboardInterrupt as error:
            code = 128 + (error.args[0] if error.args else signal.SIGINT)
            remedy = f"Go on with: fashion-tuning run --out {out}"
            raise RunEndedError(code, f"stopped; finished trials are kept. {remedy}") from None
        finally:
            _stop(child)
            strike_out_files(out, secrets_of(parameters))
    if progress.failed:
        first = progress.failed[0]
        raise RunEndedError(first["code"], f"{first['step']}: {first['message']} (log: {out / 'run.log'})")
    if child.returncode != 0:
        raise FashionTuningError(f"the runner ended with exit code {child.returncode}; see {out / 'run.log'}")
    _collect(out)


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


def _collect(out: Path) -> None:
    """Copy the report and the summary of the newest pass to the top of the run's folder."""
    newest = max((out / "artifacts").iterdir(), key=lambda path: path.name)
    for source, name in ((newest / "report" / "html", "report.html"), (newest / "promote" / "summary", "summary.json")):
        if not source.exists():
            raise FashionTuningError(f"{source} must exist after a run; see {out / 'run.log'}")
        partial = out / f"{name}.partial"
        shutil.copyfile(source, partial)
        partial.replace(out / name)
