"""What is typed into Kubeflow's form reaches the code that trains."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.parameters import DataSettings, PromotionSettings, RunParameters, SearchSettings, TrainSettings
from components.plan import make_plan
from tests.fakes.kfp_api import ApiError, FakeKfpApi

ROOT = Path(__file__).resolve().parents[2]
TYPED = {
    "data_datasets": '["shoes=DIRECTORY"]',
    "data_validation_fraction": "0.2",
    "data_test_fraction": "0.25",
    "data_min_class_count": "5",
    "data_limit": "1000",
    "search_trials": "12",
    "search_minutes": "7",
    "search_workers": "3",
    "search_epochs": "9",
    "search_pruning": "false",
    "search_warm_start": "false",
    "search_mlp_algorithm": "random",
    "search_resnet18_algorithm": "forest",
    "search_space": "wide",
    "study_root": "STUDIES",
    "train_replicates": "2",
    "train_weights": "gs://bucket/resnet18.safetensors",
    "seed": "42",
    "promote_champion": "false",
    "promote_min_gain": "0.01",
}
"""Text of each field of the form, every one other than its default."""
ARRIVES = {
    "data_datasets": [("datasets", [{"name": "shoes", "source": "DIRECTORY"}])],
    "data_validation_fraction": [("data", "validation_fraction", 0.2)],
    "data_test_fraction": [("data", "test_fraction", 0.25)],
    "data_min_class_count": [("data", "min_class_count", 5)],
    "data_limit": [("data", "limit", 1000)],
    "search_trials": [("search", "trials", 12)],
    "search_minutes": [("search", "minutes", 7.0)],
    "search_workers": [("search", "workers", 3), ("workers", ["worker-0", "worker-1", "worker-2"])],
    "search_epochs": [("search", "epochs", 9), ("train", "epochs", 9)],
    "search_pruning": [("search", "pruning", False)],
    "search_warm_start": [("search", "warm_start", False)],
    "search_mlp_algorithm": [("search", "mlp_algorithm", "random")],
    "search_resnet18_algorithm": [("search", "resnet18_algorithm", "forest")],
    "search_space": [("search", "space", "wide")],
    "study_root": [("run", "study_root", "STUDIES")],
    "train_replicates": [("train", "replicates", 2)],
    "train_weights": [("train", "weights", "gs://bucket/resnet18.safetensors")],
    "seed": [("data", "seed", 42), ("search", "seed", 42), ("train", "seed", 42)],
    "promote_champion": [("promotion", "champion", False)],
    "promote_min_gain": [("promotion", "min_gain", 0.01)],
}
"""Where each of them must arrive: an output of the plan step, as its consumer reads it."""


def filled_in(tmp_path: Path) -> dict[str, str]:
    """The form with this test's folders."""
    (tmp_path / "shoes").mkdir(exist_ok=True)
    places = {"DIRECTORY": str(tmp_path / "shoes"), "STUDIES": str(tmp_path / "studies")}
    form = dict(TYPED)
    for place, path in places.items():
        form = {name: text.replace(place, path) for name, text in form.items()}
    return form


def sent_by_the_form(text: str, kind: str) -> Any:
    """What Kubeflow's form makes of a field's text before it sends it."""
    if kind in ("LIST", "STRUCT"):
        return json.loads(text)
    if kind == "BOOLEAN":
        return {"true": True, "false": False}[text]
    return float(text) if kind.startswith("NUMBER") else text


def handed_on_by_the_driver(value: Any) -> Any:
    """The back end stores numbers as doubles and prints whole ones without a point."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def as_settings(outputs: dict[str, Any]) -> dict[str, Any]:
    """The plan's outputs as ingest, search and training read them, whole numbers having become floats on the way."""
    parts = {
        "data": DataSettings,
        "search": SearchSettings,
        "train": TrainSettings,
        "promotion": PromotionSettings,
    }
    floats = {n: {k: float(v) if type(v) is int else v for k, v in outputs[n].items()} for n in parts}
    read = {name: settings.from_dict(floats[name]).to_dict() for name, settings in parts.items()}
    datasets = [{key: entry[key] for key in ("name", "source")} for entry in outputs["datasets"]]
    return {**outputs, **read, "datasets": datasets}


@pytest.fixture(scope="module")
def planned(compiled: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Outputs of the compiled plan step, run as the launcher runs it, with the form's values."""
    tmp_path = tmp_path_factory.mktemp("form")
    spec = next(yaml.safe_load_all(compiled.read_text()))
    declared = spec["root"]["inputDefinitions"]["parameters"]
    form = filled_in(tmp_path)
    sent = {name: sent_by_the_form(form[name], declared[name]["parameterType"]) for name in declared}
    values = {name: handed_on_by_the_driver(value) for name, value in sent.items()} | {"run_id": "0-1"}
    outputs = spec["components"]["comp-plan"]["outputDefinitions"]["parameters"]
    markdown = {"name": "overview", "type": {"schemaTitle": "system.Markdown"}, "uri": str(tmp_path / "overview.md")}
    executor_input = {
        "inputs": {"parameterValues": values},
        "outputs": {
            "parameters": {name: {"outputFile": str(tmp_path / name)} for name in outputs},
            "artifacts": {"overview": {"artifacts": [markdown]}},
            "outputFile": str(tmp_path / "output.json"),
        },
    }
    container = spec["deploymentSpec"]["executors"]["exec-plan"]["container"]
    command = [*container["command"], *container["args"]]
    command = [json.dumps(executor_input) if part == "{{$}}" else part for part in command]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert 0 == result.returncode, result.stderr
    read = json.loads((tmp_path / "output.json").read_text())["parameterValues"]
    text = json.dumps(as_settings(read)).replace(str(tmp_path / "shoes"), "DIRECTORY")
    return json.loads(text.replace(str(tmp_path / "studies"), "STUDIES"))


def test_every_parameter_is_tried(compiled: Path) -> None:
    """The tables here name exactly the parameters of the compiled pipeline."""
    declared = next(yaml.safe_load_all(compiled.read_text()))["root"]["inputDefinitions"]["parameters"]

    assert set(declared) == set(TYPED) == set(ARRIVES)


@pytest.mark.parametrize("name", sorted(TYPED))
def test_a_field_of_the_form_reaches_the_code_that_uses_it(planned: dict[str, Any], name: str) -> None:
    """The text of the field, sent as the form sends it, arrives with its value and its type."""
    for *way, expected in ARRIVES[name]:
        arrived: Any = planned
        for key in way:
            arrived = arrived[key]

        assert (type(expected), expected) == (type(arrived), arrived)


@pytest.mark.parametrize("name", sorted(TYPED))
def test_plain_text_is_as_good(tmp_path: Path, name: str) -> None:
    """A client that sends every value as text gets the same plan as one that sends types."""
    defaults = {n: text for n, text in filled_in(tmp_path).items() if n != name}
    text = filled_in(tmp_path)[name]
    checked = RunParameters.from_dict({**defaults, name: text})

    plan = make_plan("0-1", {**defaults, name: text}, str(tmp_path / "overview.md"))
    assert checked.to_dict() == plan.parameters
    assert 1 == (tmp_path / "overview.md").read_text().count(f"| {name} |")


def test_the_server_takes_what_the_form_sends(kubeflow: FakeKfpApi, cluster: str) -> None:
    """Each value has the type that the compiled pipeline declares; another type is refused."""
    from pipelines.__main__ import run

    run(["submit", "--cluster", cluster])
    (started,) = kubeflow.runs.values()
    (version,) = kubeflow.versions.values()
    declared = version["pipeline_spec"]["pipeline_spec"]["root"]["inputDefinitions"]["parameters"]
    body = {key: started[key] for key in ("experiment_id", "pipeline_version_reference")} | {"display_name": "by hand"}
    for name, text in TYPED.items():
        value = sent_by_the_form(text, declared[name]["parameterType"])
        kubeflow._create_run({}, {**body, "runtime_config": {"parameters": {name: value}}})
        with pytest.raises(ApiError, match=name):
            kubeflow._create_run({}, {**body, "runtime_config": {"parameters": {name: {"not": "it"}}}})

    assert 1 + len(TYPED) == len(kubeflow.runs)


def test_wrong_values_end_in_the_plan_step_with_every_problem(tmp_path: Path) -> None:
    """The plan step's Markdown lists all of them."""
    from components.errors import ParameterError

    wrong = {**filled_in(tmp_path), "search_trials": "many", "search_pruning": "perhaps", "data_test_fraction": "2"}
    with pytest.raises(ParameterError) as refused:
        make_plan("0-1", wrong, str(tmp_path / "overview.md"))

    lines = [line for line in (tmp_path / "overview.md").read_text().splitlines() if line.startswith("- ")]
    assert [3, 3] == [len(refused.value.problems), len(lines)]
