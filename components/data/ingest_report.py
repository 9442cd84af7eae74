"""Writes what ingest found as JSON for programs and as Markdown for the Kubeflow UI."""

import json
from pathlib import Path
from typing import Any

from components.data.contract import DatasetInfo
from components.data.findings import Findings

_MAX_LISTED = 50


def write_report(directory: Path, info: DatasetInfo, findings: Findings, details: dict[str, Any]) -> None:
    """Write `ingest_report.json` and `ingest_report.md`.

    Args:
        directory: Made where it is missing.
        info: What `dataset.json` says.
        findings: Defects, listed in full in the JSON.
        details: Further sections.
    """
    directory.mkdir(parents=True, exist_ok=True)
    document = {
        "schema": 1,
        "name": info.name,
        "source": info.source,
        "checksums": info.checksums,
        "content_hash": info.content_hash,
        "classes": list(info.classes),
        "counts": info.counts,
        "report": info.report,
        "quarantined": findings.quarantined,
        "repaired": findings.repaired,
        "rows_without_image": findings.rows_without_image,
        "images_without_row": findings.images_without_row,
        "normalised": dict(sorted(findings.normalised.items())),
        "notes": findings.notes,
        **details,
    }
    text = json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    (directory / "ingest_report.json").write_text(text, encoding="utf-8")
    (directory / "ingest_report.md").write_text(_markdown(document), encoding="utf-8")


def _markdown(document: dict[str, Any]) -> str:
    lines = [f"# Ingest of {document['name']}", ""]
    lines += ["| what | number |", "|---|---:|"]
    lines += [f"| {k.replace('_', ' ')} | {v:,} |" for k, v in {**document["counts"], **document["report"]}.items()]
    return "\n".join(lines) + "\n"
