"""The report step on what Kubeflow hands over: parameters that went through a struct."""

import html
import json
from pathlib import Path

import yaml

from components.evaluation.step import report_step
from components.parameters import RunParameters
from pipelines.presets import default_parameters
from tests.evaluation.report.test_report import Written


def test_whole_numbers_stay_integers_in_summary_command_and_kept_file(tmp_path: Path) -> None:
    """The struct's floats are the plan's values again, and a redacted source that no run takes costs no report."""
    written = Written(tmp_path, num_trials=1, num_examples=40)
    source = "own=file:data/shoes.zip"
    root = str(tmp_path / "store")
    shown = RunParameters.from_dict(default_parameters(root) | {"data_datasets": [source]}).to_shown()
    struct = {
        name: float(value) if isinstance(value, int) and not isinstance(value, bool) else value
        for name, value in shown.items()
    }
    page, summary, overview = (tmp_path / name for name in ("page.html", "summary.json", "overview.md"))

    run = {"id": "run-1", "study_root": root, "study_prefix": "run-1"}
    report_step(run, struct, *written.inputs.values(), str(page), str(summary), str(overview))

    kept = yaml.safe_load((tmp_path / "store" / "runs" / "run-1" / "parameters.yaml").read_text(encoding="utf-8"))
    assert _typed(shown) == _typed(json.loads(summary.read_text(encoding="utf-8"))["parameters"]) == _typed(kept)
    told = html.unescape(page.read_text(encoding="utf-8"))
    assert "--set data_limit=0 " in told
    assert "--set search_minutes=60.0 " in told
    assert f"<dt>search_trials</dt><dd><code>{shown['search_trials']}</code>" in told


def _typed(values: dict) -> dict[str, tuple[type, object]]:
    """Return values with their types: 4 and 4.0 are equal."""
    return {name: (type(value), value) for name, value in values.items()}
