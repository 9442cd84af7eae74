"""The check of what Kubeflow's driver checks: every kind of mistake is found before anything is submitted."""

import copy
import json

import pytest
import yaml
from google.protobuf import json_format
from kfp import dsl

from pipelines import compilation
from pipelines.__main__ import run as main
from pipelines.compilation import compile_pipeline
from pipelines.driver_rules import driver_problems
from pipelines.profile import load_profile


@dsl.component(base_image="x", install_kfp_package=False)
def count(n: int, text: str = "") -> int:
    return n + len(text)


@dsl.pipeline(name="graph")
def graph(numbers: list[int], n: int = 1) -> int:
    first = count(n=n)
    with dsl.ParallelFor(numbers) as number:
        count(n=number, text="x").after(first)
    with dsl.If(n == 1):
        count(n=first.output)
    return first.output


SPEC = graph.pipeline_spec
LOOP, CONDITION = "comp-for-loop-1", "comp-condition-2"


@pytest.fixture
def spec():
    return copy.deepcopy(json_format.MessageToDict(SPEC))


def test_sound_graph_has_no_problems(spec):
    """Loops, conditions, defaults, outputs and waiting tasks of a sound graph are all understood."""
    assert [] == driver_problems([spec])


def test_resource_given_as_run_parameter_in_a_loop_is_found():
    """Kfp compiles a GPU count given as a run parameter inside a loop into a reference that nothing declares."""

    @dsl.pipeline(name="trap")
    def trap(numbers: list, gpus: str = "1"):
        with dsl.ParallelFor(numbers) as number:
            count(n=number).set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(gpus)

    problems = driver_problems([json_format.MessageToDict(trap.pipeline_spec)])

    assert any("pipelinechannel--gpus" in problem for problem in problems), problems


def tasks(spec, component="root"):
    return (spec["root"] if component == "root" else spec["components"][component])["dag"]["tasks"]


BREAKS = {
    "root/count reads 'n' from 'm', which its parent does not declare": lambda s: tasks(s)["count"]["inputs"][
        "parameters"
    ]["n"].update(componentInputParameter="m"),
    "root/count needs parameter 'n', which nothing gives": lambda s: tasks(s)["count"]["inputs"]["parameters"].pop("n"),
    "root/count calls 'comp-gone', which is no component": lambda s: tasks(s)["count"]["componentRef"].update(
        name="comp-gone"
    ),
    "root/for-loop-1 loops over 'gone', which it does not receive": lambda s: tasks(s)["for-loop-1"][
        "parameterIterator"
    ]["items"].update(inputParameter="gone"),
    "root/for-loop-1 waits for 'gone', which is no task beside it": lambda s: tasks(s)["for-loop-1"].update(
        dependentTasks=["gone"]
    ),
    "root gives 'Output' from 'gone', which is no task beside it": lambda s: s["root"]["dag"]["outputs"]["parameters"][
        "Output"
    ]["valueFromParameter"].update(producerSubtask="gone"),
    "root gives 'Output' from 'count', which has no output parameter 'other'": lambda s: s["root"]["dag"]["outputs"][
        "parameters"
    ]["Output"]["valueFromParameter"].update(outputParameterKey="other"),
    "comp-count runs 'exec-gone', which is no executor": lambda s: s["components"]["comp-count"].update(
        executorLabel="exec-gone"
    ),
    "decides by 'pipelinechannel--n', which it does not receive": lambda s: tasks(s)["condition-2"]["inputs"][
        "parameters"
    ].pop("pipelinechannel--n"),
}


@pytest.mark.parametrize("problem", BREAKS)
def test_dangling_reference_is_found(spec, problem):
    """Each kind of reference to nothing is named with the place it stands in."""
    BREAKS[problem](spec)

    assert any(problem in found for found in driver_problems([spec])), driver_problems([spec])


@dsl.component(base_image="x", install_kfp_package=False)
def tell(status: dsl.PipelineTaskFinalStatus, n: int) -> int:
    return n + len(status.state)


@dsl.pipeline(name="guarded")
def guarded(n: int = 1):
    with dsl.ExitHandler(tell(n=n)):
        count(n=n)


GUARDED = json_format.MessageToDict(guarded.pipeline_spec)
EXIT_BREAKS = {
    "root/tell reads 'status' from the end of 'gone', which is no task beside it": lambda t: t["tell"]["inputs"][
        "parameters"
    ]["status"]["taskFinalStatus"].update(producerTask="gone"),
    "root/tell is an exit task of nothing": lambda t: t["tell"].pop("dependentTasks"),
    "root/exit-handler-1 waits for 'tell', which is an exit task": lambda t: t["exit-handler-1"].update(
        dependentTasks=["tell"]
    ),
    "root/tell-2 and tell are both exit tasks of 'exit-handler-1', which runs one": lambda t: t.update(
        {"tell-2": copy.deepcopy(t["tell"])}
    ),
    "root has nothing but exit tasks": lambda t: t.pop("exit-handler-1"),
}


def test_exit_task_is_understood():
    """An exit task may ask for the final status of the graph that it waits for."""
    assert [] == driver_problems([GUARDED])


@pytest.mark.parametrize("problem", EXIT_BREAKS)
def test_exit_task_that_cannot_run_is_found(problem):
    """Kubeflow makes an exit task a hook of the one task it waits for: there is one each, and nothing waits for it."""
    broken = copy.deepcopy(GUARDED)
    EXIT_BREAKS[problem](tasks(broken))

    assert problem in driver_problems([broken])


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    path = compile_pipeline(tmp_path_factory.mktemp("compiled") / "p.yaml", load_profile("kind"))
    return list(yaml.safe_load_all(path.read_text()))


@pytest.fixture
def compiled_documents(compiled):
    """The pipeline as it is submitted, with its platform part; each test gets one to change."""
    return copy.deepcopy(compiled)


def test_the_real_pipeline_is_sound(compiled_documents):
    """Nothing in the pipeline that is shipped would be refused."""
    assert [] == driver_problems(compiled_documents)


def test_item_of_a_bare_list_is_no_struct():
    """The item of a list without a type is text; the driver refuses it where a struct is expected."""

    @dsl.component(base_image="x", install_kfp_package=False)
    def read(dataset: dict) -> str:
        return str(dataset)

    @dsl.pipeline(name="inner")
    def inner(dataset: dict):
        read(dataset=dataset)

    def problems(kind):
        @dsl.pipeline(name="outer")
        def outer(datasets: kind):
            with dsl.ParallelFor(datasets) as dataset:
                inner(dataset=dataset)

        return driver_problems([json_format.MessageToDict(outer.pipeline_spec)])

    assert ["comp-for-loop-1/inner reads 'dataset': expect STRUCT, got string"] == problems(list)
    assert [] == problems(list[dict])


def given(documents, graph, task, kind="parameters"):
    """The inputs of a task of a graph."""
    return tasks(documents[0], graph)[task].setdefault("inputs", {}).setdefault(kind, {})


EACH, LOOP_TASKS, MLP = "comp-each-dataset", "comp-for-loop-1", "comp-for-loop-2"
SEEDED = {
    "reads 'data': expect STRUCT, got string": lambda d: given(d, LOOP_TASKS, "ingest").update(
        data={"runtimeValue": {"constant": "x"}}
    ),
    "reads 'searched': expect LIST, got number": lambda d: given(d, LOOP_TASKS, "train-mlp").update(
        searched={"runtimeValue": {"constant": 3}}
    ),
    "reads 'run': expect STRUCT, got list": lambda d: given(d, "root", "report").update(
        run={"taskOutputParameter": {"producerTask": "plan", "outputParameterKey": "datasets"}}
    ),
    "needs parameter 'run', which nothing gives": lambda d: given(d, "root", "promote").pop("run"),
    "needs artifact 'model', which nothing gives": lambda d: given(d, LOOP_TASKS, "evaluate", "artifacts").pop("model"),
    "from 'plam', which is no task beside it": lambda d: given(d, "root", "each-dataset").update(
        datasets={"taskOutputParameter": {"producerTask": "plam", "outputParameterKey": "datasets"}}
    ),
    "from 'ingest', which has no output artifact 'overlook'": lambda d: given(
        d, LOOP_TASKS, "train-mlp", "artifacts"
    ).update(train_data={"taskOutputArtifact": {"producerTask": "ingest", "outputArtifactKey": "overlook"}}),
    "from 'ingest', which has no output parameter 'train_data'": lambda d: given(d, LOOP_TASKS, "train-mlp").update(
        run={"taskOutputParameter": {"producerTask": "ingest", "outputParameterKey": "train_data"}}
    ),
    "from 'train-mlp', which is no task beside it": lambda d: given(d, "root", "report", "artifacts").update(
        test_data={"taskOutputArtifact": {"producerTask": "train-mlp", "outputArtifactKey": "model"}}
    ),
    "loops over 'pipelinechannel--run': a struct cannot be iterated": lambda d: tasks(d[0], LOOP_TASKS)["for-loop-2"][
        "parameterIterator"
    ]["items"].update(inputParameter="pipelinechannel--run"),
    "loops over 'pipelinechannel--workers': 'worker-0' is no list": lambda d: given(d, LOOP_TASKS, "for-loop-2").update(
        {"pipelinechannel--workers": {"runtimeValue": {"constant": "worker-0"}}}
    ),
    "reads 'worker' from 'pipelinechannel--gpu', which its parent does not declare": lambda d: given(
        d, MLP, "search-mlp"
    )["worker"].update(componentInputParameter="pipelinechannel--gpu"),
    "reads parameter 'pipelinechannel--gpu', which it does not declare": lambda d: d[0]["deploymentSpec"]["executors"][
        "exec-search-mlp"
    ]["container"]["resources"].update(resourceCpuLimit="{{$.inputs.parameters['pipelinechannel--gpu']}}"),
    "takes its resourceCpuLimit from 'search', which is no text": lambda d: d[0]["deploymentSpec"]["executors"][
        "exec-search-mlp"
    ]["container"]["resources"].update(resourceCpuLimit="{{$.inputs.parameters['search']}}"),
    "takes a setting of its pod from 'secret', which its parent does not declare": lambda d: d[1]["platforms"][
        "kubernetes"
    ]["deploymentSpec"]["executors"]["exec-plan"]["secretAsEnv"][0].update(
        secretNameParameter={"componentInputParameter": "secret"}
    ),
    "loops over artifacts, which the driver cannot": lambda d: tasks(d[0], EACH)["for-loop-1"].update(
        artifactIterator={}
    ),
    "'secret' from ['runtimeParameter'], which the driver does not know": lambda d: given(d, "root", "plan").update(
        secret={"runtimeParameter": "x"}
    ),
    "may be null": lambda d: d[0]["root"]["inputDefinitions"]["parameters"]["seed"].pop("defaultValue"),
    "'small' is none of ['described', 'wide']": lambda d: (
        d[0]["components"]["comp-plan"]["inputDefinitions"]["parameters"]["search_space"].update(
            literals=["described", "wide"]
        ),
        given(d, "root", "plan").update(search_space={"runtimeValue": {"constant": "small"}}),
    ),
    "root declares 'seed' with a default of another type": lambda d: d[0]["root"]["inputDefinitions"]["parameters"][
        "seed"
    ].update(defaultValue="0"),
    "comp-search-resnet18 and comp-evaluate run equal containers": lambda d: d[0]["deploymentSpec"]["executors"].update(
        {"exec-search-resnet18": d[0]["deploymentSpec"]["executors"]["exec-evaluate"]}
    ),
    "root waits for itself": lambda d: tasks(d[0])["plan"].update(dependentTasks=["promote"]),
}


@pytest.mark.parametrize("problem", SEEDED)
def test_seeded_mistake_is_found(compiled_documents, problem):
    """Each mistake, put into the pipeline that is shipped, is named with the task it is in; nothing else is."""
    SEEDED[problem](compiled_documents)
    found = driver_problems(compiled_documents)

    assert any(problem in each for each in found), found


def test_compile_says_what_it_wrote(tmp_path, capsys):
    """`--json` names the files by kind."""
    path = tmp_path / "p.yaml"

    assert 0 == main(["compile", "--cluster", "kind", "--output", str(path), "--json"])
    assert {"pipeline": [str(path)], "components": [], "manifest": []} == json.loads(capsys.readouterr().out)


def test_compile_refuses_what_the_driver_would_refuse(tmp_path, monkeypatch, capsys):
    """One line with exit code 70, and no file that could be submitted."""
    monkeypatch.setattr(compilation, "driver_problems", lambda _: ["root/plan reads 'seed': expect STRUCT, got string"])

    assert 70 == main(["compile", "--cluster", "kind", "--output", str(tmp_path / "p.yaml")])
    assert "root/plan reads 'seed': expect STRUCT, got string" in capsys.readouterr().err
    assert not (tmp_path / "p.yaml").exists()
