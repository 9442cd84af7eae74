"""Writes what ingest found as JSON for programs and as Markdown for the Kubeflow UI."""

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from components.data.contract import DatasetInfo
from components.data.findings import Findings
from components.text import printable

JSON_NAME, MARKDOWN_NAME = "ingest_report.json", "ingest_report.md"

_MAX_LISTED, _MAX_CLASSES = 20, 200


def write_report(directory: Path, info: DatasetInfo, findings: Findings, details: dict[str, Any]) -> None:
    """Write `ingest_report.json` and `ingest_report.md`; equal data gives equal bytes.

    Args:
        directory: Made where it is missing.
        info: What `dataset.json` says.
        findings: Defects, listed in full in the JSON.
        details: Further sections, see `components.data.ingest`.
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
        "warnings": findings.warnings,
        "ignored": findings.ignored,
        "notes": findings.notes,
        **details,
    }
    text = json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
    (directory / JSON_NAME).write_text(text, encoding="utf-8", errors="backslashreplace")
    (directory / MARKDOWN_NAME).write_text(_markdown(document), encoding="utf-8", errors="backslashreplace")


def _markdown(document: dict[str, Any]) -> str:
    counts, numbers = document["counts"], document["report"]
    lines = [
        f"# Ingest of {document['name']}",
        "",
        f"{numbers['images']:,} images in {len(document['classes'])} classes from {_code(document['source'])}:"
        f" {counts['train']:,} train, {counts['validation']:,} validation, {counts['test']:,} test."
        f" Content hash {_code(document['content_hash'][:16])}.",
        "",
        "## Found",
        "",
        *_table(
            ("what", "number"), [(name.replace("_", " "), f"{number:,}") for name, number in numbers.items() if number]
        ),
    ]
    if document["warnings"]:
        lines += ["", "## Warnings", "", *(f"- **{_plain(text)}**" for text in document["warnings"][:_MAX_LISTED])]
        lines += _more(document["warnings"])
    drift = document["drift"]
    if drift:
        lines += ["", "## Compared with the ingest before", ""]
        lines += [f"- **{_plain(w)}**" for w in drift["warnings"]] or ["- no warning"]
        lines += [
            f"- {drift['images_change']:+,} images, {drift['share_moved']:.1%} moved between classes",
            f"- mean moved by {_numbers(drift['mean_change'])} standard deviations, spread by"
            f" {_numbers(drift['spread_change'])}",
        ]
    for title, key, columns in (
        ("Quarantined", "quarantined", ("where", "reason", "value")),
        ("Repaired", "repaired", ("where", "value")),
        ("Ignored files", "ignored", ("where", "reason")),
    ):
        if entries := document[key]:
            lines += ["", f"## {title}", ""]
            lines += _table(columns, [[_code(e[c]) for c in columns] for e in entries[:_MAX_LISTED]])
            lines += _more(entries)
    for title, key in (("Rows without image", "rows_without_image"), ("Images without row", "images_without_row")):
        if entries := document[key]:
            lines += ["", f"## {title}", "", ", ".join(_code(e) for e in entries[:_MAX_LISTED]), *_more(entries)]
    if entries := document["contradictory_groups"]:
        lines += ["", "## Identical images with different labels (kept out of validation and test)", ""]
        lines += [
            f"- {', '.join(_code(e['id'] + ': ' + e['label']) for e in group)}" for group in entries[:_MAX_LISTED]
        ]
        lines += _more(entries)
    lines += ["", "## Classes", ""]
    parts = ("train", "validation", "test")
    rows = [(_code(c), *(f"{n[p]:,}" for p in parts)) for c, n in document["class_counts"].items()]
    lines += _table(("class", *parts), rows[:_MAX_CLASSES])
    if len(rows) > _MAX_CLASSES:
        lines += ["", f"... and {len(rows) - _MAX_CLASSES:,} more in {JSON_NAME}."]
    if only := document["train_only_classes"]:
        lines += ["", f"Too small for three splits, so in train only: {', '.join(_code(c) for c in only)}."]
    if folded := document["folded_classes"]:
        names = ", ".join(f"{_code(c)} ({n})" for c, n in folded.items())
        lines += ["", f"Folded into {_code('other')}: {names}."]
    return "\n".join(lines) + "\n"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    numeric = ["---:" if name in ("number", "train", "validation", "test") else "---" for name in header]
    return [f"| {' | '.join(header)} |", f"| {' | '.join(numeric)} |", *(f"| {' | '.join(row)} |" for row in rows)]


def _more(entries: Sequence[Any]) -> list[str]:
    number = len(entries) - _MAX_LISTED
    return ["", f"... and {number:,} more in {JSON_NAME}."] if number > 0 else []


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{v:+.2f}" for v in values)


def _code(text: str) -> str:
    """Return foreign text as inline code: nothing in it is taken as Markdown or HTML."""
    flat = _plain(text).replace("`", "'").replace("|", "\\|")
    return f"`{flat}`" if flat.strip() else "(empty)"


def _plain(text: str) -> str:
    return re.sub(r"[<>]", "", printable(text))
