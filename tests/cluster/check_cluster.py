"""The product on a real cluster, with the faults of one: `make test-cluster`, against the kubeconfig's current context.

    tests/cluster/kind.sh                      a kind cluster of its own, with everything that is needed
    make test-cluster CLUSTER=kind             a cluster with Kubeflow Pipelines, the manifests and this commit's images

Not part of `make test`: it takes about half an hour on four CPUs. Studies and data go below `<study_root>/e2e/`. Everything
that is started is ended again. Pods are deleted and the store is restarted: not for a cluster that others work on.
"""

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from kfp import compiler, dsl

from components.notification.workflow import Workflow
from components.stores import Store, open_store
from pipelines.commands.submit import start_run
from pipelines.images import ROOT, image_name
from pipelines.kubeflow.connection import Connection, connect
from pipelines.kubeflow.package import make_package
from pipelines.kubeflow.publish import find_experiment, publish
from pipelines.kubeflow.states import FINISHED, is_cancelled
from pipelines.kubeflow.workflow import WorkflowReader
from pipelines.placement import apply_profile
from pipelines.presets import default_parameters, run_parameters
from pipelines.profile import PROFILES_DIR, ClusterProfile, load_profile

pytestmark = pytest.mark.timeout(3600)
PROFILE = os.environ.get("CLUSTER", "kind")
MINUTES = float(os.environ.get("RUN_MINUTES", "30"))
"""How long one small run may take."""
SMALL = ("search_trials=2", "search_epochs=1", "train_replicates=1", "data_limit=600")
SCHEDULE = "fashion-tuning-e2e"
SOON = 60.0
"""Seconds within which a run with wrong parameters has ended."""
AWAY = 120
"""Seconds for which the store is away."""
FINAL, PASSING = (64, 65, 77, 78), (69, 70, 74, 75, 137, 143)
"""Exit codes of a step that is not repeated, and of one that is: what happens to it may pass."""
END = """
import os, sys
os.environ["_KFP_RUNTIME"] = "true"
from components import errors
from components.runtime import step
code = int(sys.argv[1])
kinds = {kind.exit_code: kind for kind in [errors.FashionTuningError, *errors.FashionTuningError.__subclasses__()]}
with step(f"exit {code}"):
    if code == 137:
        memory = [bytearray(b"x" * 2**24) for _ in range(2**10)]
    if code == 143:
        os.kill(os.getpid(), 15)
    raise kinds[code](f"the step must end with {code}; it does. Nothing to do")
"""
"""A step that ends as ours do; with 137 it takes more memory than it may."""


def kubectl(*arguments: str) -> str:
    """What kubectl says."""
    command = ["kubectl", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def pipelines(*arguments: str) -> subprocess.CompletedProcess:
    """One command of the program, on the cluster's profile."""
    command = [sys.executable, "-m", "pipelines", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def until(what: str, found: Callable[[], Any], seconds: float, pause: float = 2.0) -> Any:
    """Wait for something that is true, and return it."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if result := found():
            return result
        time.sleep(pause)
    pytest.fail(f"{what}: not within {seconds:g} s")


@dataclasses.dataclass
class Cluster:
    """The cluster, its profile as a file, and its store as it is reached from here."""

    profile: ClusterProfile
    file: Path
    api: Connection
    store: Store
    datasets: list[str]

    def submit(self, *arguments: str, settings: tuple[str, ...] = ()) -> subprocess.CompletedProcess:
        """`submit` of a small run."""
        return pipelines("submit", *self.options(settings), *arguments)

    def options(self, settings: tuple[str, ...], file: Path | None = None) -> list[str]:
        """Profile, preset, data sets and parameters of a small run."""
        sets = [flag for setting in (*SMALL, *settings) for flag in ("--set", setting)]
        return ["--cluster", str(file or self.file), "--preset", "quickstart", "--dataset", self.datasets[0], *sets]

    def get(self, run_id: str) -> Any:
        """The run, as the API shows it."""
        return self.api.call("look at the run", self.api.client.runs.run_service_get_run, run_id=run_id)

    def terminate(self, run_id: str) -> None:
        """Cancel a run."""
        self.api.call("cancel the run", self.api.client.runs.run_service_terminate_run, run_id=run_id)

    def workflow(self, run_id: str) -> Workflow:
        """The workflow behind a run."""
        return WorkflowReader(self.api.workflows, "").read(run_id)

    def pods(self, run_id: str, word: str) -> list[str]:
        """Names of a run's running pods whose name has a word in it."""
        selector = f"pipeline/runid={run_id}"
        arguments = (
            "-n",
            self.api.workflows,
            "get",
            "pods",
            "-l",
            selector,
            "--field-selector",
            "status.phase=Running",
        )
        return [name for name in kubectl(*arguments, "-o", "name").split() if word in name]

    def attempts(self, run_id: str) -> dict[str, int]:
        """How often each step was started, by its name in the graph."""
        workflow = self.workflow(run_id)
        pods = [n for n in workflow._nodes.values() if n["type"] == "Pod" and "impl" in n["templateName"]]
        return dict(Counter(workflow.step_of(node) for node in pods))

    def ended(self, run_id: str, seconds: float) -> str:
        """The state in which a run ends."""
        until("the run ends", lambda: self.get(run_id).state in FINISHED, seconds)
        return self.get(run_id).state

    def results(self, run_id: str) -> dict[str, bytes]:
        """The finished trials of a run by key."""
        keys = [key for key in self.store.list(f"{run_id}-") if key.endswith("/result.json") and "/trials/" in key]
        return {key: self.store.read(key) for key in keys}


@pytest.fixture(scope="module")
def store_address() -> Iterator[str]:
    """The S3 address of a store inside the cluster, through a port-forward; "" where the profile's store is elsewhere."""
    inside = load_profile(PROFILE).environment.get("AWS_ENDPOINT_URL", "")
    host, port = urlsplit(inside).hostname or "", urlsplit(inside).port
    if not inside or "." not in host or os.environ.get("AWS_ENDPOINT_URL"):
        yield os.environ.get("AWS_ENDPOINT_URL", "")
        return
    service, namespace = host.split(".")[:2]
    # The store is restarted on the way: the port-forward ends with its pod and is started again.
    loop = f"while true; do kubectl -n {namespace} port-forward svc/{service} 18333:{port}; sleep 1; done"
    with subprocess.Popen(
        ["sh", "-c", loop], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    ) as child:
        yield "http://127.0.0.1:18333"
        os.killpg(child.pid, signal.SIGTERM)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, store_address: str) -> Iterator[Cluster]:
    """The cluster, with the generated sample in its store; what was started and still works at the end is cancelled."""
    folder, began = tmp_path_factory.mktemp("cluster"), datetime.now(UTC)
    profile = load_profile(PROFILE)
    profile = dataclasses.replace(profile, study_root=f"{profile.study_root}/e2e", experiment=SCHEDULE)
    values = yaml.safe_load((PROFILES_DIR / f"{PROFILE}.yaml").read_text())
    file = folder / f"{PROFILE}.yaml"
    file.write_text(yaml.safe_dump(values | {"study_root": profile.study_root, "experiment": SCHEDULE}))
    if store_address:
        os.environ["AWS_ENDPOINT_URL"] = store_address
        secret = json.loads(
            kubectl("-n", profile.namespace, "get", "secret", "mlpipeline-minio-artifact", "-o", "json")
        )
        for variable, key in (("AWS_ACCESS_KEY_ID", "accesskey"), ("AWS_SECRET_ACCESS_KEY", "secretkey")):
            os.environ.setdefault(
                variable, subprocess.check_output(["base64", "-d"], input=secret["data"][key], text=True)
            )
        os.environ.setdefault("AWS_DEFAULT_REGION", "us-east-1")
    assert 0 == pipelines("sample-data", str(folder / "sample")).returncode
    store = open_store(profile.study_root, deadline_seconds=120)
    for path in (folder / "sample").rglob("*.*"):
        store.write(f"sample/{path.relative_to(folder / 'sample')}", path.read_bytes())
    root = f"{profile.study_root}/sample"
    datasets = [f"fashion-mnist={root}/fashion-mnist", f"fashion-products={root}/fashion-products.zip"]
    with connect(api=profile.api, namespace=profile.namespace) as api:
        yield Cluster(profile, file, api, store, datasets)
        experiment = find_experiment(api, SCHEDULE)
        listing = api.client.runs.run_service_list_runs
        for run in api.pages("list", listing, "runs", experiment_id=experiment.experiment_id) if experiment else ():
            if run.state not in FINISHED and run.created_at >= began:
                api.call("cancel", api.client.runs.run_service_terminate_run, run_id=run.run_id)


@pytest.fixture(scope="module")
def finished(cluster: Cluster) -> dict[str, Any]:
    """A small run that was watched to its end, as `submit --json` shows it."""
    started = time.monotonic()
    ended = cluster.submit("--wait", "--json", "--timeout-minutes", str(MINUTES))
    print(f"one small run took {time.monotonic() - started:.0f} s\n{ended.stderr}")  # noqa: T201 - the record
    assert 0 == ended.returncode, ended.stderr
    return {**json.loads(ended.stdout), "said": ended.stderr}


def test_a_small_run_answers_the_question(finished: dict[str, Any], cluster: Cluster) -> None:
    """Both approaches have figures, the steps were seen while they worked, and the API could read all of its states."""
    (part,) = finished["summary"]["datasets"].values()
    names = len(cluster.workflow(finished["run_id"])._nodes)
    print(f"{names} nodes")  # noqa: T201

    assert {"mlp", "resnet18"} == set(part["approaches"])
    assert "champion" in part
    assert all(f"{step}: running" in finished["said"] for step in ("plan", "ingest", "search-mlp", "search-resnet18"))
    assert not cluster.workflow(finished["run_id"]).is_packed


def test_submitting_again_finds_the_run_and_cancelling_it_is_143(cluster: Cluster) -> None:
    """Three times the same command is one run; cancelled while it is watched, the command ends with 143."""
    ids = {json.loads(cluster.submit("--json", settings=("seed=1",)).stdout)["run_id"] for _ in range(3)}
    (run_id,) = ids
    command = [sys.executable, "-m", "pipelines", "submit", *cluster.options(("seed=1",)), "--wait"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as child:
        for line in child.stderr or ():
            if "run: running" in line:
                break
        cluster.terminate(run_id)
        _, said = child.communicate(timeout=600)

    assert 143 == child.returncode, said
    assert is_cancelled(cluster.get(run_id))


def test_wrong_parameters_end_the_run_at_once(cluster: Cluster, tmp_path: Path) -> None:
    """Past the client, as from the UI's form: one attempt, soon, and every problem in the last words."""
    api = cluster.api
    published = publish(api, make_package(tmp_path, cluster.profile), SCHEDULE, print, dry_run=False)
    parameters = run_parameters(
        default_parameters(cluster.profile.study_root), "quickstart", (), (cluster.datasets[0],)
    )
    started = time.monotonic()

    run = start_run(api, published, "wrong", parameters | {"search_trials": 0, "seed": -1}, cluster.profile)
    until("the run fails", lambda: cluster.get(run.run_id).state == "FAILED", 300, pause=1)
    seconds = time.monotonic() - started
    workflow = cluster.workflow(run.run_id)
    (failed,) = WorkflowReader(api.workflows, "").failed_nodes(workflow)
    print(f"wrong parameters: {seconds:.0f} s, {failed}")  # noqa: T201

    assert {"plan": 1} == cluster.attempts(run.run_id)
    assert "plan" == failed.name
    assert all(word in failed.message for word in ("search_trials", "seed"))
    assert seconds < SOON


def test_a_step_is_repeated_where_that_may_help(cluster: Cluster, tmp_path: Path) -> None:
    """Steps that end with each code in the pod's last word, one out of memory: Argo repeats those that may pass."""
    image, profile = image_name("plan", cluster.profile), cluster.profile
    small = {"plan": dataclasses.replace(profile.steps["plan"], memory="512Mi", cpu="100m")}
    profile = dataclasses.replace(profile, steps=profile.steps | small)

    @dsl.container_component
    def end(code: str):
        return dsl.ContainerSpec(image=image, command=["python3", "-c", END], args=[code])

    @dsl.pipeline(name="ends")
    def ends():
        for code in (*FINAL, *PASSING):
            apply_profile(end(code=str(code)).set_display_name(str(code)), "plan", profile)

    compiler.Compiler().compile(ends, str(tmp_path / "ends.yaml"))
    spec, platform = yaml.safe_load_all((tmp_path / "ends.yaml").read_text())
    models = cluster.api.client.api_models
    experiment = find_experiment(cluster.api, SCHEDULE)
    body = models.V2beta1Run(
        display_name="ends",
        experiment_id=experiment.experiment_id if experiment else None,
        pipeline_spec={"pipeline_spec": spec, "platform_spec": platform},
        runtime_config=models.V2beta1RuntimeConfig(parameters={}),
        service_account=profile.service_account or None,
    )
    run = cluster.api.call("start the run", cluster.api.client.runs.run_service_create_run, run=body)
    state = cluster.ended(run.run_id, 600)
    names = ["end", *(f"end-{number}" for number in range(2, 2 + len(FINAL + PASSING) - 1))]
    attempts = {code: cluster.attempts(run.run_id)[name] for code, name in zip(FINAL + PASSING, names, strict=True)}
    print(f"attempts by exit code: {attempts}")  # noqa: T201

    again = 1 + profile.retries.number
    assert "FAILED" == state
    assert dict.fromkeys(FINAL, 1) | dict.fromkeys(PASSING, again) == attempts


def test_what_fails_for_good_is_in_the_last_line(cluster: Cluster, tmp_path: Path) -> None:
    """Promote without the store's keys: the command ends with 65, and its last line names the step and what it said."""
    values = yaml.safe_load(cluster.file.read_text())
    for secret in values["secrets"]:
        secret["steps"] = [step for step in secret["steps"] if step != "promote"]
    file = tmp_path / "no-keys.yaml"
    file.write_text(yaml.safe_dump(values))
    ended = pipelines("submit", *cluster.options(("seed=4",), file), "--wait", "--timeout-minutes", str(MINUTES))
    print(ended.stderr)  # noqa: T201

    assert 65 == ended.returncode
    assert "promote (ERROR 78 " in ended.stderr.splitlines()[-1]


def test_a_schedule_fires_changes_and_goes(cluster: Cluster) -> None:
    """Every minute one run at most; while it works the schedule stays, afterwards it is changed and removed."""
    options = [*cluster.options(("seed=2",)), "--name", SCHEDULE]
    show = ["schedule", "show", "--cluster", str(cluster.file), "--name", SCHEDULE, "--json"]
    assert 0 == pipelines("schedule", *options, "--cron", "0 * * * * *").returncode
    try:
        until("it fires", lambda: json.loads(pipelines(*show).stdout)[0]["last runs"], 240)
        (entry,) = json.loads(pipelines(*show).stdout)
        run_id = entry["last runs"][0].split()[0]
        assert 75 == pipelines("schedule", *options, "--cron", "0 0 3 * * 1").returncode
        assert 0 == pipelines("schedule", *options, "--cron", "0 0 3 * * 1", "--force").returncode
        (changed,) = json.loads(pipelines(*show).stdout)
        assert ("0 0 3 * * 1", "enabled") == (changed["cron"], changed["state"])
        cluster.terminate(run_id)
    finally:
        removed = pipelines("schedule", "--cluster", str(cluster.file), "--name", SCHEDULE, "--remove", "--force")

    assert 0 == removed.returncode
    assert [] == json.loads(pipelines(*show).stdout)


def test_a_run_survives_the_loss_of_pods_and_services(cluster: Cluster) -> None:
    """A driver and a worker killed, API and controller restarted, the store away for two minutes, all in one run.

    Every trial that had finished before is there afterwards, byte for byte, and the study has them all.
    """
    settings = ("seed=3", "search_trials=4", "search_epochs=2", "search_workers=2")
    run_id = json.loads(cluster.submit("--json", settings=settings).stdout)["run_id"]
    namespace = cluster.api.workflows
    driver = until("a driver works", lambda: cluster.pods(run_id, "driver"), 300, pause=0.2)[0]
    kubectl("-n", namespace, "delete", driver, "--wait=false")
    until("a trial is finished", lambda: cluster.results(run_id), MINUTES * 60)
    worker = until("a worker works", lambda: cluster.pods(run_id, "impl"), 300)[0]
    kubectl("-n", namespace, "delete", worker, "--force", "--grace-period=0")
    before = cluster.results(run_id)
    for deployment in ("ml-pipeline", "workflow-controller"):
        kubectl("-n", namespace, "rollout", "restart", f"deployment/{deployment}")
    if "seaweedfs" in str(cluster.profile.environment):
        kubectl("-n", namespace, "scale", "deployment/seaweedfs", "--replicas=0")
        try:
            time.sleep(AWAY)
        finally:
            kubectl("-n", namespace, "scale", "deployment/seaweedfs", "--replicas=1")
        kubectl("-n", namespace, "rollout", "status", "deployment/seaweedfs", "--timeout=5m")
    ended = cluster.submit("--wait", "--timeout-minutes", str(MINUTES), settings=settings)
    print(ended.stderr)  # noqa: T201

    after = cluster.results(run_id)
    assert 0 == ended.returncode, ended.stderr
    assert re.search(rf"is there already.*\n.*{run_id}", ended.stderr)
    assert before
    assert before == {key: after[key] for key in before}
    assert {4} == {
        sum(key.startswith(f"{run_id}-fashion-mnist-{approach}/") for key in after) for approach in ("mlp", "resnet18")
    }
