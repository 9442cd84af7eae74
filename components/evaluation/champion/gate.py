"""The champion gate decides on the same held-out images whether a run's best model replaces the one in use.

    champions/<dataset>/000003.json             create-only; the highest number is the champion, the others are its history
    champions/<dataset>/models/<sha256>/        model.onnx, model.json, model_card.md, seen.npy; shared by every record that names it
    champions/<dataset>/challenges/000017.json  what each challenge spent of the year's chance of an error

A decision and its reason go into the run's summary; a record is only written where the champion changes.
"""

import json
import logging
import random
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from components.data.contract import TestData
from components.errors import DataError, ParameterError, TryAgainError
from components.evaluation.champion.judge import Judgement, judge
from components.evaluation.champion.records import ChampionRecords, Record, model_digest
from components.evaluation.evaluate import Evaluation
from components.stores import open_store
from components.text import clean

log = logging.getLogger(__name__)

MAX_SECONDS = 900.0
"""A promotion that keeps losing the race for the next number gives up after this long."""


@dataclass(frozen=True, kw_only=True)
class Challenger:
    """The model of a run that asks to become champion.

    Attributes:
        evaluation: The evaluation of the model.
        model_dir: Directory `model/` of the training step.
        test_dir: The `test_data/` it was evaluated on.
    """

    evaluation: Evaluation
    model_dir: Path
    test_dir: Path


def promote(
    *,
    summary: dict[str, Any],
    model_dirs: list[Path],
    evaluation_dirs: list[Path],
    test_dirs: list[Path],
    root: str,
    enabled: bool,
    min_gain: float,
    run: dict[str, Any],
) -> dict[str, Any]:
    """Let each dataset's best model challenge its champion.

    The challenger is the approach with the higher validation accuracy: the held-out images only judge it.

    Args:
        summary: `summary.json` of the run.
        model_dirs: `model/` directories, any order.
        evaluation_dirs: Evaluations, any order.
        test_dirs: `test_data/` directories, any order.
        root: Store that holds the champions.
        enabled: False decides nothing and changes nothing.
        min_gain: Accuracy by which a challenger must be better, 0..1.
        run: `id` and whatever else names the run.

    Returns:
        The summary with `champion` filled in for every dataset: `decision`, `version`, `reason`.
    """
    evaluations = [Evaluation.load(d) for d in evaluation_dirs if (Path(d) / "evaluation.json").exists()]
    decided = {name: dict(part) for name, part in summary["datasets"].items()}
    for name, part in decided.items():
        if not enabled:
            part["champion"] = _entry("disabled", None, "promote_champion is false: nothing was compared or changed")
            continue
        challenger = _challenger(name, part, evaluations, model_dirs, test_dirs)
        records = ChampionRecords(open_store(root), name)
        part["champion"] = _promote_one(records, challenger, min_gain, run)
        log.info("champion of %s: %s (%s)", clean(name), part["champion"]["decision"], part["champion"]["reason"])
    return {**summary, "datasets": decided}


def show(root: str, dataset: str) -> list[dict[str, Any]]:
    """Return every champion of a dataset, newest first; an unreadable record appears with its `error`."""
    return [record.summary() for record in ChampionRecords(open_store(root), dataset).history()]


def rollback(root: str, dataset: str, run: dict[str, Any] | None = None) -> dict[str, Any]:
    """Make the model that was champion before the present one champion again, as a new version.

    Args:
        root: Store that holds the champions.
        dataset: Name of the dataset.
        run: `id` of the run that promotes, and other values that name it.

    Returns:
        The new record.

    Raises:
        DataError: There is no champion.
        ParameterError: There is none before it.
        TryAgainError: Somebody else changed the champion at the same time.
    """
    records = ChampionRecords(open_store(root), dataset)
    present = records.current()
    if present is None:
        raise DataError(f"champion of {clean(dataset)} must exist before a rollback; there is none under {root}")
    target = records.predecessor(present)
    if target is None:
        raise ParameterError(
            f"champion of {clean(dataset)} must have a readable predecessor; version {present.version} has none."
            " Promote a model instead"
        )
    content = {
        **target.content,
        "decision": "rollback",
        "reason": f"version {present.version} was rolled back to the model of version {target.version}",
        "restores": target.version,
        "created": _now(),
        "run": run or {},
    }
    created = records.create(present.version + 1, content)
    if created is None:
        raise TryAgainError(
            f"champion of {clean(dataset)} must not change during a rollback; version {present.version + 1} was just"
            " created. Look at it, then roll back again"
        )
    return created.summary()


def _promote_one(
    records: ChampionRecords, challenger: Challenger | None, min_gain: float, run: dict[str, Any]
) -> dict[str, Any]:
    """Judge against the present champion and write the next version if the challenger won; judge again if another run was faster."""
    if challenger is None:
        present = records.current()
        return _entry("no-model", present.version if present else None, "no approach has a usable model")
    sha256 = model_digest(challenger.model_dir)
    own = records.find(run_id=str(run.get("id", "")), sha256=sha256)
    if own is not None:  # this step ran before and was stopped after its record was written
        return _entry(own.content["decision"], own.version, own.content["reason"])
    data = TestData.load(challenger.test_dir, memory_map=True)
    judgements: dict[str, Judgement] = {}
    deadline, attempts = time.monotonic() + MAX_SECONDS, 0
    while time.monotonic() < deadline:
        present = records.current()
        current_sha256 = present.sha256 if present and not present.error else None
        if current_sha256 not in judgements or current_sha256 is None:
            judgement = judge(records, present, challenger.evaluation, sha256, data, min_gain)
            if current_sha256:
                judgements[current_sha256] = judgement
        else:
            judgement = judgements[current_sha256]
        if not judgement.promotes:
            return _entry(judgement.decision, present.version if present else None, judgement.reason)
        if not attempts:
            record = challenger.evaluation.record
            is_of_this_data = record["model"].get("data_hash") == data.info.content_hash
            records.add_model(challenger.model_dir, record, data.seen if is_of_this_data else None)
        content = _content(challenger, sha256, judgement, present, run)
        created = records.create((present.version if present else 0) + 1, content)
        if created is not None:
            return _entry(judgement.decision, created.version, judgement.reason)
        attempts += 1
        time.sleep(random.uniform(0, min(1.0, 0.02 * 2**attempts)))  # noqa: S311 (spreads writers, keeps no secret)
    raise TryAgainError(
        f"champion of {records.dataset} must hold still; it kept changing for {MAX_SECONDS:.0f} s. Run again"
    )


def _challenger(
    dataset: str,
    part: dict[str, Any],
    evaluations: list[Evaluation],
    model_dirs: list[Path],
    test_dirs: list[Path],
) -> Challenger | None:
    own = {e.approach: e for e in evaluations if e.dataset == dataset and e.approach in part.get("approaches", {})}
    if not own:
        return None

    def preference(approach: str) -> tuple[float, float]:
        scores = part["approaches"][approach]
        return scores.get("validation_accuracy") or 0.0, -own[approach].record["model_bytes"]

    evaluation = own[max(sorted(own), key=preference)]
    model_dir = _matching(
        model_dirs, "model.json", lambda m: _same_model(m, evaluation), f"{evaluation.approach} of {dataset}"
    )
    test_dir = _matching(test_dirs, "dataset.json", lambda d: d.get("name") == dataset, f"test data of {dataset}")
    return Challenger(evaluation=evaluation, model_dir=model_dir, test_dir=test_dir)


def _same_model(model: dict[str, Any], evaluation: Evaluation) -> bool:
    return model == evaluation.record["model"]


def _matching(directories: list[Path], name: str, matches: Any, what: str) -> Path:
    for directory in map(Path, directories):
        try:
            if matches(json.loads((directory / name).read_text(encoding="utf-8"))):
                return directory
        except (OSError, ValueError):
            continue
    raise DataError(f"{what} must be among the {len(directories)} directories given; it is not. Run the step again")


def _content(
    challenger: Challenger, sha256: str, judgement: Judgement, present: Record | None, run: dict[str, Any]
) -> dict[str, Any]:
    record = challenger.evaluation.record
    return {
        "approach": record["approach"],
        "sha256": sha256,
        "classes": record["classes"],
        "data_hash": record["model"].get("data_hash", ""),
        "figures": {
            "accuracy": record["scores"]["accuracy"],
            "macro_f1": record["scores"]["macro_f1"],
            "num_examples": record["scores"]["num_examples"],
        },
        "decision": judgement.decision,
        "reason": judgement.reason,
        "predecessor": present.version if present else None,
        "created": _now(),
        "run": {"id": str(run.get("id", ""))},
    }


def _entry(decision: str, version: int | None, reason: str) -> dict[str, Any]:
    return {"decision": decision, "version": version, "reason": reason}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
