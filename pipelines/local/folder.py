"""The folder of a local run: who may use it, what its first start asked for, and what its passes leave in it."""

import fcntl
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from components.dataset_name import redacted_dataset
from components.errors import ConfigurationError, FashionTuningError, StorageError, file_error
from pipelines.presets import write_parameters

LOCAL_RUN = "local"
"""Id of a run that has a study root of its own."""

REPORT, SUMMARY = "report.html", "summary.json"


@contextmanager
def only_user_of(out: Path) -> Iterator[IO[str]]:
    """Make the folder and refuse a second run in it while the first one lives; yield the lock, which a child may inherit.

    Raises:
        ConfigurationError: Another run uses the folder.
        PermissionDeniedError: It may not be written.
        StorageError: It cannot be made.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = (out / ".lock").open("w")
    except OSError as error:
        raise file_error(error, "must be a folder that can be written", f"--out {out}") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigurationError(f"{out} is in use by another run. Wait for it or take another --out") from None
        yield lock


def read_settings(out: Path) -> dict[str, Any] | None:
    """Return what the folder's first start asked for; None before it.

    Returns:
        `id`, `parameters` and `containers` as `write_settings` got them, and `moved`: whether the folder lay elsewhere then. Parameters that
        mean a place in it mean the place where it is now.

    Raises:
        StorageError: The file says something else.
    """
    path = out / "parameters.json"
    try:
        if not path.exists():
            return None
        settings = json.loads(path.read_text(encoding="utf-8"))
        before = settings.get("out", str(out))
        parameters = {name: _moved(value, before, out) for name, value in settings["parameters"].items()}
        if "study_root" not in parameters:
            raise KeyError("study_root")
        return {
            "id": settings.get("id", LOCAL_RUN),
            "parameters": parameters,
            "containers": settings["containers"],
            "moved": before != str(out),
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        got = f"no {error}" if isinstance(error, KeyError) else error
        raise StorageError(
            f"{path} must hold the parameters of the first start; got {got}. Use another --out"
        ) from None


def _moved(value: Any, before: str, now: Path) -> Any:
    if isinstance(value, list):
        return [_moved(each, before, now) for each in value]
    return value.replace(f"{before}/", f"{now}/") if isinstance(value, str) else value


def write_settings(out: Path, *, run_id: str, parameters: dict[str, Any], containers: bool) -> None:
    """Write `parameters.json`, which the runner and later starts read, and `parameters.yaml`, which repeats the run.

    Args:
        out: The folder.
        run_id: What names the run's studies.
        parameters: All run parameters, with absolute paths.
        containers: Whether steps run in their images.
    """
    settings = {"id": run_id, "out": str(out), "parameters": parameters, "containers": containers}
    partial = out / "parameters.json.partial"
    partial.touch()
    partial.chmod(0o600)  # a presigned source has its signature here
    partial.write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
    partial.replace(out / "parameters.json")
    own = parameters["study_root"]
    is_own = "://" not in own and Path(own).is_relative_to(out)  # a repetition has another
    repeated = {name: value for name, value in parameters.items() if name != "study_root" or not is_own}
    # The signature of a presigned source has no place in a file that people pass on.
    asked = [redacted_dataset(dataset) if "?" in dataset else dataset for dataset in repeated["data_datasets"]]
    write_parameters(out / "parameters.yaml", repeated | {"data_datasets": asked})


def passes(out: Path) -> set[Path]:
    """Return the folders of artifacts, one for each time that the graph was run."""
    return set((out / "artifacts").glob("*/"))


def remove_unfinished(folder: Path) -> None:
    """Delete what steps left that a stop or a failure ended: only a finished one has its `executor_output.json`."""
    for step in folder.glob("*/"):
        if step.name.startswith("for-loop-"):
            remove_unfinished(step)
        elif not (step / "executor_output.json").exists():
            shutil.rmtree(step, ignore_errors=True)


def collect(out: Path, earlier: set[Path]) -> None:
    """Copy report and summary of the pass that is not an earlier one to the top of the folder.

    Names do not tell which pass is the newest: they are times of a clock that may be set back.
    """
    newest = next(iter(passes(out) - earlier), out / "artifacts")
    for source, name in ((newest / "report" / "html", REPORT), (newest / "promote" / "summary", SUMMARY)):
        if not source.exists():
            raise FashionTuningError(f"{source} must exist after a run; see {out / 'run.log'}")
        partial = out / f"{name}.partial"
        shutil.copyfile(source, partial)
        partial.replace(out / name)
