"""A run that goes on in its folder with other parameters is another run, and nothing shows the first one's result for it."""

import pytest

from components.evaluation.kept import SUMMARY, keep_result
from pipelines.local.run import run_here
from pipelines.presets import Asked

OPTIONS = {"containers": False, "message_format": None, "debug": False}


@pytest.mark.parametrize(("changed", "is_kept"), [((), True), (("seed=2",), False)])
def test_result_of_other_parameters_is_forgotten(tmp_path, monkeypatch, changed, is_kept):
    """The same parameters leave what was kept; others remove it, so that `runs list` waits for the new result."""
    monkeypatch.setattr("pipelines.local.run._run", lambda *_: None)
    out = tmp_path / "out"
    first = Asked(preset="quickstart", settings=("seed=1",))
    run_here(first, out, **OPTIONS)
    summary = tmp_path / SUMMARY
    summary.write_text("{}")
    keep_result({"id": "local", "study_root": str(out / "studies")}, SUMMARY, summary)

    run_here(Asked(preset="quickstart", settings=changed or first.settings), out, **OPTIONS)

    assert is_kept == (out / "studies/runs/local" / SUMMARY).exists()
