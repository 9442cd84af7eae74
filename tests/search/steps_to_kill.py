"""The other steps of the pipeline as processes that are killed just before one of their writes."""

import json
import os
import re
import sys
import types
from pathlib import Path
from typing import Any

import onnx

from components.data.ingest import ingest
from components.evaluation.champion.gate import promote
from components.evaluation.evaluate import evaluate
from components.evaluation.report.report import write_report
from components.evaluation.summary import collect, summarise
from components.parameters import DataSettings, TrainSettings
from components.search.study.study import Study
from components.stores import open_store
from components.stores.gcs import GcsStore
from components.stores.local import LocalStore
from components.training import train_final
from tests.search import toy
from tests.search.processes import append, finish, start

DATASETS = ("fashion-mnist", "first", "second")


class Kills:
    """Counts the points a step passes, and kills it at one of them."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.passed = 0

    def point(self) -> None:
        """Pass a point."""
        self.passed += 1
        if self.passed == self.at:
            os.kill(os.getpid(), 9)

    def before_files(self, *directories: Path) -> None:
        """Count each opening for writing, renaming and linking below the directories, before it happens."""
        starts = tuple(f"{directory}/" for directory in directories)

        def watch(event: str, arguments: tuple) -> None:
            if event == "open":
                path, mode, flags = arguments
                if not (flags & (os.O_WRONLY | os.O_RDWR) if isinstance(flags, int) else set(mode or "") & set("wxa+")):
                    return
            elif event in ("os.rename", "os.link"):
                path = arguments[1]
            else:
                return
            if isinstance(path, (str, os.PathLike)) and str(path).startswith(starts):
                self.point()

        sys.addaudithook(watch)

    def around_objects(self, pattern: str, *, before: bool = True, after: bool = True) -> None:
        """Count each creation and overwriting of an object whose key matches, before and after it happens."""
        for kind in (LocalStore, GcsStore):
            for name in ("create", "write"):
                self._wrap(kind, name, re.compile(pattern), before, after)

    def _wrap(self, kind: type, name: str, pattern: re.Pattern, before: bool, after: bool) -> None:
        real = getattr(kind, name)

        def wrapped(store: Any, key: str, data: bytes) -> Any:
            matches = pattern.search(key)
            if matches and before:
                self.point()
            answer = real(store, key, data)
            if matches and after:
                self.point()
            return answer

        setattr(kind, name, wrapped)


def fill_cache(kills: Kills, directory: Path, root: str) -> None:
    """Ingest; killed while the raw files are fetched into the cache."""
    kills.before_files(directory / "cache", directory / "home")
    kills.around_objects(r"^(sha256|index)/")
    _ingest(directory, root)


def write_datasets(kills: Kills, directory: Path, root: str) -> None:
    """Ingest; killed while the data sets and the report are written."""
    kills.before_files(*(directory / "out" / name for name in ("train", "test", "report")))
    _ingest(directory, root)


def _ingest(directory: Path, root: str) -> None:
    os.environ["HOME"] = os.environ["XDG_CACHE_HOME"] = str(directory / "home")
    ingest(
        "fashion-mnist=gs://bucket/raw",
        settings=DataSettings(seed=1),
        train_dir=directory / "out" / "train",
        test_dir=directory / "out" / "test",
        report_dir=directory / "out" / "report",
        cache=f"{root}/cache" if root.startswith("gs:") else str(directory / "cache"),
        history=f"{root}/history",
    )


def train(kills: Kills, directory: Path, root: str) -> None:
    """Train three replicates; killed in the middle of an epoch."""
    toy_fit = toy.ToyTrainer.fit

    def fit(trainer: Any, hyperparameters: dict, *, on_epoch: Any, seed: int, **others: Any) -> Any:
        def watched(epoch: int, score: float, state: Any) -> bool:
            kills.point()
            append(directory / "epochs", {"seed": seed, "epoch": epoch})
            return on_epoch(epoch, score, state)

        return toy_fit(trainer, hyperparameters, on_epoch=watched, seed=seed, **others)

    def export(trainer: Any, result: Any, hyperparameters: dict, onnx_path: str, native_path: str) -> float:  # noqa: ARG001
        Path(native_path).write_text(json.dumps(result.scores))
        names = ("images", "probabilities")
        given, answer = (
            onnx.helper.make_tensor_value_info(name, onnx.TensorProto.UINT8, ["N", 2, 2, 1]) for name in names
        )
        same = onnx.helper.make_node("Identity", [names[0]], [names[1]])
        graph = onnx.helper.make_graph([same], "toy", [given], [answer], doc_string=json.dumps(result.scores))
        onnx.save(onnx.helper.make_model(graph), onnx_path)
        return 0.0

    toy.ToyTrainer.fit, toy.ToyTrainer.export, toy.ToyTrainer.device_name = fit, export, "toy"
    approach = types.SimpleNamespace(**vars(toy.APPROACH), NATIVE_FILE="model.toy", RECIPE={}, PACKAGES=())
    study = Study.open(open_store(root), "toy")
    train_final(
        approach,
        train_data=toy.train_data(),
        ledger=study.ledger(),
        settings=TrainSettings(replicates=3, weights="", epochs=3, seed=0),
        model_dir=_made(directory / "out"),
        checkpoints=study.checkpoints,
    )


def score(kills: Kills, directory: Path, root: str) -> None:  # noqa: ARG001
    """Evaluate a model; killed while the figures are written."""
    kills.before_files(directory / "out")
    evaluate(directory.parent / "inputs" / "fashion-mnist" / "model", _inputs(directory, "test")[0], directory / "out")


def report(kills: Kills, directory: Path, root: str) -> None:
    """Write the report; killed while its files and the history are written."""
    kills.before_files(directory / "out")
    kills.around_objects(r"^\d{8}T")
    out = directory / "out"
    write_report(
        evaluation_dirs=_inputs(directory, "evaluation"),
        ingest_report_dirs=_inputs(directory, "ingest"),
        test_dirs=_inputs(directory, "test"),
        parameters={"seed": 0},
        run={"id": "run-1"},
        history=root,
        html_path=out / "report.html",
        summary_path=out / "summary.json",
        markdown_path=out / "report.md",
    )


def promote_before(kills: Kills, directory: Path, root: str) -> None:
    """Promote three champions; killed before one is made."""
    kills.around_objects(r"^\d+\.json$", after=False)
    _promote(directory, root)


def promote_after(kills: Kills, directory: Path, root: str) -> None:
    """Promote three champions; killed after one was made."""
    kills.around_objects(r"^\d+\.json$", before=False)
    _promote(directory, root)


def _promote(directory: Path, root: str) -> None:
    evaluations, tests = _inputs(directory, "evaluation"), _inputs(directory, "test")
    summary = promote(
        summary=summarise(collect(evaluations, [], tests), {}),
        model_dirs=_inputs(directory, "model"),
        evaluation_dirs=evaluations,
        test_dirs=tests,
        root=root,
        enabled=True,
        min_gain=0.0,
        run={"id": "run-1"},
    )
    (_made(directory / "out") / "summary.json").write_text(json.dumps(summary))


def _inputs(directory: Path, name: str) -> list[Path]:
    return [directory.parent / "inputs" / dataset / name for dataset in DATASETS]


def _made(directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def run(step: Any, directory: Path, root: str, environment: dict[str, str], kill_at: int = 0) -> int:
    """Run a step in a process of its own; return its exit code, -9 where it was killed."""
    _made(directory)
    return finish(start(_run, (step, str(directory), root, environment, kill_at)), 120)


def _run(step: Any, directory: str, root: str, environment: dict[str, str], kill_at: int) -> None:
    os.environ.update(environment)
    kills = Kills(kill_at)
    step(kills, Path(directory), root)
    append(Path(directory) / "passed", {"points": kills.passed})
