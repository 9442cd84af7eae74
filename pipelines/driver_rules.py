"""What Kubeflow's driver checks when a task starts is checked here on the compiled pipeline, before it is submitted.

kfp, its loader and its local runner accept graphs that the back end refuses in the middle of a run: an input that nothing
gives, an item of a list that is declared as text and read as a struct. Each rule here is the driver's own.

Source: https://github.com/kubeflow/pipelines/tree/2.17.0/backend/src/v2/driver, resolve.go and dag.go.
"""

import graphlib
import json
import re
from collections.abc import Iterator
from typing import Any

Struct = dict[str, Any]
_AT_THE_END = "ALL_UPSTREAM_TASKS_COMPLETED"
"""The trigger of a task that Kubeflow runs as the exit hook of the one that it waits for, outside the graph."""
_PLACEHOLDER = re.compile(r"\$\.inputs\.(parameters|artifacts)\[['\"]([^'\"]+)['\"]\]")
_RESOURCE_FIELDS = re.compile(r"image|resource(?:Cpu|Memory|Type|Count).*")
_KINDS = {
    "STRING": "string",
    "NUMBER_DOUBLE": "number",
    "NUMBER_INTEGER": "number",
    "BOOLEAN": "bool",
    "LIST": "list",
    "STRUCT": "struct",
    "TASK_FINAL_STATUS": "struct",
    "TASK_CONFIG": "struct",
}
"""What a value is in a run, by the type that its parameter declares."""


def driver_problems(documents: list[Struct]) -> list[str]:
    """Return why Kubeflow's driver would refuse a task of a compiled pipeline.

    Args:
        documents: The documents of the compiled YAML: the pipeline, then its platform part where there is one.

    Returns:
        One sentence per problem; empty where every input of every task is given, and has the type that is expected.
    """
    return list(_Check(documents).problems())


def _declared(component: Struct, side: str = "inputDefinitions") -> dict[str, Struct]:
    """Return the parameters and artifacts that a component declares, by name."""
    definitions = component.get(side, {})
    return {kind: definitions.get(kind, {}) for kind in ("parameters", "artifacts")}


def _kind_of_value(value: Any) -> str:
    kinds = {str: "string", bool: "bool", int: "number", float: "number", list: "list", dict: "struct"}
    return kinds.get(type(value), "null")


def _wrong_type(expected: Struct, kind: str | None) -> str:
    """Return what is wrong with a kind of value for a parameter; any value is as good as text, an unknown one is let pass."""
    wanted = expected.get("parameterType", "STRING")
    if kind == "null":
        return f"expect {wanted}, got null"
    return "" if kind in (None, _KINDS[wanted]) or wanted == "STRING" else f"expect {wanted}, got {kind}"


class _Check:
    def __init__(self, documents: list[Struct]) -> None:
        spec = documents[0]
        platform = documents[1] if len(documents) > 1 else {}
        self.root = spec["root"]
        self.components: Struct = spec.get("components", {})
        self.executors: Struct = spec.get("deploymentSpec", {}).get("executors", {})
        kubernetes = platform.get("platforms", {}).get("kubernetes", {})
        self.pods: Struct = kubernetes.get("deploymentSpec", {}).get("executors", {})

    def problems(self) -> Iterator[str]:
        for name, component in {"root": self.root, **self.components}.items():
            for key, definition in _declared(component)["parameters"].items():
                if "defaultValue" in definition:
                    wrong = _wrong_type(definition, _kind_of_value(definition["defaultValue"]))
                    yield from self._named(f"{name} declares {key!r} with a default of another type", wrong)
            if "dag" in component:
                yield from self._graph(name, component)
            elif component.get("executorLabel") not in self.executors:
                yield f"{name} runs {component.get('executorLabel')!r}, which is no executor"
            else:
                yield from self._executor(name, component)

        yield from self._twins()

    def _twins(self) -> Iterator[str]:
        """Yield components of equal containers: Kubeflow 2.17 keeps one specification for all of them."""
        seen: dict[str, tuple[str, list]] = {}
        for name, component in self.components.items():
            if container := self.executors.get(component.get("executorLabel"), {}).get("container"):
                interface = [_declared(component), _declared(component, "outputDefinitions")]
                first, first_interface = seen.setdefault(json.dumps(container, sort_keys=True), (name, interface))
                if first_interface != interface:
                    yield f"{name} and {first} run equal containers, but differ in their inputs or outputs"

    @staticmethod
    def _named(where: str, wrong: str) -> Iterator[str]:
        if wrong:
            yield f"{where}: {wrong}"

    def _executor(self, name: str, component: Struct) -> Iterator[str]:
        """Yield what an executor reads and its component does not declare, or declares as something else than text."""
        declared, executor = _declared(component), self.executors[component["executorLabel"]]
        for kind, key in sorted(set(_PLACEHOLDER.findall(json.dumps(executor).replace('\\"', '"')))):
            if key not in declared[kind]:
                yield f"{name} reads {kind[:-1]} {key!r}, which it does not declare"
        container = executor.get("container", {})
        fields = container | container.get("resources", {}) | container.get("resources", {}).get("accelerator", {})
        for field, value in fields.items():
            for _, key in (
                _PLACEHOLDER.findall(value) if isinstance(value, str) and _RESOURCE_FIELDS.match(field) else ()
            ):
                if declared["parameters"].get(key, {}).get("parameterType", "STRING") != "STRING":
                    yield f"{name} takes its {field} from {key!r}, which is no text: the driver would read nothing"

    def _graph(self, name: str, component: Struct) -> Iterator[str]:
        declared, tasks = _declared(component), component["dag"].get("tasks", {})
        yield from self._exit_tasks(name, tasks)
        order = {}
        for task_name, task in tasks.items():
            where = f"{name}/{task_name}"
            if task["componentRef"]["name"] not in self.components:
                yield f"{where} calls {task['componentRef']['name']!r}, which is no component"
                continue
            yield from self._task(where, task, declared, tasks)
            order[task_name] = set(task.get("dependentTasks", ())) | self._producers(task)
        try:
            graphlib.TopologicalSorter(order).prepare()
        except graphlib.CycleError as error:
            yield f"{name} waits for itself: {' -> '.join(error.args[1])}"
        for kind, definitions in component["dag"].get("outputs", {}).items():
            for output, definition in definitions.items():
                for selector in _selectors(definition):
                    key = selector.get("outputParameterKey") or selector.get("outputArtifactKey")
                    producer = selector.get("producerSubtask")
                    yield from self._producer(f"{name} gives {output!r}", producer, kind, key, tasks)

    @staticmethod
    def _exit_tasks(name: str, tasks: Struct) -> Iterator[str]:
        """Yield exit tasks that would not run, or that others wait for: to the graph they do not exist."""
        hooks: dict[str, str] = {}
        exits = {key for key, task in tasks.items() if task.get("triggerPolicy", {}).get("strategy") == _AT_THE_END}
        if exits == set(tasks) and exits:
            yield f"{name} has nothing but exit tasks"
        for key, task in tasks.items():
            waits = task.get("dependentTasks", ())
            if key not in exits:
                yield from (f"{name}/{key} waits for {w!r}, which is an exit task" for w in waits if w in exits)
                continue
            if not waits:
                yield f"{name}/{key} is an exit task of nothing"
            for waited in waits:
                if hooks.setdefault(waited, key) != key:
                    yield f"{name}/{key} and {hooks[waited]} are both exit tasks of {waited!r}, which runs one"

    @staticmethod
    def _producers(task: Struct) -> set[str]:
        inputs = task.get("inputs", {})
        sources = [*inputs.get("parameters", {}).values(), *inputs.get("artifacts", {}).values()]
        given = [s.get("taskOutputParameter") or s.get("taskOutputArtifact") or {} for s in sources]
        return {g["producerTask"] for g in given if "producerTask" in g}

    def _task(self, where: str, task: Struct, parent: dict[str, Struct], tasks: Struct) -> Iterator[str]:
        """Yield what is wrong with the inputs of one task, with its loop, its condition and what it waits for."""
        component = self.components[task["componentRef"]["name"]]
        wanted, inputs = _declared(component), task.get("inputs", {})
        kinds: dict[str, str | None] = {}
        for key, source in inputs.get("parameters", {}).items():
            kinds[key] = self._kind(source, parent["parameters"], tasks)
            yield from self._source(f"{where} reads {key!r}", source, parent["parameters"], tasks)
            if expected := wanted["parameters"].get(key):
                yield from self._named(f"{where} reads {key!r}", _wrong_type(expected, kinds[key]))
                origin = parent["parameters"].get(source.get("componentInputParameter"), {})
                if origin.get("isOptional") and "defaultValue" not in origin and not expected.get("isOptional"):
                    yield f"{where} needs {key!r}, which may be null"
                constant = source.get("runtimeValue", {}).get("constant")
                if constant is not None and expected.get("literals") and constant not in expected["literals"]:
                    yield f"{where} reads {key!r}: {constant!r} is none of {expected['literals']}"
        for key, source in inputs.get("artifacts", {}).items():
            name = source.get("componentInputArtifact")
            if name is not None and name not in parent["artifacts"]:
                yield f"{where} reads artifact {name!r}, which its parent does not declare"
            elif produced := source.get("taskOutputArtifact"):
                producer, output = produced.get("producerTask"), produced.get("outputArtifactKey")
                yield from self._producer(f"{where} reads {key!r}", producer, "artifacts", output, tasks)
        yield from self._loop(where, task, wanted["parameters"], kinds)
        given = {"parameters": {*kinds, task.get("parameterIterator", {}).get("itemInput")}}
        given["artifacts"] = set(inputs.get("artifacts", {}))
        for kind, definitions in wanted.items():
            for key, definition in definitions.items():
                text = definition.get("parameterType") == "STRING" and "defaultValue" in definition
                if key not in given[kind] and not definition.get("isOptional") and not text:
                    yield f"{where} needs {kind[:-1]} {key!r}, which nothing gives"
        for key in re.findall(
            r"inputs\.parameter_values\['([^']+)'\]", task.get("triggerPolicy", {}).get("condition", "")
        ):
            if key not in kinds:
                yield f"{where} decides by {key!r}, which it does not receive"
        for other in task.get("dependentTasks", ()):
            if other not in tasks:
                yield f"{where} waits for {other!r}, which is no task beside it"
        yield from self._pod(where, self.pods.get(component.get("executorLabel"), {}), parent["parameters"], tasks)

    def _source(self, what: str, source: Struct, parent: Struct, tasks: Struct) -> Iterator[str]:
        """Yield that a parameter's source does not exist, or is one that the driver does not know."""
        if "componentInputParameter" in source:
            if source["componentInputParameter"] not in parent:
                yield f"{what} from {source['componentInputParameter']!r}, which its parent does not declare"
        elif produced := source.get("taskOutputParameter"):
            producer, output = produced.get("producerTask"), produced.get("outputParameterKey")
            yield from self._producer(what, producer, "parameters", output, tasks)
        elif producer := source.get("taskFinalStatus", {}).get("producerTask"):
            if producer not in tasks:
                yield f"{what} from the end of {producer!r}, which is no task beside it"
        elif "constant" not in source.get("runtimeValue", {}):
            yield f"{what} from {sorted(source) or 'nothing'}, which the driver does not know"

    def _producer(self, what: str, producer: str | None, kind: str, key: str | None, tasks: Struct) -> Iterator[str]:
        if producer not in tasks:
            yield f"{what} from {producer!r}, which is no task beside it"
            return
        called = self.components.get(tasks[producer]["componentRef"]["name"], {})
        if key not in _declared(called, "outputDefinitions")[kind]:
            yield f"{what} from {producer!r}, which has no output {kind[:-1]} {key!r}"

    def _loop(self, where: str, task: Struct, wanted: Struct, kinds: dict[str, str | None]) -> Iterator[str]:
        if "artifactIterator" in task:
            yield f"{where} loops over artifacts, which the driver cannot"
        if not (loop := task.get("parameterIterator")):
            return
        items, item = loop.get("items", {}), loop.get("itemInput")
        if item not in wanted:
            yield f"{where} gives each round {item!r}, which its component does not declare"
        if "inputParameter" in items:
            source = items["inputParameter"]
            if source not in kinds:
                yield f"{where} loops over {source!r}, which it does not receive"
            elif kinds[source] not in (None, "list", "string"):
                yield f"{where} loops over {source!r}: a {kinds[source]} cannot be iterated"
            constant = task["inputs"]["parameters"].get(source, {}).get("runtimeValue", {}).get("constant")
        else:
            source, constant = "its own list", items.get("raw", "")
        try:
            values = json.loads(constant) if isinstance(constant, str) else constant
        except ValueError:
            values = constant
        if constant is not None and not isinstance(values, list):
            yield f"{where} loops over {source!r}: {constant!r} is no list"
            return
        for wrong in sorted(
            {_wrong_type(wanted.get(item, {}), _kind_of_value(value)) for value in values or ()} - {""}
        ):
            yield f"{where} gives each round {item!r}: {wrong}"

    def _pod(self, where: str, pod: Any, parent: Struct, tasks: Struct) -> Iterator[str]:
        """Yield what a pod's settings take from a parameter that its graph lacks: the driver looks there, not in the task."""
        if isinstance(pod, dict):
            if {"componentInputParameter", "taskOutputParameter"} & set(pod):
                yield from self._source(f"{where} takes a setting of its pod", pod, parent, tasks)
            pod = list(pod.values())
        for part in pod if isinstance(pod, list) else ():
            yield from self._pod(where, part, parent, tasks)

    def _kind(self, source: Struct, parent: Struct, tasks: Struct) -> str | None:
        """Return what a parameter's value will be; None where only the run can tell."""
        if source.get("parameterExpressionSelector"):
            return None
        if "componentInputParameter" in source:
            declared = parent.get(source["componentInputParameter"], {}).get("parameterType")
            return _KINDS.get(declared)
        if produced := source.get("taskOutputParameter"):
            return self._output_kind(tasks.get(produced.get("producerTask")), produced.get("outputParameterKey", ""))
        if "taskFinalStatus" in source:
            return "struct"
        runtime = source.get("runtimeValue", {})
        return _kind_of_value(runtime["constant"]) if "constant" in runtime else None

    def _output_kind(self, task: Struct | None, key: str) -> str | None:
        """Return what a task's output is: the value of the step that made it, or a list where rounds are collected."""
        component = self.components.get((task or {}).get("componentRef", {}).get("name", ""), {})
        if task and "parameterIterator" in task:
            return "list"
        if "dag" not in component:
            return _KINDS.get(_declared(component, "outputDefinitions")["parameters"].get(key, {}).get("parameterType"))
        for selector in _selectors(component["dag"].get("outputs", {}).get("parameters", {}).get(key, {})):
            inner = component["dag"].get("tasks", {}).get(selector.get("producerSubtask"))
            return self._output_kind(inner, selector.get("outputParameterKey", ""))
        return None


def _selectors(definition: Struct) -> list[Struct]:
    """Return every place a graph's output may come from."""
    if "valueFromOneof" in definition:
        return definition["valueFromOneof"].get("parameterSelectors", [])
    if "valueFromParameter" in definition:
        return [definition["valueFromParameter"]]
    return definition.get("artifactSelectors", [])
