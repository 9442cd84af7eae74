"""The report and promote steps take artifacts as directories and return scores for the Kubeflow UI."""

import json
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from components.dataset_name import KNOWN
from components.errors import FashionTuningError
from components.evaluation.champion.gate import promote
from components.evaluation.kept import REPORT, SUMMARY, keep_parameters, keep_result
from components.evaluation.registry import register_all
from components.evaluation.report.report import write_report
from components.parameters import PromotionSettings, RunParameters
from components.search.study.checkpoints import Checkpoints
from components.search.study.objects import REPLICATES
from components.stores import open_store

log = logging.getLogger(__name__)


def paths(*collected: Iterable[Any]) -> list[Path]:
    """Return the local path of every artifact of some collected lists.

    The back end hands over a flat list, the local runner one list per enclosing loop.
    """
    local_paths: list[Path] = []
    for entry in collected:
        if hasattr(entry, "path"):
            local_paths.append(Path(entry.path))
        else:
            local_paths += paths(*entry)
    return local_paths


def report_step(
    run: dict[str, Any],
    parameters: dict[str, Any],
    evaluation_dirs: list[Path],
    ingest_report_dirs: list[Path],
    test_dirs: list[Path],
    html_path: str,
    summary_path: str,
    overview_path: str,
) -> dict[str, float]:
    """Write the report of a run.

    Args:
        run: `id`, `study_root` and `study_prefix` as the plan fixed them.
        parameters: Every run parameter as the plan shows it, whole numbers perhaps as floats.
        evaluation_dirs: One per dataset and approach.
        ingest_report_dirs: One per dataset.
        test_dirs: One `test_data` per dataset.
        html_path: File for the report.
        summary_path: File for `summary.json`.
        overview_path: File for the verdict as Markdown.

    Returns:
        Headline scores by `<dataset> <approach> <score>`, so that runs compare in the UI.
    """
    parameters = _with_integers(parameters)
    summary = write_report(
        evaluation_dirs=evaluation_dirs,
        ingest_report_dirs=ingest_report_dirs,
        test_dirs=test_dirs,
        parameters=parameters,
        run=run,
        history=run["study_root"],
        html_path=Path(html_path),
        summary_path=Path(summary_path),
        markdown_path=Path(overview_path),
    )
    keep_result(run, REPORT, Path(html_path))
    keep_parameters(run, parameters)
    return {
        f"{dataset} {approach} {score}": scores[score]
        for dataset, part in summary["datasets"].items()
        for approach, scores in part["approaches"].items()
        for score in ("accuracy", "macro_f1")
    }


def _with_integers(parameters: dict[str, Any]) -> dict[str, Any]:
    """Return run parameters with the types that the plan gave them: on their way here a struct makes floats of integers."""
    # Sources are kept as they are: a redacted one need not be one that a run takes.
    checked = RunParameters.from_dict({**parameters, "data_datasets": KNOWN})
    return {**checked.to_dict(), "data_datasets": parameters["data_datasets"]}


def promote_step(
    run: dict[str, Any],
    promotion: dict[str, Any],
    report_summary_path: str,
    model_dirs: list[Path],
    evaluation_dirs: list[Path],
    test_dirs: list[Path],
    summary_path: str,
    overview_path: str,
) -> None:
    """Let each dataset's model that is best on validation challenge its champion, write the final summary, and drop what only a retry would need.

    Args:
        run: `id`, `study_root` and `study_prefix` as the plan fixed them; champions are kept under the study root.
        promotion: `PromotionSettings` as a struct.
        report_summary_path: `summary.json` of the report step.
        model_dirs: One per dataset and approach.
        evaluation_dirs: One per dataset and approach.
        test_dirs: One `test_data` per dataset.
        summary_path: File for `summary.json` with the champion decisions.
        overview_path: File for the decisions as Markdown.
    """
    settings = PromotionSettings.from_dict(promotion)
    summary = promote(
        summary=json.loads(Path(report_summary_path).read_text(encoding="utf-8")),
        model_dirs=model_dirs,
        evaluation_dirs=evaluation_dirs,
        test_dirs=test_dirs,
        root=run["study_root"],
        enabled=settings.champion,
        min_gain=settings.min_gain,
        run=run,
    )
    Path(summary_path).write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    keep_result(run, SUMMARY, Path(summary_path))
    champions = {name: part["champion"] for name, part in summary["datasets"].items()}
    lines = [f"- **{name}**: {c['decision']}. {c['reason']}" for name, c in champions.items()]
    Path(overview_path).write_text("# Champions\n\n" + "\n".join(lines) + "\n", encoding="utf-8")
    register_all(run["study_root"], [name for name, champion in champions.items() if champion["version"]])
    _drop_checkpoints(run["study_root"], model_dirs)


def _drop_checkpoints(study_root: str, model_dirs: list[Path]) -> None:
    """Delete the checkpoints of the final trainings: their models are artifacts by now."""
    for model_dir in model_dirs:
        study = json.loads((model_dir / "model.json").read_text(encoding="utf-8"))["study"]
        try:
            Checkpoints(open_store(study_root) / study / REPLICATES).clear()
        except FashionTuningError as error:
            log.warning("checkpoints of study %s's final training are kept: %s", study, error)
