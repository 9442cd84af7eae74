import dataclasses
import re

import kubernetes_validate
import pytest
import yaml

from components import runtime
from components.errors import (
    ConfigurationError,
    DataError,
    ParameterError,
    PermissionDeniedError,
    StorageError,
    TerminatedError,
    TryAgainError,
    UnavailableError,
)
from pipelines.compilation import compile_pipeline
from pipelines.profile import load_profile
from tests.manifest_files import KUSTOMIZE, MANIFESTS, OVERLAYS, kustomizations, local_files, rendered, resources

OLDEST, NEWEST = "1.29", "1.34"
needs_kustomize = pytest.mark.skipif(not KUSTOMIZE, reason="neither kustomize nor kubectl is installed")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    return tmp_path_factory.mktemp("manifests")


def schema_problems(documents, version):
    """Validate every built-in kind strictly; kinds of other projects have no schema here."""
    problems = []
    for document in documents:
        try:
            kubernetes_validate.validate(document, version, strict=True)
        except kubernetes_validate.SchemaNotFoundError:
            if not document["apiVersion"].startswith("kueue.x-k8s.io/"):
                problems.append(f"{document['kind']}: no schema")
        except kubernetes_validate.ValidationError as error:
            problems.append(f"{document['kind']} {document['metadata']['name']}: {error}")
    return problems


def test_every_file_is_listed_by_a_kustomization():
    """No manifest lies about unused, and none that is named is missing."""
    named = {path for folder, content in kustomizations().items() for path in local_files(folder, content)}
    files = {path.resolve() for path in MANIFESTS.rglob("*.yaml") if path.name != "kustomization.yaml"}

    assert files == {path for path in named if path.suffix == ".yaml"}
    assert [] == [path for path in named if not path.exists()]


def test_every_folder_is_used():
    """Every folder with a kustomization is an overlay or is used by one."""
    used = {path for folder, content in kustomizations().items() for path in local_files(folder, content)}
    overlays = {(MANIFESTS / "overlays" / name).resolve() for name in OVERLAYS}

    assert {folder.resolve() for folder in kustomizations()} == overlays | {path for path in used if path.is_dir()}


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_files_fit_the_schemas(version):
    """Every built-in kind is valid, field by field, for the oldest and a recent Kubernetes."""
    assert [] == schema_problems(resources(), version)


@needs_kustomize
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_overlay_renders_and_fits_the_schemas(overlay, workspace):
    """Kustomize renders each overlay without a warning, and the result is valid."""
    documents = rendered(overlay, workspace)

    assert [] == schema_problems(documents, OLDEST)
    assert len(documents) == len({(d["kind"], d["metadata"]["name"]) for d in documents})


@needs_kustomize
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_everything_lands_in_one_namespace(overlay, workspace):
    """Every namespaced resource of an overlay is in the namespace that it makes."""
    documents = rendered(overlay, workspace)
    namespaces = [d["metadata"]["name"] for d in documents if d["kind"] == "Namespace"]
    without = {"Namespace", "PriorityClass", "ResourceFlavor", "ClusterQueue"}

    assert namespaces == sorted({d["metadata"].get("namespace", "") for d in documents if d["kind"] not in without})


@needs_kustomize
def test_quota_and_queue_exclude_each_other(workspace):
    """GPUs are limited by a quota, or by Kueue's queue, or not at all where there are none."""
    kinds = {overlay: [d["kind"] for d in rendered(overlay, workspace)] for overlay in OVERLAYS}

    assert {"gke": (1, 0), "gke-kueue": (0, 1), "kind": (0, 0)} == {
        overlay: (found.count("ResourceQuota"), found.count("ClusterQueue")) for overlay, found in kinds.items()
    }


@pytest.mark.parametrize("overlay", ["gke", "kind"])
def test_profile_and_manifests_agree(overlay):
    """Namespace, service account and Kaggle's secret are named alike in the profile and in the manifests."""
    profile = load_profile(overlay)
    by_kind = {kind: [d for d in resources() if d["kind"] == kind] for kind in ("Namespace", "ServiceAccount", "Role")}
    readable = {name for role in by_kind["Role"] for rule in role["rules"] for name in rule.get("resourceNames", [])}

    assert [profile.namespace] == [d["metadata"]["name"] for d in by_kind["Namespace"]]
    assert profile.service_account in [d["metadata"]["name"] for d in by_kind["ServiceAccount"]]
    assert {secret.name for secret in profile.secrets} <= readable


def test_bucket_is_the_same_in_profile_and_overlay():
    """The artifacts' place in Kubeflow's configuration is the profile's pipeline root."""
    text = (MANIFESTS / "overlays" / "gke" / "pipeline-root.yaml").read_text()

    assert [load_profile("gke").pipeline_root] == re.findall(r"defaultPipelineRoot: (\S+)", text)


def test_run_pods_are_denied_everything_first():
    """Pods of a run have a policy that allows nothing, in both directions."""
    policies = {d["metadata"]["name"]: d["spec"] for d in resources() if d["kind"] == "NetworkPolicy"}
    deny = policies["run-default-deny"]

    assert ["Ingress", "Egress"] == deny["policyTypes"]
    assert not {"ingress", "egress"} & set(deny)


def test_only_ingest_and_notify_reach_the_internet():
    """No policy but those of two steps opens public addresses, and neither the addresses of a cloud's metadata."""
    wide = {}
    for policy in (d for d in resources() if d["kind"] == "NetworkPolicy"):
        for rule in policy["spec"].get("egress", []):
            for block in (target["ipBlock"] for target in rule.get("to", []) if "ipBlock" in target):
                if block["cidr"].endswith("/0"):
                    wide[policy["metadata"]["name"]] = (policy["spec"]["podSelector"], block["except"])

    links = {"169.254.0.0/16"}
    assert {
        "ingest-allow-sources": ("ingest", links | {"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"}),
        "notify-allow-webhook": ("notify", links),
    } == {name: (s["matchLabels"]["fashion-tuning/step"], set(excepted)) for name, (s, excepted) in wide.items()}


def test_broken_manifest_is_found():
    """The strict validation used here really refuses an unknown field."""
    assert schema_problems([{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a"}, "specs": {}}], OLDEST)


def retry_strategies() -> dict[str, dict]:
    """What Argo adds to the templates of every workflow, by their names."""
    config = yaml.safe_load((MANIFESTS / "kubeflow-pipelines" / "workflow-defaults.yaml").read_text())
    defaults = yaml.safe_load(config["data"]["workflowDefaults"])["spec"]

    assert {"ttlStrategy", "templates"} == set(defaults), "templateDefaults would repeat graphs"
    return {template["name"]: template["retryStrategy"] for template in defaults["templates"]}


def repeats(message: str) -> bool:
    """Whether Argo starts a step again whose pod ended with a message, by the rule of the manifests."""
    rule = re.compile(r"!\(lastRetry\.message matches '([^']+)'\)")
    steps = [strategy for name, strategy in retry_strategies().items() if name.endswith("-impl")]
    (expression,) = {strategy["expression"] for strategy in steps}

    assert {"Always"} == {strategy["retryPolicy"] for strategy in steps}
    return not re.search(rule.fullmatch(expression)[1], message)


def test_graphs_are_never_repeated():
    """Only the templates of drivers and of steps have a retry strategy."""
    assert {"system-dag-driver", "system-container-driver"} == {
        name for name in retry_strategies() if not re.fullmatch(r"metadata-0-\d-retry-system-container-impl", name)
    }


@pytest.mark.parametrize(
    ("error", "repeated"),
    [
        (ParameterError(["search_trials must be 1", "seed must be 0"]), False),
        (DataError("no image can be read"), False),
        (PermissionDeniedError("the bucket must be readable"), False),
        (ConfigurationError("a secret must be there"), False),
        (UnavailableError("the store did not answer"), True),
        (StorageError("disk full"), True),
        (TryAgainError("the workers were lost"), True),
        (TerminatedError("asked to stop"), True),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_only_what_may_pass_is_repeated(error, repeated, tmp_path, monkeypatch):
    """The last word of a step's pod tells Argo's rule whether another attempt can help."""
    last_word = tmp_path / "termination-log"
    last_word.touch()
    monkeypatch.setattr(runtime, "TERMINATION_LOG", last_word)
    monkeypatch.setattr(runtime.signal, "signal", lambda *_: None)  # the tests' own process stays as it is
    with pytest.raises(SystemExit) as ended, runtime.step("plan"):
        raise error

    # Argo's text for a failed container; Kubeflow's launcher ends with 1 whatever the step's code was.
    message = f"main: Error (exit code 1): {last_word.read_text()}"
    assert f"ERROR {ended.value.code} plan: {error}" == last_word.read_text()
    assert repeated == repeats(message)


@pytest.mark.parametrize("message", ["pod deleted", "main: OOMKilled (exit code 137)", "main: Error (exit code 1)"])
def test_lost_pods_are_repeated(message):
    """A pod that left no last word is started again."""
    assert repeats(message)


@pytest.mark.parametrize("change", [{}, {"queue": "fashion-tuning"}])
@pytest.mark.parametrize("cluster", ["kind", "gke"])
def test_retry_rule_reaches_the_steps_of_every_profile(cluster, change, tmp_path):
    """Kubeflow names a step's template after its pod's labels; each name that a profile brings about has the rule."""
    profile = dataclasses.replace(load_profile(cluster), **change)
    documents = list(yaml.safe_load_all(compile_pipeline(tmp_path / "pipeline.yaml", profile).read_text()))
    pods = documents[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"].values()
    metadata = {(len(p["podMetadata"].get("annotations", {})), len(p["podMetadata"]["labels"])) for p in pods}

    assert {f"metadata-{a}-{b}-retry-system-container-impl" for a, b in metadata} <= set(retry_strategies())
