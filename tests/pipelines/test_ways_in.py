"""What the pages about the ways in say is so: every field, every command, every step."""

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.__main__ import run
from pipelines.presets import default_parameters
from tests.fakes.kfp_api import FakeKfpApi

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("ui", "schedule", "ci")
VIEWERS = {"system.Markdown", "system.HTML", "system.Metrics", "system.ClassificationMetrics"}


def commands(pattern: str) -> list[str]:
    """Commands in the code blocks and tables of the pages."""
    text = "\n".join((ROOT / "docs" / f"{page}.md").read_text() for page in PAGES)
    found = re.findall(rf"^({pattern}[^\n]*)$|`({pattern}[^`\n]*)`", text, re.MULTILINE)
    return list(dict.fromkeys((block or inline).strip() for block, inline in found))


@pytest.fixture(scope="module")
def spec(compiled: Path) -> dict[str, Any]:
    """The compiled pipeline."""
    return next(yaml.load_all(compiled.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))


@pytest.mark.parametrize("command", commands("fashion-tuning "))
def test_commands_of_the_pages_work(
    kubeflow: FakeKfpApi, cluster: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: str
) -> None:
    """Each is run as it stands, on another cluster."""
    monkeypatch.chdir(tmp_path)
    arguments = shlex.split(command)[1:]
    if "gke" in arguments:
        arguments[arguments.index("gke")] = cluster

    assert 0 == run(arguments)
    assert bool(kubeflow.requests)


@pytest.mark.parametrize("command", [c for c in commands("make [a-z]+ ") if "CLUSTER" in c])
def test_make_commands_of_the_pages_work(
    kubeflow: FakeKfpApi, cluster: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: str
) -> None:
    """What make would do is run, on another cluster."""
    target = shlex.split(command)
    printed = subprocess.run(
        [target[0], "-n", *target[1:]], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    (line,) = (line for line in printed.splitlines() if f"-m pipelines {target[1]}" in line)
    monkeypatch.chdir(tmp_path)
    arguments = [cluster if part == "gke" else part for part in shlex.split(line)[3:]]

    assert 0 == run(arguments)
    assert 1 + bool(kubeflow.requests) <= 2


def test_every_field_of_the_form_is_explained() -> None:
    """The page's table names the parameters of the signature, in the form's order."""
    named = re.findall(r"^\| `([a-z0-9_]+)` \|", (ROOT / "docs" / "ui.md").read_text(), re.MULTILINE)

    assert sorted(default_parameters("")) == named


def test_the_form_is_usable(spec: dict[str, Any]) -> None:
    """Every field has a type and a default that is in range, choices are drop-downs, the page says what it costs."""
    declared = spec["root"]["inputDefinitions"]["parameters"]

    assert [] == [name for name, field in declared.items() if "defaultValue" not in field]
    assert {"search_mlp_algorithm", "search_resnet18_algorithm", "search_space"} == {
        name for name, field in declared.items() if "literals" in field
    }
    assert [] == [n for n, f in declared.items() if "literals" in f and f["defaultValue"] not in f["literals"]]
    assert "Cost:" in spec["pipelineInfo"]["description"]
    assert "Fashion tuning: MLP or ResNet18?" == spec["pipelineInfo"]["displayName"]


def test_every_step_has_a_name_and_something_to_look_at(spec: dict[str, Any]) -> None:
    """No step is a bare function name, and each has an artifact that the UI renders."""
    steps = {}
    for component in (spec["root"], *spec["components"].values()):
        for name, task in component.get("dag", {}).get("tasks", {}).items():
            inner = spec["components"][task["componentRef"]["name"]]
            if "dag" not in inner:
                artifacts = inner.get("outputDefinitions", {}).get("artifacts", {}).values()
                steps[name] = (task["taskInfo"]["name"], {a["artifactType"]["schemaTitle"] for a in artifacts})

    assert [] == [name for name, (shown, _) in steps.items() if shown == name]
    assert [] == [name for name, (_, kinds) in steps.items() if not kinds & VIEWERS]
    page = (ROOT / "docs" / "ui.md").read_text()
    assert [] == [shown for shown, _ in steps.values() if shown not in page]
