import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from components.approaches import APPROACHES, SPACES
from components.parameters import CHOICES
from components.text import approach_name

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("approach", APPROACHES.values(), ids=lambda approach: approach.name)
def test_a_line_says_what_is_there(approach):
    """Names fit into studies, steps and labels, modules and samplers exist, the image is a target, colours are colours."""
    module = ROOT / f"{approach.module.replace('.', '/')}.py"
    sampler = ROOT / f"{approach.sampler.partition(':')[0].replace('.', '/')}.py"

    assert re.fullmatch(r"[a-z][a-z0-9]*", approach.name)
    assert f'APPROACH = "{approach.name}"' in module.read_text(encoding="utf-8")
    assert f"class {approach.sampler.partition(':')[2]}" in sampler.read_text(encoding="utf-8")
    assert f" AS {approach.image}\n" in (ROOT / "images" / "Dockerfile").read_text(encoding="utf-8")
    assert [] == [color for color in approach.colors if not re.fullmatch(r"#[0-9a-f]{6}", color)]
    assert approach.algorithms == CHOICES[f"search_{approach.name}_algorithm"]
    assert approach.title == approach_name(approach.name)


def test_a_third_approach_is_one_module_and_one_line(tmp_path):
    """Search, training, evaluation and report take it as they take the others."""
    command = [sys.executable, "-m", "tests.third_approach", str(tmp_path)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert 0 == ended.returncode, ended.stderr
    told = json.loads(ended.stdout.splitlines()[-1])
    summary = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))
    model = json.loads((tmp_path / "model" / "model.json").read_text(encoding="utf-8"))
    found = summary["datasets"]["fashion-mnist"]["approaches"]["softmax"]
    page = (tmp_path / "report.html").read_text(encoding="utf-8")

    assert "base" == told["targets"]["search-softmax"] == told["targets"]["train-softmax"]
    assert "train-softmax" in told["groups"]["train"]
    assert 3 == found["trials"]["completed"] + found["trials"]["pruned"]
    assert found["accuracy"] > 0.3
    assert found["best_hyperparameters"] == model["hyperparameters"]
    assert {"weight_decay": 0.0001} == model["fixed"]
    assert '<span class="name softmax">Softmax</span>' in page
    assert ":root { --softmax: #226622; }" in page
    assert "MLP and ResNet18 has no usable model" in page


def test_every_approach_offers_every_space():
    """The form's choice holds for all of them."""
    for approach in APPROACHES.values():
        text = (ROOT / f"{approach.module.replace('.', '/')}.py").read_text(encoding="utf-8")
        assert all(f'"{space}": Space(' in text for space in SPACES)
