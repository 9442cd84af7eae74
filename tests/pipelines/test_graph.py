"""The compiled graph: what Kubeflow will run."""

import inspect
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

from components import steps
from components.parameters import CHOICES
from pipelines.compilation import compile_components, compile_pipeline
from pipelines.driver_rules import driver_problems
from pipelines.presets import default_parameters
from pipelines.profile import load_profile
from pipelines.targets import IMAGE_TARGETS

ROOT = Path(__file__).resolve().parents[2]
IN_GRAPH = [step for step in IMAGE_TARGETS if step != "notify"]
"""Nobody is told anything unless the cluster profile says so."""


@pytest.fixture(scope="module")
def spec(tmp_path_factory) -> dict:
    path = compile_pipeline(tmp_path_factory.mktemp("compiled") / "pipeline.yaml", load_profile("local"))
    return next(yaml.safe_load_all(path.read_text()))


def dags(spec):
    """Yield (name, dag, its input definitions) of the root and of every nested graph."""
    yield "root", spec["root"]["dag"], spec["root"].get("inputDefinitions", {})
    for name, component in spec["components"].items():
        if "dag" in component:
            yield name, component["dag"], component.get("inputDefinitions", {})


def tasks(spec):
    """Yield (task name, task) of every graph."""
    for _, dag, _ in dags(spec):
        yield from dag["tasks"].items()


def test_parses_against_the_specification(spec):
    """The YAML is a pipeline specification without unknown fields."""
    parsed = json_format.ParseDict(spec, pipeline_spec_pb2.PipelineSpec())

    assert parsed.pipeline_info.name == "fashion-tuning"


def test_compiling_twice_gives_the_same_file(tmp_path):
    """The YAML can be kept under version control and compared."""
    profile = load_profile("local")
    first = compile_pipeline(tmp_path / "a.yaml", profile).read_bytes()

    assert first == compile_pipeline(tmp_path / "b.yaml", profile).read_bytes()


def test_the_driver_accepts_every_task(spec):
    """Whatever a task refers to is defined by the graph around it."""
    assert [] == driver_problems([spec])


def test_every_step_is_in_the_graph_once_per_use(spec):
    """Nine kinds of steps; evaluation stands twice in a comparison."""
    used = [task["componentRef"]["name"] for _, task in tasks(spec)]
    executors = [name for name in used if "dag" not in spec["components"][name]]

    assert sorted([*(f"comp-{s}" for s in IN_GRAPH), "comp-evaluate-2"]) == sorted(executors)


def test_shape_of_the_nested_graphs(spec):
    """Root holds plan, the loop over datasets, report and promote; loops take their lists from the plan."""
    assert {"plan", "each-dataset", "report", "promote"} == set(spec["root"]["dag"]["tasks"])

    loops = [task["parameterIterator"]["items"] for _, task in tasks(spec) if "parameterIterator" in task]
    assert ["inputParameter"] * 2 == [key for items in loops for key in items]


def test_searches_and_trainings_never_receive_test_data(spec):
    """Following every artifact to its producer, no search or training task reaches ingest's `test_data`."""
    graphs = {name: dag for name, dag, _ in dags(spec)}

    def origins(graph: str, artifact: dict) -> set[str]:
        if "taskOutputArtifact" in artifact:
            return {artifact["taskOutputArtifact"]["outputArtifactKey"]}
        found = set()
        for parent, dag in graphs.items():
            for task in dag["tasks"].values():
                if task["componentRef"]["name"] == graph:
                    given = task["inputs"]["artifacts"][artifact["componentInputArtifact"]]
                    found |= origins(parent, given)
        return found

    seen = {}
    for name, dag in graphs.items():
        for task_name, task in dag["tasks"].items():
            if task_name.startswith(("search-", "train-")):
                for artifact in task.get("inputs", {}).get("artifacts", {}).values():
                    seen.setdefault(task_name, set()).update(origins(name, artifact))

    assert {"search-mlp", "search-resnet18", "train-mlp", "train-resnet18"} <= set(seen)
    assert {"train_data"} == set().union(*seen.values())


def test_defaults_are_those_of_the_signature(spec):
    """The command line reads the defaults without kfp and finds what the compiled pipeline declares."""
    declared = spec["root"]["inputDefinitions"]["parameters"]

    assert default_parameters("") == {"study_root": ""} | {n: p.get("defaultValue") for n, p in declared.items()}


def test_steps_with_side_effects_are_never_cached(spec):
    """Only steps whose result depends on nothing but their inputs may be reused."""
    cached = {name for name, task in tasks(spec) if task.get("cachingOptions", {}).get("enableCache")}
    leaves = {name for name in cached if "dag" not in spec["components"][f"comp-{name}"]}

    assert {"ingest", "train-mlp", "train-resnet18", "evaluate", "evaluate-2"} == leaves


def test_every_step_has_a_readable_name(spec):
    """No node of the UI shows a function's name."""
    assert all(task["taskInfo"]["name"][0].isupper() or " " in task["taskInfo"]["name"] for _, task in tasks(spec))


def test_form_shows_choices_and_descriptions(spec):
    """Closed sets are drop-downs and each parameter is described."""
    declared = spec["root"]["inputDefinitions"]["parameters"]

    shown = {name: tuple(p["literals"]) for name, p in declared.items() if "literals" in p}
    assert shown == CHOICES
    assert all(parameter.get("description") for parameter in declared.values())


def test_nothing_is_installed_at_run_time(spec):
    """The images hold everything: no step calls pip."""
    commands = [e["container"]["command"] for e in spec["deploymentSpec"]["executors"].values()]

    assert not [c for c in commands if any("pip install" in part for part in c)]


def test_plan_takes_exactly_the_run_parameters(spec):
    """The plan step checks every parameter of the form."""
    declared = set(spec["root"]["inputDefinitions"]["parameters"])

    assert declared | {"run_id"} == set(spec["components"]["comp-plan"]["inputDefinitions"]["parameters"])


def test_each_step_is_a_component_of_its_own(tmp_path):
    """`compile --components` writes one loadable YAML per step."""
    from kfp.components import load_component_from_file

    written = compile_components(tmp_path, load_profile("local"))

    assert list(IMAGE_TARGETS) == [load_component_from_file(str(path)).name for path in written]


def test_wrappers_are_thin():
    """A wrapper is about ten lines and has no branch, loop or try of its own."""
    for step in IMAGE_TARGETS:
        source = inspect.getsource(getattr(steps, step.replace("-", "_")).python_func)
        body = source.split('"""')[2]
        statements = [line for line in body.splitlines() if line.strip()]
        assert len(statements) <= 12, step
        assert not [s for s in statements if s.strip().startswith(("if ", "for ", "while ", "try:"))], step


def test_pods_carry_no_source(spec):
    """A step's pod names the function that its image holds: Kubeflow stores each pod's command several times."""
    containers = [e["container"] for e in spec["deploymentSpec"]["executors"].values()]

    assert {("python3", "-m", "components")} == {tuple(c["command"]) for c in containers}
    assert {s.replace("-", "_") for s in IN_GRAPH} == {c["args"][0] for c in containers}


def test_steps_are_given_only_what_they_need(spec):
    """All run parameters together go to plan and report alone; what names a study is enough for the others."""
    given = {name: set(task.get("inputs", {}).get("parameters", ())) for name, task in tasks(spec)}

    assert {"report"} == {name for name, parameters in given.items() if "parameters" in parameters}
    assert {"run", "search", "worker"} == given["search-mlp"]
    assert {"run", "train", "searched"} == given["train-resnet18"]


@pytest.mark.parametrize("number", [4, pytest.param(50, marks=pytest.mark.slow)])
def test_every_process_compiles_the_same_file(tmp_path, number):
    """`submit` knows a version by its content: fresh processes, whose maps differ in order, write the same bytes."""
    program = (
        "import sys; from pathlib import Path; from pipelines.compilation import compile_pipeline;"
        "from pipelines.profile import load_profile; compile_pipeline(Path(sys.argv[1]), load_profile('local'))"
    )
    contents = set()
    for i in range(number):
        environment = os.environ | {"PYTHONHASHSEED": str(i)}
        path = tmp_path / f"{i}.yaml"
        subprocess.run([sys.executable, "-c", program, str(path)], cwd=ROOT, env=environment, check=True)
        contents.add(path.read_bytes())

    assert 1 == len(contents)


def test_nested_pipelines_share_no_component_name(spec):
    """Kubeflow's compiler would tell equal names apart by numbers, in the random order of a map: not the same file twice."""
    names = {f"comp-{name}" for name in (*IN_GRAPH, "evaluate-2", "each-dataset")}

    assert names | {f"comp-for-loop-{n}" for n in (1, 2)} == set(spec["components"])


def test_a_run_parameter_is_added_by_four_lines(tmp_path):
    """Signature, docstring, plan's signature, and a rule: then the form has it and every way in checks it."""
    for folder in ("components", "pipelines"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    additions = {
        "pipelines/fashion_tuning.py": [
            ("        search_epochs: int = 20,", "        search_patience: int = 3,"),
            ("            search_epochs: Most", "            search_patience: Epochs without progress."),
        ],
        "components/steps.py": [("    search_epochs: int,", "    search_patience: int,")],
        "components/parameters.py": [
            ("    epochs: int = _parameter(", "    patience: int = _parameter(_integer(1, 100))")
        ],
    }
    for file, lines in additions.items():
        path = tmp_path / file
        text = path.read_text()
        for before, line in lines:
            (place,) = (found for found in text.splitlines() if found.startswith(before))
            text = text.replace(place, f"{line}\n{place}")
        path.write_text(text)
    program = (
        "from pathlib import Path; from components.parameters import RunParameters;"
        "from pipelines.compilation import compile_pipeline; from pipelines.presets import default_parameters;"
        "from pipelines.profile import load_profile; compile_pipeline(Path('new.yaml'), load_profile('local'));"
        "values = default_parameters('x'); print(RunParameters.from_dict(values).search.patience);"
        "RunParameters.from_dict(values | {'search_patience': 0})"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    declared = next(yaml.safe_load_all((tmp_path / "new.yaml").read_text()))["root"]["inputDefinitions"]["parameters"]

    assert ("3\n", True) == (done.stdout, "search_patience must be a whole number from 1 to 100; got 0" in done.stderr)
    assert ("NUMBER_INTEGER", 3.0) == (
        declared["search_patience"]["parameterType"],
        declared["search_patience"]["defaultValue"],
    )
    assert "Epochs without progress." == declared["search_patience"]["description"]
