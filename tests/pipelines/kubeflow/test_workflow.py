"""What the workflow tells of a run that the API does not: packed states, failed drivers, the last words of a step."""

import base64
import copy
import gzip
import json
from collections import Counter
from pathlib import Path

import pytest

from components.notification.workflow import Workflow, last_words, shortened
from pipelines.__main__ import run
from pipelines.kubeflow import runs
from pipelines.kubeflow.workflow import UnreadableError, WorkflowReader
from tests.fakes.kfp_api import FakeKfpApi
from tests.fakes.kubernetes_api import FakeKubernetes

STEPS = ("plan", "ingest", "search-mlp", "report", "promote")
OURS = "ERROR 64 plan: search_trials must be a whole number from 1 to 10000; got '0'"
DRIVER = "KFP driver: driver.DAG(...) failed: input parameter dataset type mismatch: expect STRUCT, got string"


def node(key: str, shown: str, kind: str, phase: str, **more) -> dict:
    """One node's status."""
    return {"id": key, "name": f"run.{key}", "displayName": shown, "type": kind, "phase": phase, **more}


def workflow(*nodes: dict, packed: bool = False) -> dict:
    """A workflow resource with these nodes."""
    states = {entry["id"]: entry for entry in nodes}
    status: dict = {"phase": "Failed", "nodes": states}
    if packed:
        status = {
            "phase": "Failed",
            "compressedNodes": base64.b64encode(gzip.compress(json.dumps(states).encode())).decode(),
        }
    return {"metadata": {"name": "fashion-tuning-x7k2p"}, "status": status}


FAILED_PLAN = (
    node("root", "root(0)", "DAG", "Failed"),
    node("plan", "plan", "Retry", "Failed", boundaryID="root", children=["plan-0"]),
    node("plan-0", "plan(0)", "DAG", "Failed", boundaryID="root", templateName="retry-system-container-executor"),
    node("executor", "executor", "Retry", "Failed", boundaryID="plan-0", templateName="retry-system-container-impl",
         children=["try-0", "try-1"]),
    node("try-0", "executor(0)", "Pod", "Failed", boundaryID="plan-0", templateName="retry-system-container-impl"),
    node("try-1", "executor(1)", "Pod", "Failed", boundaryID="plan-0", templateName="retry-system-container-impl",
         message="Error (exit code 64)"),
    node("report", "report", "Skipped", "Omitted", boundaryID="root"),
)  # fmt: skip
"""As a server with Kubeflow Pipelines 2.17 and Argo 4.0.5 shows it."""
SAVED_SEARCH = (
    node("search", "search-mlp", "Retry", "Succeeded", boundaryID="root", children=["search-0"]),
    node("search-0", "search-mlp(0)", "DAG", "Succeeded", boundaryID="root"),
    node("s-executor", "executor", "Retry", "Succeeded", boundaryID="search-0", children=["s-0", "s-1"]),
    node("s-0", "executor(0)", "Pod", "Failed", boundaryID="search-0", templateName="system-container-impl"),
    node("s-1", "executor(1)", "Pod", "Succeeded", boundaryID="search-0", templateName="system-container-impl"),
)
FAILED_DRIVER = (
    node("loop-driver", "for-loop-1-driver", "Retry", "Failed", boundaryID="root", children=["d-0"]),
    node("d-0", "for-loop-1-driver(0)", "Pod", "Error", boundaryID="root", templateName="system-dag-driver",
         message="Error (exit code 1)"),
)  # fmt: skip


@pytest.fixture
def kubernetes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest):
    """A Kubernetes API that the kubeconfig leads to."""
    if "kubeflow" in request.fixturenames:
        request.getfixturevalue("kubeflow")  # sets a kubeconfig that leads nowhere
    with FakeKubernetes() as fake:
        monkeypatch.setenv("KUBECONFIG", str(fake.write_kubeconfig(tmp_path / "kubeconfig")))
        yield fake


def serve(kubernetes: FakeKubernetes, resource: dict, logs: dict[str, str] | None = None) -> None:
    """Let Kubernetes have one workflow, and for some of its nodes a pod with a log."""
    kubernetes.objects["/apis/argoproj.io/v1alpha1/namespaces/kubeflow/workflows"] = {"items": [resource]}
    pods = [
        {"metadata": {"name": f"pod-{key}", "annotations": {"workflows.argoproj.io/node-id": key}}}
        for key in logs or {}
    ]
    kubernetes.objects["pods"] = {"kind": "PodList", "items": pods}
    for key, text in (logs or {}).items():
        kubernetes.texts[f"/api/v1/namespaces/kubeflow/pods/pod-{key}/log"] = text


@pytest.mark.parametrize("packed", [False, True])
def test_step_states(packed):
    """Steps are counted by name, whether the states are packed or not; executors and drivers are no steps."""
    found = Workflow(workflow(*FAILED_PLAN, *SAVED_SEARCH, *FAILED_DRIVER, packed=packed))

    assert packed == found.is_packed
    states = {"plan": Counter(failed=1), "search-mlp": Counter(succeeded=1), "report": Counter({"not run": 1})}
    assert states == found.step_states(STEPS)


def test_what_failed_for_good():
    """A step's last attempt and a driver are named; an attempt that another one saved is not."""
    found = Workflow(workflow(*FAILED_PLAN, *SAVED_SEARCH, *FAILED_DRIVER))

    assert ["try-1", "d-0"] == [entry["id"] for entry in found.failed_pods()]
    assert ["plan", "for-loop-1-driver"] == [found.step_of(entry) for entry in found.failed_pods()]


def test_last_words_come_from_the_log(kubernetes):
    """The pods' logs say more than Argo's message; where there is no log, the message is taken."""
    serve(kubernetes, workflow(*FAILED_PLAN, *FAILED_DRIVER), {"try-1": f"noise\n{OURS}\nmore noise\n"})
    reader = WorkflowReader("kubeflow", "")

    nodes = reader.failed_nodes(reader.read("run"))

    assert [f"plan ({OURS})", "for-loop-1-driver (Error (exit code 1))"] == [str(entry) for entry in nodes]


def test_last_words_that_argo_has(kubernetes):
    """Where the container left its last line as termination message, no log is needed."""
    nodes = copy.deepcopy(FAILED_PLAN)
    nodes[5]["message"] = f"main: Error (exit code 1): {OURS}"
    serve(kubernetes, workflow(*nodes))
    reader = WorkflowReader("kubeflow", "")

    assert [f"plan ({OURS})"] == [str(entry) for entry in reader.failed_nodes(reader.read("run"))]


def test_a_log_that_may_not_be_read(kubernetes):
    """Without the right to read logs the message remains."""
    serve(kubernetes, workflow(*FAILED_PLAN), {"try-1": OURS})
    kubernetes.denied["/log"] = 403
    reader = WorkflowReader("kubeflow", "")

    assert ["plan (Error (exit code 64))"] == [str(entry) for entry in reader.failed_nodes(reader.read("run"))]


@pytest.mark.parametrize(
    ("log", "words"),
    [
        (f"a\n{OURS}\nI1125 12:00:00.000000 1 launcher.go:1] done", OURS),
        (f"I1125 12:00:00.000000 1 main.go:9] start\nF1125 12:00:01.000000 1 main.go:79] {DRIVER}\n", DRIVER),
        (
            "x\npanic: runtime error: nil pointer\n\ngoroutine 1 [running]:\nError: exit status 2",
            "panic: runtime error: nil pointer",
        ),
        ("nothing to see", ""),
        ("", ""),
    ],
)
def test_last_words(log, words):
    """Our own error line goes before a driver's fatal line; everything else is noise."""
    assert words == last_words(log)


def test_long_messages_keep_both_ends():
    """What is said first and last is kept."""
    text = shortened("begin " + "x" * 1000 + "\nend")

    assert len(text) < 320
    assert ("begin", "end") == (text[:5], text[-3:])


@pytest.mark.parametrize("status", [401, 403, 404, 500])
def test_unreadable(kubernetes, status):
    """Whatever Kubernetes refuses, the caller goes on without."""
    kubernetes.denied["/workflows"] = status
    with pytest.raises(UnreadableError):
        WorkflowReader("kubeflow", "").read("run")


def test_no_workflow_any_more(kubernetes):
    """Workflows are deleted an hour after their end."""
    kubernetes.objects["/apis/argoproj.io/v1alpha1/namespaces/kubeflow/workflows"] = {"items": []}
    with pytest.raises(UnreadableError, match="there is no workflow"):
        WorkflowReader("kubeflow", "").read("run")


def test_submit_names_a_failed_driver(kubeflow: FakeKfpApi, kubernetes, cluster: str, capsys) -> None:
    """The last line has the driver's own message, from its log."""
    fatal = f"F1125 12:00:01.000000 1 main.go:79] {DRIVER}"
    serve(kubernetes, workflow(*FAILED_DRIVER), {"d-0": fatal})
    kubeflow.script = [
        ("RUNNING", {"plan": "SUCCEEDED"}),
        ("FAILED", {"plan": "SUCCEEDED", "for-loop-1-driver": "FAILED"}),
    ]

    assert 65 == run(["submit", "--cluster", cluster, "--wait"])
    assert f"got failed in for-loop-1-driver ({DRIVER})" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    "spec", [{"activeDeadlineSeconds": 0}, {"shutdown": "Terminate"}, {"activeDeadlineSeconds": 600}]
)
def test_a_run_that_was_cancelled_in_its_first_seconds(
    kubeflow: FakeKfpApi, kubernetes, cluster: str, capsys, spec
) -> None:
    """The server's history has no CANCELING, as seen on a real one: the workflow tells, and an ordinary failure stays one."""
    serve(kubernetes, workflow(*FAILED_DRIVER) | {"spec": spec})
    kubeflow.script = [("PENDING", {}), ("RUNNING", {}), ("FAILED", {})]
    cancelled = spec != {"activeDeadlineSeconds": 600}

    assert (143 if cancelled else 65) == run(["submit", "--cluster", cluster, "--wait", "--json"])
    said = capsys.readouterr()
    assert ("CANCELED" if cancelled else "FAILED") == json.loads(said.out)["state"]
    assert ("got cancelled" if cancelled else "got failed") in said.err.splitlines()[-1]


def test_submit_without_kubernetes_names_the_driver(kubeflow: FakeKfpApi, cluster: str, capsys) -> None:
    """Where only the API can be asked, its name is all there is."""
    kubeflow.script = [("FAILED", {"plan": "SUCCEEDED", "each-dataset": "FAILED", "for-loop-1-driver": "FAILED"})]

    assert 65 == run(["submit", "--cluster", cluster, "--wait"])
    assert "got failed in for-loop-1-driver. See" in capsys.readouterr().err.splitlines()[-1]


def test_frozen_states_are_read_from_the_workflow(
    kubeflow: FakeKfpApi, kubernetes, cluster: str, capsys, monkeypatch
) -> None:
    """A server that cannot read packed states shows old ones; the table goes on with those of the workflow."""
    monkeypatch.setattr(runs, "STILL_SECONDS", 0.05)
    nodes = [*copy.deepcopy(FAILED_PLAN[:3]), node("promote", "promote", "DAG", "Succeeded", boundaryID="root")]
    nodes[1]["phase"] = "Succeeded"
    serve(kubernetes, workflow(*nodes, packed=True))
    frozen = ("RUNNING", {"plan": "RUNNING"})
    kubeflow.script = [frozen] * 30 + [("SUCCEEDED", {"plan": "RUNNING"})]

    assert 0 == run(["submit", "--cluster", cluster, "--wait"])
    said = capsys.readouterr().err
    assert 1 == said.count("are read from the workflow instead")
    assert "promote: succeeded" in said


@pytest.mark.parametrize(
    ("frames", "phase"),
    [
        # The drivers' tasks appear although the API hears nothing of the workflow.
        ([("PENDING", {f"task-{number}": "RUNNING"}) for number in range(7)], "Running"),
        ([("RUNNING", {"plan": "RUNNING"})], "Succeeded"),
    ],
)
def test_an_api_that_hears_nothing(
    kubeflow: FakeKfpApi, kubernetes, cluster: str, capsys, monkeypatch, frames, phase
) -> None:
    """Where the persistence agent reports nothing, that and its cure are said once, and steps come from the workflow."""
    monkeypatch.setattr(runs, "STILL_SECONDS", 0.05)
    resource = workflow(node("plan", "plan", "DAG", "Succeeded", boundaryID="root"))
    resource["status"] |= {"phase": phase, "startedAt": "2026-11-26T00:35:32Z"}
    resource["status"] |= {"finishedAt": "2026-11-26T00:40:00Z"} if phase == "Succeeded" else {"finishedAt": None}
    serve(kubernetes, resource)
    kubeflow.script = frames * (30 // len(frames)) + [("SUCCEEDED", {"plan": "SUCCEEDED"})]

    assert 0 == run(["submit", "--cluster", cluster, "--wait"])
    said = capsys.readouterr().err
    told = f"the API shows the run as {frames[0][0].lower()}, in Kubernetes it is {phase.lower()}"
    assert (1, 1) == (said.count(told), said.count("rollout restart deployment/ml-pipeline-persistenceagent"))
    assert said.index(told) < said.index("plan: succeeded") < said.index("run: succeeded")


def test_a_run_that_waits_in_kubernetes_too(
    kubeflow: FakeKfpApi, kubernetes, cluster: str, capsys, monkeypatch
) -> None:
    """A workflow that has not begun either is no reason for a word."""
    monkeypatch.setattr(runs, "STILL_SECONDS", 0.05)
    resource = workflow()
    resource["status"] = {}
    serve(kubernetes, resource)
    kubeflow.script = [("PENDING", {})] * 30 + [("SUCCEEDED", {"plan": "SUCCEEDED"})]

    assert 0 == run(["submit", "--cluster", cluster, "--wait"])
    assert "in Kubernetes" not in capsys.readouterr().err


def test_frozen_states_without_kubernetes(kubeflow: FakeKfpApi, cluster: str, capsys) -> None:
    """Where they cannot be read anywhere, it is said that the server does not show them."""
    kubeflow.script = [("RUNNING", {"plan": "RUNNING"}), ("SUCCEEDED", {"plan": "RUNNING"})]

    assert 0 == run(["submit", "--cluster", cluster, "--wait"])
    assert 1 == capsys.readouterr().err.count("this server does not show them from 1 MB on")
