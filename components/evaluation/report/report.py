"""The report step's work: a run's evaluations become one self-contained page, `summary.json` and a short Markdown."""

import functools
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jinja2

from components.approaches import APPROACHES
from components.evaluation.report.history import remember
from components.evaluation.report.markdown import overview
from components.evaluation.report.page import page
from components.evaluation.summary import collect, summarise
from components.text import approach_name, clean, duration, p_value

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
        run: `id` and other values that name the run.
        history: Store with the scores of earlier runs; empty for none.
        html_path: File for the page.
        summary_path: File for `summary.json`.
        markdown_path: File for the short Markdown; None for none.

    Returns:
        The content of `summary.json`.

    Raises:
        DataError: An input cannot be read, or two evaluations were made on different images.
    """
    results = collect(evaluation_dirs, ingest_report_dirs, test_dirs)
    summary = summarise(results, parameters)
    created = datetime.now(UTC)
    runs, note = remember(history, str(run.get("id", "")), created, summary)
    html = render(page(results, parameters, run, runs, note, created, summary.get("cost")))
    written = {summary_path: json.dumps(summary, indent=1, ensure_ascii=False, allow_nan=False) + "\n", html_path: html}
    if markdown_path:
        written[markdown_path] = overview(results, run)
    for path, text in written.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return summary


def render(variables: dict[str, Any]) -> str:
    """Return the report's page; every text is escaped."""
    return _template().render(variables)


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"clean": clean, "approach": approach_name, "duration": duration, "p_value": p_value}
    environment.globals["known_approaches"] = APPROACHES
    return environment.get_template("report.html")
