"""The ingest step takes settings as structs and leaves its results as directories."""

import shutil
from pathlib import Path
from typing import Any

from components.data.ingest import ingest
from components.parameters import DataSettings


def ingest_step(
    dataset: dict[str, str],
    data: dict[str, Any],
    study_root: str,
    train_path: str,
    test_path: str,
    report_path: str,
    overview_path: str,
) -> dict[str, Any]:
    """Ingest one dataset of the plan.

    Args:
        dataset: `name`, `source` and `version` as the plan lists them.
        data: `DataSettings` as a struct.
        study_root: Verified raw files and statistics of earlier ingests are kept under it.
        train_path: Directory to write `train_data` to.
        test_path: Directory to write `test_data` to.
        report_path: Directory to write the ingest report to.
        overview_path: File for the report as Markdown.

    Returns:
        Headline facts for the artifacts' metadata.
    """
    info = ingest(
        f"{dataset['name']}={dataset['source']}" if dataset["source"] else dataset["name"],
        settings=DataSettings.from_dict(data),
        train_dir=Path(train_path),
        test_dir=Path(test_path),
        report_dir=Path(report_path),
        cache=f"{study_root}/cache" if "://" in study_root else "",
        history=study_root,
    )
    shutil.copyfile(Path(report_path) / "ingest_report.md", overview_path)
    return {"dataset": info.name, "classes": len(info.classes), "hash": info.content_hash, **info.counts}
