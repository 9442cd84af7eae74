import dataclasses
import json
import os
import time

import pytest
from click.testing import CliRunner

from components.errors import UnavailableError
from pipelines.commands.preflight import all_checks, preflight_command, show
from pipelines.images import image_tag
from pipelines.preflight.findings import Finding, Outcome, run_checks
from pipelines.profile import Secret, load_profile, parse_profile
from pipelines.targets import TARGETS
from tests.fakes.gcs import FakeGcs
from tests.fakes.kfp_api import FakeKfpApi
from tests.fakes.kubernetes_api import FakeKubernetes, healthy_node

COMMIT = "0123456789ab"
PARAMETERS = {"study_root": "gs://bucket/studies", "data_datasets": ["fashion-products"]}
CONNECTION = {"way": "auto", "context": "", "installation": "kubeflow"}
SECONDS = 15.0


class Surroundings:
    """A healthy cluster with everything around it, on loopback; `findings` runs all checks against it."""

    def __init__(self, kubernetes, kfp, gcs, kubeconfig):
        self.kubernetes, self.kfp, self.gcs, self.kubeconfig = kubernetes, kfp, gcs, kubeconfig
        registry = f"{kubernetes.host}/fashion-tuning"
        kubernetes.images |= {f"fashion-tuning/{target}:{COMMIT}" for target in TARGETS}
        self.profile = dataclasses.replace(
            load_profile("gke"),
            api=kfp.url,
            registry=registry,
            study_root="gs://bucket/studies",
            pipeline_root="gs://bucket/kfp",
            image_pull_secrets=("regcred",),
            queue="team",
        )
        self.parameters = dict(PARAMETERS)
        self.seconds = 0.0

    def change(self, **fields):
        self.profile = dataclasses.replace(self.profile, **fields)

    def change_step(self, step, **fields):
        settings = dataclasses.replace(self.profile.steps[step], **fields)
        self.change(steps={**self.profile.steps, step: settings})

    def findings(self, **options) -> list[Finding]:
        started = time.monotonic()
        self.outcome = run_checks(all_checks(self.profile, self.parameters, CONNECTION), **options)
        self.seconds = time.monotonic() - started
        return self.outcome.findings


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    for name in ("KUBERNETES_SERVICE_HOST", "AWS_ENDPOINT_URL", "KF_PIPELINES_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("IMAGE_TAG", COMMIT)
    image_tag.cache_clear()
    with FakeKubernetes() as kubernetes, FakeKfpApi() as kfp, FakeGcs("bucket") as gcs:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs.url)
        monkeypatch.setenv("KUBECONFIG", str(kubernetes.write_kubeconfig(tmp_path / "kubeconfig")))
        yield Surroundings(kubernetes, kfp, gcs, tmp_path / "kubeconfig")
    image_tag.cache_clear()


def _old_kubernetes(c):
    c.kubernetes.version.update(minor="27+")


def _no_namespace(c):
    c.kubernetes.objects.pop("")


def _ending_namespace(c):
    c.kubernetes.objects[""]["status"]["phase"] = "Terminating"


def _no_account(c):
    c.kubernetes.objects.pop("serviceaccounts/fashion-tuning-runner")


def _no_kaggle(c):
    c.kubernetes.objects.pop("secrets/kaggle")


def _wrong_key(c):
    c.kubernetes.objects["secrets/kaggle"]["data"] = {"token": "eA=="}


def _empty_key(c):
    c.kubernetes.objects["secrets/kaggle"]["data"] = {"kaggle.json": ""}


def _no_pull_secret(c):
    c.kubernetes.objects.pop("secrets/regcred")


def _forbidden_secrets(c):
    c.kubernetes.denied["/secrets/"] = 403


def _no_pool(c):
    c.kubernetes.nodes.remove(c.kubernetes.node)
    c.change(autoscaled=False)


def _scaled_to_zero(c):
    c.kubernetes.nodes.remove(c.kubernetes.node)


def _taint(c):
    c.kubernetes.node["spec"]["taints"].append({"key": "team", "value": "vision", "effect": "NoSchedule"})


def _not_ready(c):
    c.kubernetes.node["status"]["conditions"][1]["status"] = "Unknown"


def _cordoned(c):
    c.kubernetes.node["spec"]["unschedulable"] = True
    c.kubernetes.node["spec"]["taints"].append({"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"})


def _no_driver(c):
    del c.kubernetes.node["status"]["allocatable"]["nvidia.com/gpu"]


def _too_many_gpus(c):
    c.change_step("search-mlp", gpus=2)


def _small_nodes(c):
    c.kubernetes.node["status"]["allocatable"].update(memory="12Gi")


def _few_cpus(c):
    c.kubernetes.node["status"]["allocatable"].update(cpu="1930m")


def _forbidden_nodes(c):
    c.kubernetes.denied["/nodes"] = 403


def _used_quota(c):
    c.kubernetes.quotas[0]["status"]["used"]["requests.nvidia.com/gpu"] = "4"


def _small_quota(c):
    c.kubernetes.quotas[0]["status"] = {"hard": {"requests.memory": "8Gi"}, "used": {"requests.memory": "1Gi"}}


def _no_queue(c):
    c.change(queue="other")


def _stopped_queue(c):
    path = next(path for path in c.kubernetes.objects if "localqueues" in path)
    c.kubernetes.objects[path]["status"]["conditions"][0] = {
        "type": "Active",
        "status": "False",
        "message": "Can't submit new workloads to clusterQueue",
    }


def _other_root(c):
    c.kubernetes.objects["configmaps/kfp-launcher"]["data"]["defaultPipelineRoot"] = ""


def _kubernetes_credentials(c):
    c.kubernetes.token = "another"


def _no_kubeconfig(c):
    c.kubeconfig.unlink()


def _kubernetes_down(c):
    c.kubeconfig.write_text(c.kubeconfig.read_text().replace(c.kubernetes.host, "127.0.0.1:9"))


def _kubernetes_broken(c):
    c.kubernetes.denied["/serviceaccounts/"] = 500


def _kfp_down(c):
    c.change(api="http://127.0.0.1:9")


def _kfp_credentials(c):
    c.kfp.token = "a-token"


def _kfp_forbidden(c):
    c.kfp.multi_user = True
    c.kfp.namespaces = ("other",)


def _kfp_missing(c):
    c.change(api=f"http://{c.kubernetes.host}")


def _no_bucket(c):
    c.parameters["study_root"] = "gs://another/studies"


def _blind_store(c):
    c.gcs.ignore_preconditions = True


def _forbidden_store(c):
    c.gcs.denied.add("storage.objects.create")


def _no_image(c):
    c.kubernetes.images.discard(f"fashion-tuning/torch:{COMMIT}")


def _private_registry(c):
    c.kubernetes.denied["/v2/"] = 401


def _registry_down(c):
    c.change(registry="127.0.0.1:9/fashion-tuning")


def _unloaded_images(c):
    c.change(image_pull_policy="Never")


def _example_values(c):
    c.change(registry=f"{c.kubernetes.host}/example-project")
    c.kubernetes.images |= {f"example-project/{target}:{COMMIT}" for target in TARGETS}


def _no_source(c):
    c.parameters["data_datasets"] = [f"mine=http://{c.kubernetes.host}/gone.zip"]


def _forbidden_source(c):
    c.kubernetes.denied["/private.zip"] = 403
    c.parameters["data_datasets"] = [f"mine=http://{c.kubernetes.host}/private.zip"]


def _source_down(c):
    c.parameters["data_datasets"] = ["mine=http://127.0.0.1:9/x.zip"]


def _empty_source(c):
    c.parameters["data_datasets"] = ["mine=gs://bucket/nothing/here"]


BROKEN = [
    (_old_kubernetes, 78, "Kubernetes must be at least 1.29; got 1.27+"),
    (_kubernetes_credentials, 78, "the kubeconfig's credentials must be valid; got 401"),
    (_no_kubeconfig, 78, "a kubeconfig must name the cluster; got"),
    (_kubernetes_down, 69, "must answer; got NewConnectionError"),
    (_kubernetes_broken, 69, "service account fashion-tuning-runner must be answered; got status 500"),
    (_no_namespace, 78, "namespace kubeflow must exist; got nothing of that name"),
    (_ending_namespace, 78, "namespace kubeflow must be active; got Terminating"),
    (_no_account, 78, "service account fashion-tuning-runner must exist; got nothing of that name"),
    (_no_kaggle, 78, "secret kaggle must exist; got nothing of that name"),
    (_wrong_key, 78, "secret kaggle must have the key kaggle.json; got only token"),
    (_empty_key, 78, "secret kaggle must have the key kaggle.json; got an empty one"),
    (_no_pull_secret, 78, "secret regcred must exist; got nothing of that name"),
    (_forbidden_secrets, 77, "secret kaggle must be readable to you; got 403"),
    (_no_pool, 78, "some node must have the labels fashion-tuning/pool=gpu; got none of 1"),
    (_scaled_to_zero, 0, "some node must have the labels fashion-tuning/pool=gpu; got none of 1"),
    (_taint, 78, "the profile must tolerate the pool's taints; got none for team=vision:NoSchedule"),
    (_not_ready, 69, "some node of the pool must be ready and schedulable; got none of gke-gpu-1"),
    (_cordoned, 69, "some node of the pool must be ready and schedulable; got none of gke-gpu-1"),
    (_no_driver, 78, "a node must have 1 nvidia.com/gpu to give; got at most 0 in the pool"),
    (_too_many_gpus, 78, "a node must have 2 nvidia.com/gpu to give; got at most 1 in the pool"),
    (_small_nodes, 78, "a node must have 16Gi memory to give; got at most 12Gi in the pool"),
    (_few_cpus, 78, "a node must have 4 cpu to give; got at most 1930m in the pool"),
    (_forbidden_nodes, 0, "the list of nodes must be readable to you; got 403"),
    (_used_quota, 69, "quota fashion-tuning-gpus must leave 1 of requests.nvidia.com/gpu; got 0 of 4"),
    (_small_quota, 78, "quota fashion-tuning-gpus must leave 16Gi of requests.memory; got 7Gi of 8Gi"),
    (_no_queue, 78, "local queue other must exist; got nothing of that name"),
    (_stopped_queue, 78, "local queue team must be active; got Can't submit new workloads to clusterQueue"),
    (_other_root, 0, "kfp-launcher must name gs://bucket/kfp, the profile's pipeline_root; got nothing"),
    (_kfp_down, 69, "http://127.0.0.1:9 must answer; got no connection"),
    (_kfp_credentials, 78, "needs valid credentials; got 401"),
    (_kfp_forbidden, 77, "'list the pipelines' must be allowed to you; got 403"),
    (_kfp_missing, 78, "'ask whether the API is healthy' must name what exists; got 404"),
    (_no_bucket, 78, "another"),
    (_blind_store, 78, "must honour create-if-absent"),
    (_forbidden_store, 77, "storage.objects.create"),
    (_no_image, 78, f"torch:{COMMIT} must be in the registry; got nothing of that name"),
    (_private_registry, 77, f"base:{COMMIT} must be readable to be checked; got 401"),
    (_registry_down, 69, "registry 127.0.0.1:9 must answer; got ConnectionError"),
    (_unloaded_images, 78, f"torch:{COMMIT} must be on a node, because image_pull_policy is Never; got none"),
    (_example_values, 78, "the profile must name your own project and bucket; got registry:"),
    (_no_source, 78, "source of mine must exist; got 404 from http://127.0.0.1"),
    (_forbidden_source, 77, "source of mine must be readable; got 403"),
    (_source_down, 69, "source of mine must answer; got ConnectionError from http://127.0.0.1:9/x.zip"),
    (_empty_source, 78, "source of mine must exist; got nothing at gs://bucket/nothing/here"),
]


def test_healthy_cluster_has_no_findings(cluster):
    """Where everything is in place, preflight says nothing, within its time, and has read only."""
    assert [] == cluster.findings()
    assert cluster.seconds < SECONDS
    assert {"GET", "HEAD"} == set(cluster.kubernetes.methods)
    assert [] == cluster.gcs.names()


@pytest.mark.parametrize(("breaks", "code", "problem"), BROKEN, ids=[entry[0].__name__[1:] for entry in BROKEN])
def test_broken_cluster_is_diagnosed(cluster, breaks, code, problem):
    """Each defect is named with its exit code and a remedy, within the time that preflight has."""
    breaks(cluster)

    found = cluster.findings()

    matching = [finding for finding in found if problem in finding.problem]
    assert [code] == sorted({finding.exit_code for finding in matching}), found
    assert all(finding.remedy for finding in found)
    assert cluster.seconds < SECONDS
    if code == 0:
        assert {0} == {finding.exit_code for finding in found}


def test_all_findings_come_at_once(cluster):
    """One look names every defect, errors before warnings, in the order of the checks."""
    for breaks in (_no_account, _no_kaggle, _taint, _used_quota, _other_root, _kfp_down, _no_bucket, _no_image):
        breaks(cluster)

    found = cluster.findings()

    checks = ["service account", "secrets", "nodes", "quota", "Kubeflow Pipelines", "store", "images", "pipeline root"]
    assert checks == [finding.check for finding in found]


def test_silent_services_end_with_the_deadline(cluster):
    """Whatever does not answer is a finding of its own when the time is up."""
    cluster.kubernetes.stall_seconds = 3

    found = cluster.findings(deadline_seconds=0.7)

    assert cluster.seconds < 1.5
    assert "namespace must answer within 0.7 s; got nothing" in [finding.problem for finding in found]
    assert {69} == {finding.exit_code for finding in found}


def test_optional_secret_is_only_needed_for_kaggle(cluster):
    """The token for Kaggle is missed only by a dataset that comes from Kaggle."""
    _no_kaggle(cluster)
    cluster.parameters["data_datasets"] = ["fashion-mnist"]

    assert [] == cluster.findings()


def test_names_inside_the_cluster_are_not_held_against_store_and_sources(cluster, monkeypatch):
    """A store that only pods can name is a warning, because the run's first steps check it."""
    monkeypatch.setattr("pipelines.preflight.services._resolves", lambda _: False)
    cluster.change(environment={"AWS_ENDPOINT_URL": "http://seaweedfs.kubeflow:8333"})
    cluster.parameters["study_root"] = "s3://mlpipeline/fashion-tuning"
    cluster.parameters["data_datasets"] = ["fashion-mnist=s3://mlpipeline/sample/fashion-mnist"]

    found = cluster.findings()

    assert {("store", 0), ("sources", 0)} == {(finding.check, finding.exit_code) for finding in found}


def test_preferred_taints_and_larger_nodes_are_fine(cluster):
    """A taint that only prefers, and any one node that is large enough, stop nothing."""
    cluster.kubernetes.node["status"]["allocatable"].update(memory="1Gi")
    large = healthy_node("gke-gpu-2", gpus="8")
    large["spec"]["taints"].append({"key": "team", "effect": "PreferNoSchedule"})
    cluster.kubernetes.nodes.append(large)

    assert [] == cluster.findings()


def test_secret_values_never_appear(cluster):
    """Findings name secrets and keys, never what is in them."""
    cluster.kubernetes.objects["secrets/kaggle"]["data"] = {"other": "c2VjcmV0LXZhbHVl"}

    assert "c2VjcmV0" not in repr(cluster.findings())


def test_command_exits_with_the_gravest_code(cluster, monkeypatch):
    """The command prints every finding as JSON and exits with 78 where a configuration is wrong."""
    _no_account(cluster)
    _kfp_down(cluster)
    monkeypatch.setattr("pipelines.profile.load_profile", lambda _: cluster.profile)

    result = CliRunner().invoke(preflight_command, ["--json", "--dataset", "fashion-mnist"])

    report = json.loads(result.stdout)
    assert os.EX_CONFIG == result.exit_code == report["exit_code"]
    assert {"service account": 78, "Kubeflow Pipelines": 69} == {
        row["check"]: row["exit_code"] for row in report["findings"]
    }
    assert 13 == len({*report["passed"], *report["unchecked"], "service account", "Kubeflow Pipelines"})


def test_table_shows_every_finding(capsys):
    """The table has each problem and remedy, brackets and all, and says what passed."""
    findings = [Finding("nodes", "a [b] must be c; got d", "do e"), Finding("store", "f", "g", 0)]

    show("mine", Outcome(findings, ["quota"], ["secrets"]))

    text = capsys.readouterr().out
    assert all(part in text for part in ("a [b] must be c; got d", "do e", "78", "warning"))
    assert "1 errors, 1 warnings. Passed: quota. Not checked, for a reason above: secrets" in text


def test_error_becomes_a_finding():
    """An error's text is split into problem and remedy, its code kept where preflight has it."""
    finding = Finding.of("store", UnavailableError("gs://b must answer; got nothing. Check v1.2 of it"))

    assert ("gs://b must answer; got nothing", "Check v1.2 of it", 69) == (
        finding.problem,
        finding.remedy,
        finding.exit_code,
    )


def test_webhook_that_a_profile_names_must_be_there(cluster):
    """A run starts without the webhook's secret, so preflight is where one learns that nobody would be told."""
    values = {"api": "", "namespace": "kubeflow", "registry": "r", "study_root": "gs://bucket/root", "steps": {}}
    profile = parse_profile("mine", values | {"notify": {"secret": "hook"}}, "mine.yaml")
    cluster.change(secrets=profile.secrets)

    assert ["secret hook must exist; got nothing of that name"] == [f.problem for f in cluster.findings()]
    cluster.kubernetes.objects["secrets/hook"] = {"metadata": {"name": "hook"}, "data": {"url": "aHR0cA=="}}
    assert [] == cluster.findings()


def test_secret_as_environment_is_checked_too(cluster):
    """A secret that reaches a step as environment variables must have its keys as well."""
    secret = Secret(name="store", steps=("plan",), keys=("a",), environment={"a": "A"})
    cluster.change(secrets=(secret,))

    assert ["secret store must exist; got nothing of that name"] == [f.problem for f in cluster.findings()]


@pytest.mark.parametrize("breaks", [_no_kubeconfig, _kubernetes_down, _kubernetes_credentials])
def test_what_could_not_be_looked_at_has_not_passed(cluster, breaks):
    """Without a cluster one finding speaks for all its checks, and none of them is called passed."""
    breaks(cluster)

    found = cluster.findings()

    asked = {"Kubernetes API", "namespace", "service account", "secrets", "nodes", "quota", "queue", "pipeline root"}
    assert asked.isdisjoint(cluster.outcome.passed)
    assert asked <= {finding.check for finding in found} | set(cluster.outcome.unchecked)
    assert "store" in cluster.outcome.passed


def test_what_the_profile_does_not_ask_for_is_not_called_passed(cluster):
    """A queue or a pipeline root that nobody set is nothing that could pass."""
    cluster.change(queue="", pipeline_root="", service_account="", secrets=(), image_pull_secrets=())

    assert [] == cluster.findings()
    assert {"Kubernetes API", "namespace", "nodes", "quota"} == set(cluster.outcome.passed) & {
        *("Kubernetes API", "namespace", "service account", "secrets", "nodes", "quota", "queue", "pipeline root")
    }


def test_nodes_that_may_not_be_listed_leave_images_open(cluster):
    """With its own role only, preflight cannot know what is on the nodes, and asks for no role that it has."""
    cluster.kubernetes.denied |= {"/api/v1/nodes": 403}
    _unloaded_images(cluster)

    found = cluster.findings()

    assert [("nodes", 0), ("images", 0)] == [(finding.check, finding.exit_code) for finding in found]
    assert "images" not in cluster.outcome.passed
    assert not any("fashion-tuning-preflight" in finding.remedy for finding in found)


def test_remedies_for_a_profile_of_ones_own(cluster):
    """`make deploy` knows overlays by name; another name gets no command that cannot work."""
    cluster.change(name="our-cluster")
    _no_account(cluster)
    _no_image(cluster)

    remedies = [finding.remedy for finding in cluster.findings()]

    assert 2 == len(remedies)
    assert not any("our-cluster" in remedy for remedy in remedies)


@pytest.mark.parametrize(
    ("said", "code", "word"),
    [
        (
            'Error from server (Forbidden): services "ml-pipeline-ui" is forbidden: User "u" cannot get resource',
            77,
            "role",
        ),
        (
            'error: error upgrading connection: pods "x" is forbidden: cannot create resource "pods/portforward"',
            77,
            "role",
        ),
        ('Error from server (NotFound): services "ml-pipeline-ui" not found', 78, "--installation"),
        ('error: context "gone" does not exist', 78, "--context"),
        ("error: You must be logged in to the server (Unauthorized)", 78, "Log in"),
        ("Unable to connect to the server: dial tcp 10.0.0.1:443: i/o timeout", 69, "network"),
    ],
)
def test_what_kubectl_says_has_its_code(said, code, word):
    """A port-forward that is refused is a permission to ask for, not a service that is down."""
    from pipelines.kubeflow.port_forward import _refusal

    error = _refusal("kubeflow", said)

    assert code == error.exit_code
    assert word in str(error).rpartition(". ")[2]
