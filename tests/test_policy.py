"""What a careful platform team refuses, asserted on manifests, workflows, Dockerfile and the compiled pipeline."""

import ast
import re
from pathlib import Path

import pytest
import yaml

from pipelines.compilation import compile_pipeline
from pipelines.images import PINNED, image_tag
from pipelines.profile import load_profile
from tests.manifest_files import KUSTOMIZE, MANIFESTS, OVERLAYS, kustomizations, rendered, resources
from tests.pipelines.policy import policy_problems

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted([*ROOT.glob("components/**/*.py"), *ROOT.glob("pipelines/**/*.py"), *ROOT.glob("images/*.py")])
OUR_CLUSTER_KINDS = {"Namespace", "PriorityClass", "ResourceFlavor", "ClusterQueue"}
CLUSTER_KINDS = {
    *OUR_CLUSTER_KINDS,
    *("ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition", "PersistentVolume", "StorageClass"),
    *("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration", "APIService"),
}
FORBIDDEN_CALLS = {
    "pickle.load": "loading a pickle runs code",
    "pickle.loads": "loading a pickle runs code",
    "yaml.load": "yaml.safe_load does not run code",
    "os.system": "subprocess without a shell does not interpret its arguments",
    "eval": "evaluating text runs code",
    "exec": "executing text runs code",
    "tempfile.mktemp": "the name can be taken before it is used",
}


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """Every resource as it stands, and as the overlays render it where kustomize is there."""
    found = resources()
    if KUSTOMIZE:
        workspace = tmp_path_factory.mktemp("policy")
        found += [document for overlay in OVERLAYS for document in rendered(overlay, workspace)]
    return found


def containers_of(document):
    """Yield (pod spec, container) of whatever in a document makes pods."""
    pod = document.get("spec", {}).get("template", {}).get("spec") or (
        document.get("spec", {}) if document["kind"] == "Pod" else {}
    )
    for container in (*pod.get("containers", []), *pod.get("initContainers", [])):
        yield pod, container


def test_namespace_enforces_pod_security_restricted(everything):
    """Every namespace of ours refuses pods below the Pod Security standard "restricted"."""
    labels = [d["metadata"]["labels"] for d in everything if d["kind"] == "Namespace"]

    assert labels
    assert {"restricted"} == {found["pod-security.kubernetes.io/enforce"] for found in labels}


def test_rbac_has_no_wildcards_and_lists_no_secrets(everything):
    """Roles name their groups, resources and verbs, and secrets are read by name only."""
    rules = [(d["metadata"]["name"], rule) for d in everything if d["kind"] == "Role" for rule in d["rules"]]

    assert rules
    assert [] == [(name, rule) for name, rule in rules if any("*" in values for values in rule.values())]
    assert [] == [
        (name, rule)
        for name, rule in rules
        if "secrets" in rule["resources"] and (rule["verbs"] != ["get"] or not rule.get("resourceNames"))
    ]


def test_nothing_is_granted_beyond_the_namespace(everything):
    """No cluster role, binding, webhook or definition of ours; a priority, which grants nothing, is nobody's default."""
    assert {d["kind"] for d in everything} & CLUSTER_KINDS <= OUR_CLUSTER_KINDS
    assert not [d for d in everything if d["kind"] == "PriorityClass" and d.get("globalDefault")]
    assert {"Role"} == {d["roleRef"]["kind"] for d in everything if d["kind"] == "RoleBinding"}


def test_every_role_has_its_own_service_account(everything):
    """Runner, submitter and preflight are three accounts, and only the runner's token is mounted."""
    accounts = {d["metadata"]["name"]: d for d in everything if d["kind"] == "ServiceAccount"}
    mounted = [name for name, account in accounts.items() if account.get("automountServiceAccountToken", True)]

    assert ["fashion-tuning-preflight", "fashion-tuning-runner", "fashion-tuning-submitter"] == sorted(accounts)
    assert ["fashion-tuning-runner"] == mounted


def test_pods_of_the_manifests_are_restricted_and_pinned(everything):
    """Whatever pod a manifest of ours should ever bring meets the standard and runs a pinned image."""
    problems = []
    for document in everything:
        for pod, container in containers_of(document):
            security = {**pod.get("securityContext", {}), **container.get("securityContext", {})}
            where = f"{document['metadata']['name']}/{container['name']}"
            if not (security.get("runAsNonRoot") and security.get("allowPrivilegeEscalation") is False):
                problems.append(f"{where} may be root")
            if security.get("capabilities", {}).get("drop") != ["ALL"] or not security.get("seccompProfile"):
                problems.append(f"{where} keeps capabilities or system calls")
            if not PINNED.fullmatch(container["image"]):
                problems.append(f"{where} runs {container['image']}")

    assert [] == problems


def test_remote_manifests_are_pinned_to_a_commit():
    """What is fetched from other projects is named by a commit."""
    remote = [name for content in kustomizations().values() for name in content.get("resources", []) if "://" in name]

    assert remote
    assert [] == [name for name in remote if not re.search(r"\?ref=[0-9a-f]{40}$", name)]


def test_manifests_hold_no_secret_values():
    """Secrets are referred to, never part of the repository."""
    assert [] == [d["metadata"]["name"] for d in resources() if d["kind"] == "Secret"]
    assert [] == [path for path in MANIFESTS.rglob("*") if re.search(r"(?i)\b(AIza|ghp_|-----BEGIN)", _text(path))]


@pytest.mark.parametrize("cluster", ["gke", "kind"])
def test_every_executor_of_the_compiled_pipeline_is_restricted(cluster, tmp_path, monkeypatch):
    """Each step of the compiled pipeline is pinned, limited, placed, non-root and retried long enough."""
    monkeypatch.setenv("IMAGE_TAG", "0123456789ab")
    image_tag.cache_clear()
    profile = load_profile(cluster)
    documents = list(yaml.safe_load_all(compile_pipeline(tmp_path / "pipeline.yaml", profile).read_text()))
    image_tag.cache_clear()
    executors = documents[0]["deploymentSpec"]["executors"]

    assert [] == policy_problems(documents, profile)
    assert set(executors) == set(documents[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"])


def test_base_image_is_pinned_by_digest():
    """Images start from one base image, named by its digest."""
    text = (ROOT / "images" / "Dockerfile").read_text()
    bases = [line.split()[1] for line in text.splitlines() if line.startswith("FROM ")]
    stages = set(re.findall(r"^FROM \S+ AS (\S+)", text, re.MULTILINE))

    assert {"${PYTHON_IMAGE}"} == set(bases) - stages
    assert re.search(r"^ARG PYTHON_IMAGE=\S+@sha256:[0-9a-f]{64}$", text, re.MULTILINE)


def test_images_end_as_a_numeric_user():
    """Each image's last word is a numeric user other than root, so that runAsNonRoot can be checked."""
    stages = re.split(r"^FROM ", (ROOT / "images" / "Dockerfile").read_text(), flags=re.MULTILINE)[1:]
    users = {stage.split()[2]: re.findall(r"^USER (\S+)", stage, re.MULTILINE) for stage in stages}

    assert {"base": ["65532:65532"], "keras": ["65532:65532"], "torch": ["65532:65532"]} == {
        name: found for name, found in users.items() if not name.endswith("-packages")
    }


def test_every_package_of_the_images_is_locked_by_hash():
    """Lock files name exact versions with hashes, and no index."""
    for path in sorted((ROOT / "images").glob("requirements-*.txt")):
        text = path.read_text()
        entries = re.findall(r"^([a-z0-9][\w.-]*)(==)?.*\\\n    --hash=sha256:[0-9a-f]{64}", text, re.MULTILINE)
        packages = re.findall(r"^([a-z0-9][\w.-]*)", text, re.MULTILINE)

        assert packages == [name for name, exact in entries if exact], path.name
        assert not re.search(r"(?i)--(extra-)?index-url|--find-links|https?://", text), path.name


def test_no_image_carries_both_frameworks():
    """TensorFlow is in the Keras locks only, torch in the torch lock only."""
    carried = {
        path.name: sorted(set(re.findall(r"^(tensorflow|torch)==", path.read_text(), re.MULTILINE)))
        for path in (ROOT / "images").glob("requirements-*.txt")
    }

    assert {
        "requirements-base.txt": [],
        "requirements-keras-gpu.txt": ["tensorflow"],
        "requirements-keras.txt": ["tensorflow"],
        "requirements-kfp.txt": [],
        "requirements-registry.txt": [],
        "requirements-torch.txt": ["torch"],
    } == carried


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_code_makes_no_dangerous_call(path):
    """No pickle, no shell, no evaluated text, no archive unpacked by its own names."""
    problems = []
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        if name in FORBIDDEN_CALLS or name.endswith(".extractall"):
            problems.append(f"line {node.lineno}: {name}: {FORBIDDEN_CALLS.get(name, 'members may lead outside')}")
        if any(keyword.arg == "shell" and ast.unparse(keyword.value) != "False" for keyword in node.keywords):
            problems.append(f"line {node.lineno}: {name} with a shell")
        if name == "np.load" and "allow_pickle=False" not in ast.unparse(node):
            problems.append(f"line {node.lineno}: np.load must say allow_pickle=False")

    assert [] == problems


@pytest.mark.parametrize("path", sorted((ROOT / ".github" / "workflows").glob("*.yml")), ids=lambda path: path.name)
def test_workflows_are_pinned_and_start_without_permissions(path):
    """Actions are named by commit, permissions are granted per job, and no untrusted text reaches a shell."""
    text = path.read_text()
    workflow = yaml.safe_load(text)
    steps = [step for job in workflow["jobs"].values() for step in job.get("steps", [])]
    uses = [step["uses"] for step in steps if "uses" in step and not step["uses"].startswith("./")]

    assert {} == workflow.get("permissions")
    assert [] == [name for name in uses if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", name)]
    assert "pull_request_target" not in workflow[True]
    assert [] == [step["run"] for step in steps if "${{ github.event" in step.get("run", "")]
    assert all("timeout-minutes" in job for job in workflow["jobs"].values() if "uses" not in job)


def _text(path: Path) -> str:
    return path.read_text() if path.is_file() else ""
