"""The notebook of the docs: it runs from top to bottom, and is kept without what it printed."""

import json
import os
import shutil
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.test_layout import ROOT, tracked

TOUR = ROOT / "docs" / "tour.ipynb"
SMALL = "--set data_limit=300 --set search_trials=2 --set search_epochs=1 --set train_replicates=1"


@pytest.mark.parametrize("path", tracked("*.ipynb"), ids=lambda path: path.name)
def test_notebooks_have_no_outputs(path):
    """Outputs would be a machine's paths and pictures, and change with each run."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]

    assert [] == [cell["id"] for cell in cells if cell["outputs"] or cell["execution_count"] is not None]
    assert {"kernelspec", "language_info"} == set(notebook["metadata"])
    assert {"name"} == set(notebook["metadata"]["language_info"])
    nbformat.validate(nbformat.from_dict(notebook))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_tour_runs_from_top_to_bottom(tmp_path, monkeypatch):
    """A newcomer who runs every cell meets no error, and sees trials, plots, the verdict and answers.

    The notebook runs as Jupyter runs it, in its own folder and without the environment's programs on the path; the project is a
    copy, so that it leaves nothing in this one.
    """
    tree = tmp_path / "a copy"
    for folder in ("components", "pipelines"):
        shutil.copytree(ROOT / folder, tree / folder, ignore=shutil.ignore_patterns("__pycache__"))
    (tree / "docs").mkdir()
    programs = str(Path(sys.executable).parent)
    elsewhere = [folder for folder in os.environ["PATH"].split(os.pathsep) if folder != programs]
    monkeypatch.setenv("PATH", os.pathsep.join(elsewhere))
    monkeypatch.setenv("PYTHONPATH", str(tree))
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    notebook = nbformat.read(TOUR, as_version=4)
    (first,) = (cell for cell in notebook.cells if "SETTINGS =" in cell.source)
    first.source += f"\nSETTINGS = '{SMALL}'"
    assert shutil.which("fashion-tuning") is None

    NotebookClient(notebook, timeout=800, resources={"metadata": {"path": str(tree / "docs")}}).execute()

    shown = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    text = "\n".join(str(output.get("text", "")) for output in shown)
    assert "finished in" in text
    assert "ERROR" not in text
    assert "\x1b[1A" not in text
    assert 2 <= sum("image/png" in output.get("data", {}) for output in shown)
    assert 4 <= sum("text/html" in output.get("data", {}) for output in shown)
    assert (tree / "runs" / "tour" / "answers.csv").exists()
    assert [] == list((tree / "docs").iterdir())
