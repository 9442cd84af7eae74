"""A third approach in the whole pipeline, added to a copy of the project by following CONTRIBUTING.md to the letter."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
LINE = (
    '    Approach(name="softmax", title="Softmax", module=f"{_MODELS}.softmax.training", sampler=_SKOPT,'
    ' algorithms=("random",), image="base", colors=("#226622", "#88cc88")),\n'
)
TINY = ("data_limit=300", "search_trials=1", "search_workers=1", "search_epochs=1", "train_replicates=1")


def like_resnet18(text: str) -> str:
    return text.replace("resnet18", "softmax").replace("ResNet18", "Softmax")


def repeat_blocks(text: str) -> str:
    """Repeat each block of lines that name resnet18; a run parameter for the algorithm is needed by none with one."""
    blocks = r"(?:^(?!.*(?:algorithm|paths\()).*resnet18.*\n)+"
    return re.sub(blocks, lambda block: block[0] + like_resnet18(block[0]), text, flags=re.M)


def add_approach(tree: Path) -> None:
    """Follow "How to add an approach"."""
    for folder in ("components", "pipelines"):
        shutil.copytree(ROOT / folder, tree / folder, ignore=shutil.ignore_patterns("__pycache__"))
    module = tree / "components" / "models" / "softmax"
    module.mkdir()
    (module / "__init__.py").touch()
    code = (ROOT / "tests" / "third_approach.py").read_text()
    (module / "training.py").write_text(code[: code.index("LINE = ")])

    approaches = tree / "components" / "approaches.py"
    text = approaches.read_text()
    approaches.write_text(text.replace(")}\n# fmt: on", f"{LINE})}}\n# fmt: on"))

    steps = tree / "components" / "steps.py"
    wrapper = r"@_component\ndef (?:search|train)_resnet18\((?:.|\n)*?(?=\n\n\n@_component)"
    head, *rest = re.split(f"({wrapper})", steps.read_text())
    parts = [part if number % 2 else repeat_blocks(part) for number, part in enumerate([head, *rest])]
    wrappers = [f"{part}\n\n\n{like_resnet18(part)}" if number % 2 else part for number, part in enumerate(parts)]
    steps.write_text(re.sub(r"(\w+)_resnet18\)", r"\1_resnet18, \1_softmax)", "".join(wrappers)))

    graph = tree / "pipelines" / "fashion_tuning.py"
    graph.write_text(repeat_blocks(graph.read_text()))


def run(tree: Path, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "pipelines", *arguments]
    environment = os.environ | {"PYTHONPATH": str(tree), "IMAGE_TAG": "0123456789ab"}
    return subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    tree = tmp_path_factory.mktemp("project")
    add_approach(tree)
    return tree


def test_a_third_approach_is_in_the_graph(tree, tmp_path):
    """It compiles, Kubeflow's driver would take it, and it has its search, training, evaluation and place in the report."""
    ended = run(tree, "compile", "--cluster", "kind", "--output", str(tmp_path / "p.yaml"))
    assert 0 == ended.returncode, ended.stderr
    components = next(yaml.safe_load_all((tmp_path / "p.yaml").read_text()))["components"]

    assert {"comp-search-softmax", "comp-train-softmax", "comp-evaluate-3"} <= set(components)
    assert "evaluations_softmax" in components["comp-report"]["inputDefinitions"]["artifacts"]
    assert "models_softmax" in components["comp-promote"]["inputDefinitions"]["artifacts"]


def test_the_approach_is_added_in_few_places(tree):
    """One line in the registry, two wrappers and their inputs: nothing else in the project names the approaches."""
    places = {}
    for file in sorted((tree / "components").rglob("*.py")) + sorted((tree / "pipelines").rglob("*.py")):
        name = str(file.relative_to(tree))
        before = (ROOT / name).read_text().splitlines() if (ROOT / name).exists() else []
        if added := len(file.read_text().splitlines()) - len(before):
            places[name] = added

    assert 1 == places["components/approaches.py"]
    assert {
        "components/approaches.py",
        "components/models/softmax/training.py",
        "components/steps.py",
        "pipelines/fashion_tuning.py",
    } == set(places)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_third_approach_goes_through_the_pipeline(tree, tmp_path):
    """The run on this machine searches, trains, evaluates and compares all three."""
    sets = [flag for setting in TINY for flag in ("--set", setting)]
    source = tmp_path / "sample"
    assert 0 == run(tree, "sample-data", str(source)).returncode
    dataset = f"fashion-mnist={source / 'fashion-mnist'}"

    ended = run(tree, "run", "--dataset", dataset, "--out", str(tmp_path / "out"), *sets)

    assert 0 == ended.returncode, ended.stderr
    approaches = json.loads((tmp_path / "out" / "summary.json").read_text())["datasets"]["fashion-mnist"]["approaches"]
    assert ["mlp", "resnet18", "softmax"] == sorted(approaches)
    assert {"completed": 1} == {k: v for k, v in approaches["softmax"]["trials"].items() if v}
