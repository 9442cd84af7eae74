"""The report step's work: a run's evaluations become one self-contained page, `summary.json` and a short Markdown."""

import json
from pathlib import Path
from typing import Any

import jinja2

from components.evaluation.results import collect, summarise

_TEMPLATES = Path(__file__).parent / "templates"


def write_report(
    *,
    evaluation_dirs: list[Path],
    ingest_report_dirs: list[Path],
    test_dirs: list[Path],
    parameters: dict[str, Any],
    run: dict[str, Any],
    history: str,
    html_path: Path,
    summary_path: Path,
    markdown_path: Path | None = None,
) -> dict[str, Any]:
    """Compare the approaches on every dataset and write the report.

    Args:
        evaluation_dirs: One per dataset and approach; an approach without a usable model has none.
        ingest_report_dirs: One per dataset.
        test_dirs: One `test_data/` per dataset, for the pictures.
        parameters: The run's parameters.
        run: `id` and whatever else names the run.
        history: Store with the figures of earlier runs; empty for none.
        html_path: File for the page.
        summary_path: File for `summary.json`.
        markdown_path: File for the short Markdown; None for none.

    Returns:
        The content of `summary.json`.
    """
    results = collect(evaluation_dirs, ingest_report_dirs, test_dirs)
    summary = summarise(results, parameters)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined
    )
    page = environment.get_template("report.html").render(datasets=results)
    for path in filter(None, (html_path, summary_path, markdown_path)):
        path.parent.mkdir(parents=True, exist_ok=True)
    html_path.write_text(page, encoding="utf-8")
    summary_path.write_text(json.dumps(summary, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    if markdown_path:
        markdown_path.write_text("\n".join(r.verdict for r in results) + "\n", encoding="utf-8")
    return summary
