import copy

import pytest
from kfp import dsl

from pipelines.lint import dangling_inputs


@dsl.component(base_image="x", install_kfp_package=False)
def count(n: int, text: str = "") -> int:
    return n + len(text)


@dsl.pipeline(name="graph")
def graph(numbers: list, n: int = 1) -> int:
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
    from google.protobuf import json_format

    return copy.deepcopy(json_format.MessageToDict(SPEC))


def test_sound_graph_has_no_problems(spec):
    """Loops, conditions, defaults, outputs and waiting tasks of a sound graph are all understood."""
    assert [] == dangling_inputs(spec)


def test_resource_given_as_run_parameter_in_a_loop_is_found():
    """Kfp compiles a GPU count given as a run parameter inside a loop into a reference that nothing declares."""

    @dsl.pipeline(name="trap")
    def trap(numbers: list, gpus: str = "1"):
        with dsl.ParallelFor(numbers) as number:
            count(n=number).set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(gpus)

    from google.protobuf import json_format

    problems = dangling_inputs(json_format.MessageToDict(trap.pipeline_spec))

    assert any("pipelinechannel--gpus" in problem for problem in problems), problems


def tasks(spec, component="root"):
    return (spec["root"] if component == "root" else spec["components"][component])["dag"]["tasks"]


BREAKS = {
    "root/count reads parameter 'm', which its parent does not declare": lambda s: tasks(s)["count"]["inputs"][
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
    "root gives 'Output' from 'count', which has no output 'other'": lambda s: s["root"]["dag"]["outputs"][
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

    assert any(problem in found for found in dangling_inputs(spec)), dangling_inputs(spec)
