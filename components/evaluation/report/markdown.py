"""The Kubeflow UI shows this short Markdown on the report step's own page."""

from typing import Any

from components.evaluation.report.tables import device_seconds
from components.evaluation.summary import DatasetResults
from components.text import approach_name, clean, duration, markdown_text, percent


def overview(results: list[DatasetResults], run: dict[str, Any]) -> str:
    """Return the verdicts and the headline scores as Markdown.

    Args:
        results: One per dataset.
        run: `id` and other values that name the run.
    """
    lines = ["# MLP or ResNet18", "", f"Run {markdown_text(run.get('id', ''))}", ""]
    if not results:
        lines.append("Nothing to report: no dataset was ingested.")
    for result in results:
        lines += [f"**{markdown_text(result.verdict)}**", ""]
    lines += [
        "| dataset | approach | accuracy | 95 % interval | macro F1 | device time | latency, 1 image |",
        "|---|---|---:|---|---:|---:|---:|",
    ]
    for result in results:
        for approach in sorted({*result.evaluations, *result.missing}):
            lines.append(f"| {markdown_text(clean(result.name, 100))} | {_row(result, approach)} |")
    return "\n".join(lines) + "\n"


def _row(result: DatasetResults, approach: str) -> str:
    name = markdown_text(approach_name(approach))
    if approach not in result.evaluations:
        return f"{name} | no model | | | |"
    evaluation = result.evaluations[approach]
    record = evaluation.record
    low, high = record["accuracy_ci95"]
    return (
        f"{name} | {percent(record['scores']['accuracy'], 2)} | {100 * low:.2f} to {100 * high:.2f} |"
        f" {record['scores']['macro_f1']:.4f} | {duration(device_seconds(evaluation))} |"
        f" {record['latency']['batch_1']['median_ms']:.2f} ms"
    )
