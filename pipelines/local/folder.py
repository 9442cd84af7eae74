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
from components.evaluation.kept import REPORT, SUMMARY
from pipelines.presets import write_parameters

LOCAL_RUN = "local"
"""Id of a run that has a study root of its own."""


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
    """Return what the folder's last start asked for; None before the first one.

    Returns:
        `id`, `parameters` and `containers` as `write_settings` got them; `accepted`, the same of the start that a refused one gives way to, and
        `moved`: whether the folder lay elsewhere then. Parameters that mean a place in it mean the place where it is now.

    Raises:
        StorageError: The file says something else.
    """
    path = out / "parameters.json"
    try:
        if not path.exists():
            return None
        written = json.loads(path.read_text(encoding="utf-8"))
        before = written.get("out", str(out))
        found = _settings(written, before, out)
        accepted = _settings(written["accepted"], before, out) if written.get("accepted") else found
        return {**found, "accepted": accepted, "moved": before != str(out)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        got = f"no {error}" if isinstance(error, KeyError) else error
        raise StorageError(
            f"{path} must hold the parameters of the first start; got {got}. Use another --out"
        ) from None


def _settings(written: dict[str, Any], before: str, now: Path) -> dict[str, Any]:
    """Return `id`, `parameters` and `containers` as they hold where the folder is now."""
    parameters = dict(written["parameters"])
    for name in ("study_root", "train_weights"):
        parameters[name] = _moved(parameters[name], before, now)
    named = (dataset.partition("=") for dataset in parameters["data_datasets"])
    parameters["data_datasets"] = [f"{name}{equals}{_moved(source, before, now)}" for name, equals, source in named]
    is_copy = before != str(now) and (Path(before) / "parameters.json").exists()
    # Two folders must not work on the same studies in one store.
    run_id = LOCAL_RUN if is_copy else written.get("id", LOCAL_RUN)
    return {"id": run_id, "parameters": parameters, "containers": written["containers"]}


def _moved(path: str, before: str, now: Path) -> str:
    return f"{now}{path[len(before) :]}" if path == before or path.startswith(f"{before}/") else path


def write_settings(out: Path, settings: dict[str, Any], accepted: dict[str, Any] | None = None) -> None:
    """Write `parameters.json`, which the runner and later starts read, and `parameters.yaml`, which repeats the run.

    Args:
        out: The folder.
        settings: `id`, what names the run's studies; `parameters`, all of them and with absolute paths; `containers`, whether steps run in their
            images.
        accepted: The same of an earlier start, for as long as this one may still be refused.
    """
    parameters = settings["parameters"]
    pending = {"accepted": accepted} if accepted and accepted["parameters"] != parameters else {}
    partial = out / "parameters.json.partial"
    partial.touch()
    partial.chmod(0o600)  # a presigned source has its signature here
    partial.write_text(json.dumps({**settings, **pending, "out": str(out)}, indent=1) + "\n", encoding="utf-8")
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
