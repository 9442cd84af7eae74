"""The compiled graph: what Kubeflow will run."""

import inspect
from pathlib import Path

import pytest
import yaml
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

from components import steps
from components.parameters import CHOICES
from pipelines.compilation import compile_components, compile_pipeline
from pipelines.lint import dangling_inputs
from pipelines.presets import default_parameters
from pipelines.profile import load_profile
from pipelines.targets import IMAGE_TARGETS


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


def test_no_dangling_inputs(spec):
    """Whatever a task refers to is defined by the graph around it."""
    assert [] == dangling_inputs(spec)


def test_every_step_is_in_the_graph_once_per_use(spec):
    """Nine kinds of steps; evaluation stands twice in a comparison."""
    used = [task["componentRef"]["name"] for _, task in tasks(spec)]
    executors = [name for name in used if "dag" not in spec["components"][name]]

    assert sorted([*(f"comp-{s}" for s in IMAGE_TARGETS), "comp-evaluate-2"]) == sorted(executors)


def test_shape_of_the_nested_graphs(spec):
    """Root holds plan, the loop over datasets, report and promote; loops take their lists from the plan."""
    assert {"plan", "each-dataset", "report", "promote"} == set(spec["root"]["dag"]["tasks"])

    loops = [task["parameterIterator"]["items"] for _, task in tasks(spec) if "parameterIterator" in task]
    assert ["inputParameter"] * 3 == [key for items in loops for key in items]


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


def test_step_source_fits_an_argument():
    """Kubeflow passes a step's source in one argument of at most 128 KiB."""
    assert Path(steps.__file__).stat().st_size < 131_072
