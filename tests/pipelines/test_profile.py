import copy
import dataclasses
import json
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator
from kfp import dsl

from components.errors import ConfigurationError, ParameterError
from components.evaluation.cost import PRICE_VARIABLE
from components.runtime import REGISTRY_VARIABLE
from pipelines.compilation import compile_pipeline
from pipelines.driver_rules import driver_problems
from pipelines.images import image_tag
from pipelines.placement import apply_profile
from pipelines.profile import (
    PROFILES_DIR,
    SCHEMA,
    ClusterProfile,
    StepSettings,
    json_schema,
    load_profile,
    parse_profile,
)
from pipelines.targets import GPU_STEPS, STEPS
from tests.pipelines.policy import policy_problems

GKE = yaml.safe_load((PROFILES_DIR / "gke.yaml").read_text())
COMMIT = "0123456789ab"


@pytest.fixture(autouse=True)
def _commit(monkeypatch):
    monkeypatch.setenv("IMAGE_TAG", COMMIT)
    image_tag.cache_clear()
    yield
    image_tag.cache_clear()


@pytest.fixture(scope="module")
def all_compiled(tmp_path_factory):
    """The pipeline compiled for each shipped profile: (profile, documents) by name."""
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IMAGE_TAG", COMMIT)
        image_tag.cache_clear()
        for name in ("gke", "kind"):
            profile = load_profile(name)
            output = compile_pipeline(tmp_path_factory.mktemp("compiled") / "pipeline.yaml", profile)
            found[name] = (profile, list(yaml.safe_load_all(output.read_text())))
    return found


@pytest.fixture(params=["gke", "kind"])
def compiled(request, all_compiled):
    return all_compiled[request.param]


@pytest.fixture
def gke(all_compiled):
    return copy.deepcopy(all_compiled["gke"])


def changed(**fields) -> dict:
    """The GKE profile with some fields replaced, or dropped where the value is None."""
    values = copy.deepcopy(GKE)
    for name, value in fields.items():
        values[name] = value
        if value is None:
            del values[name]
    return values


def problems_of(values) -> str:
    with pytest.raises(ConfigurationError) as caught:
        parse_profile("mine", values, "mine.yaml")
    return str(caught.value)


@pytest.mark.parametrize("path", sorted(PROFILES_DIR.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_profiles_load(path):
    """Every profile in the repository is valid and is named after its file."""
    assert path.stem == load_profile(path.stem).name
    assert load_profile(path.stem) == load_profile(str(path))


def test_local_profile_needs_no_file():
    """The profile of a run without a cluster is built in and asks for nothing."""
    profile = load_profile("local")

    assert profile.is_local
    assert ("", "", "") == (profile.accelerator, profile.study_root, profile.service_account)


@pytest.mark.parametrize("name", ["nowhere", "nowhere.yaml", "../gke"])
def test_unknown_profile_is_named_with_the_known_ones(name):
    """A profile that does not exist is a wrong parameter, and the message lists those that do."""
    with pytest.raises(ParameterError, match=r"must be one of local, gke, kind .* got .*nowhere|\.\./gke"):
        load_profile(name)


def test_unreadable_yaml_is_a_configuration_error(tmp_path):
    """A file that is no YAML is reported with its path and line."""
    path = tmp_path / "broken.yaml"
    path.write_text("api: [")

    with pytest.raises(ConfigurationError, match=r"broken\.yaml must be a readable YAML file; got .*line 1"):
        load_profile(str(path))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"api": "localhost:8080"}, "api must be an http(s) URL without credentials; got 'localhost:8080'"),
        ({"api": "http://me:pw@host"}, "api must be an http(s) URL without credentials"),
        ({"api": None}, "api must be given; got nothing"),
        ({"model_registry": "http://me:pw@host"}, "model_registry must be an http(s) URL without credentials and path"),
        ({"namespace": "Fashion_Tuning"}, "namespace must be a DNS label"),
        ({"namespace": "a" * 64}, "namespace must be a DNS label"),
        ({"kubernetes_version": 1.29}, 'kubernetes_version must be a version such as "1.29", in quotes; got 1.29'),
        ({"kfp_version": "latest"}, "kfp_version must be a version"),
        ({"registry": "https://ghcr.io/me"}, "registry must be a registry's host and path in lower case"),
        ({"registry": "ghcr.io/Me"}, "registry must be a registry's host and path in lower case"),
        (
            {"image_pull_policy": "Sometimes"},
            "image_pull_policy must be Always, IfNotPresent or Never; got 'Sometimes'",
        ),
        ({"study_root": "bucket/prefix"}, "study_root must be gs://BUCKET/PREFIX or s3://BUCKET/PREFIX"),
        ({"study_root": "gs://bucket/prefix/"}, "study_root must be gs://BUCKET/PREFIX"),
        ({"study_root": None}, "study_root must be given"),
        ({"pipeline_root": "/tmp/here"}, "pipeline_root must be gs://BUCKET/PREFIX"),
        ({"accelerator": "gpu"}, "accelerator must be a resource name such as nvidia.com/gpu, or empty; got 'gpu'"),
        ({"accelerator": ""}, "steps.search-mlp.gpus must be 0 without an accelerator; got 1"),
        ({"node_selector": {"pool": True}}, "node_selector must be a mapping of text to text"),
        ({"node_selector": ["pool"]}, "node_selector must be a mapping of text to text"),
        ({"environment": {"A": 1}}, "environment must be a mapping of text to text (numbers and true in quotes)"),
        (
            {"tolerations": [{"key": "a", "operator": "Equals", "value": "b"}]},
            "tolerations[0].operator must be Equal or Exists; got 'Equals'",
        ),
        (
            {"tolerations": [{"key": "a", "operator": "Exists", "value": "b"}]},
            "tolerations[0] must have no value with the operator Exists; got 'b'",
        ),
        ({"tolerations": [{"key": "a"}]}, "tolerations[0] must have a key and a value with the operator Equal"),
        (
            {"tolerations": [{"key": "a", "effects": "NoSchedule"}]},
            "tolerations[0].effects must be a known field (effect?); got 'effects'",
        ),
        (
            {"tolerations": [{"key": "a", "operator": "Equal", "value": True}]},
            "tolerations[0].value must be a text; got True",
        ),
        ({"tolerations": "all"}, "tolerations must be a list; got 'all'"),
        ({"queue": "Q!"}, "queue must be the name of a Kueue local queue, or empty; got 'Q!'"),
        ({"run_as_user": 0}, "run_as_user must be a whole number between 1 and"),
        ({"run_as_user": "nobody"}, "run_as_user must be a whole number between 1 and"),
        ({"run_as_user": True}, "run_as_user must be a whole number between 1 and"),
        ({"image_pull_secrets": "regcred"}, "image_pull_secrets must be a list of names; got 'regcred'"),
        ({"retries": {"number": 11}}, "retries.number must be a whole number between 0 and 10; got 11"),
        ({"retries": {"backoff": "1m"}}, "retries.backoff must be whole seconds such as 60s; got '1m'"),
        (
            {"retries": {"max_duration": "3600s"}},
            "retries.max_duration must exceed the longest timeout_seconds (43200)",
        ),
        ({"steps": {"default": {"cpu": 2}}}, 'steps.default.cpu must be a CPU quantity above 0 such as "2" or "500m"'),
        ({"steps": {"default": {"cpu": "0"}}}, "steps.default.cpu must be a CPU quantity above 0"),
        ({"steps": {"plan": {"cpu_limit": "two"}}}, "steps.plan.cpu_limit must be a CPU quantity"),
        ({"steps": {"plan": {"cpu": "2", "cpu_limit": "1500m"}}}, "steps.plan.cpu_limit must be at least cpu (2)"),
        ({"steps": {"plan": {"memory": "4GB"}}}, "steps.plan.memory must be a memory quantity above 0 such as 4Gi"),
        ({"steps": {"plan": {"ephemeral_storage": 10}}}, "steps.plan.ephemeral_storage must be a storage quantity"),
        ({"steps": {"plan": {"shared_memory": "2 Gi"}}}, "steps.plan.shared_memory must be a memory quantity"),
        ({"steps": {"plan": {"gpus": 17}}}, "steps.plan.gpus must be a whole number between 0 and 16; got 17"),
        ({"steps": {"plan": {"gpus": "1"}}}, "steps.plan.gpus must be a whole number between 0 and 16; got '1'"),
        ({"steps": {"plan": {"timeout_seconds": 5}}}, "steps.plan.timeout_seconds must be a whole number between 60"),
        ({"steps": {"plan": {"gpu": 1}}}, "steps.plan.gpu must be a known field (gpus?); got 'gpu'"),
        ({"steps": {"search_mlp": {}}}, "steps.search_mlp must be one of default, plan, ingest, search-mlp"),
        (
            {"steps": {"default": {"gpus": 0}}},
            "steps.train-mlp.gpus must be at least 1 with accelerator nvidia.com/gpu",
        ),
        ({"steps": []}, "steps must be a mapping; got []"),
        ({"secrets": {"kaggle": "ingest"}}, "secrets must be a list; got"),
        ({"secrets": [{"name": "k", "steps": ["ingest"]}]}, "secrets[0].keys must be given; got nothing"),
        (
            {"secrets": [{"name": "k", "steps": ["ingst"], "keys": ["a"], "mount_path": "/k"}]},
            "secrets[0].steps[0] must be one of plan, ingest, search-mlp",
        ),
        (
            {"secrets": [{"name": "k", "steps": ["ingest"], "keys": ["a"]}]},
            "secrets[0] must have either a mount_path or an environment; got neither",
        ),
        (
            {"secrets": [{"name": "k", "steps": ["ingest"], "keys": ["a"], "environment": {"b": "B"}}]},
            "secrets[0] must give only its keys an environment variable; got 'b'",
        ),
        ({"node_selectors": {}}, "node_selectors must be a known field (node_selector?); got 'node_selectors'"),
        ({"steps": {"plan": {1: "one"}}}, "steps.plan.1 must be a known field; got '1'"),
        ({"secrets": [None]}, "secrets[0] must be a mapping; got None"),
        ({"name": "other"}, "name must be that of the file; got 'other' in it"),
    ],
)
def test_wrong_field_is_named_with_its_rule_and_value(fields, expected):
    """Each wrong value is refused when the profile is loaded, with field, rule and what was found."""
    text = problems_of(changed(**fields))

    assert expected in text
    assert text.startswith("mine.yaml: ")


def test_a_field_that_is_no_text():
    """YAML takes numbers for names; the profile says that it knows no such field."""
    assert "1 must be a known field; got '1'" in problems_of(GKE | {1: "one"})


def test_all_problems_are_reported_together():
    """One load names every problem."""
    text = problems_of(
        changed(api="x", namespace="A", run_as_user=0, retries={"number": -1}, steps={"plan": {"cpu": 1}})
    )

    assert 5 == text.count("; got ") == text.count(" must be ")


def test_schema_for_editors():
    """The file beside the profiles is up to date; it passes them, and finds a misspelt field and a wrong quantity."""
    validator = Draft202012Validator(json.loads(SCHEMA.read_text()))

    assert json_schema() == SCHEMA.read_text(), "write it with python -m pipelines.profile"
    for path in PROFILES_DIR.glob("*.yaml"):
        assert [] == list(validator.iter_errors(yaml.safe_load(path.read_text())))
    for wrong in (changed(node_selectors={}), changed(steps={"plan": {"memory": "4GB"}}), changed(api=None)):
        assert list(validator.iter_errors(wrong))


@pytest.mark.parametrize("values", [None, [], "text"])
def test_profile_must_be_a_mapping(values):
    """A file without fields says so."""
    assert "the profile must be a mapping" in problems_of(values)


def test_examples_lists_what_must_be_replaced():
    """Values that ship as examples are found, so that preflight can name them."""
    profile = dataclasses.replace(
        load_profile("kind"), registry="host/example-project/images", pipeline_root="gs://example-bucket/kfp"
    )

    assert ["registry", "pipeline_root"] == [entry.split(":")[0] for entry in profile.examples()]
    assert [] == load_profile("kind").examples()


def test_compiled_pipeline_has_no_dangling_input(compiled):
    """Every input of every task is given by its parent or a sibling."""
    assert [] == driver_problems(compiled[1])


def test_compiled_pipeline_keeps_the_policy(compiled):
    """Image pins, requests, placement, user, deadline, volumes, secrets, retries and caching are as the profile says."""
    assert [] == policy_problems(compiled[1], compiled[0])


def test_compiled_pipeline_requests_gpus_for_search_and_training_only(compiled):
    """Searches and trainings ask for the accelerator and refuse to run without one; no other step does."""
    profile, documents = compiled
    executors = documents[0]["deploymentSpec"]["executors"]

    def steps_with(found):
        return sorted({label.removeprefix("exec-") for label, executor in executors.items() if found(executor)})

    expected = sorted(GPU_STEPS) if profile.accelerator else []
    assert expected == steps_with(
        lambda e: e["container"]["resources"].get("accelerator", {}).get("resourceCount") == "1"
    )
    assert expected == steps_with(
        lambda e: {"name": "FASHION_TUNING_REQUIRE_GPU", "value": "1"} in e["container"].get("env", [])
    )


def test_kaggle_token_reaches_ingest_only(compiled):
    """The token for Kaggle is mounted into the ingest step and nowhere else."""
    pods = compiled[1][1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    with_token = [
        label for label, pod in pods.items() if "kaggle" in {s["secretName"] for s in pod.get("secretAsVolume", [])}
    ]

    assert ["exec-ingest"] == with_token


BREAKS = {
    "must run an image named by a digest or a commit": lambda e, _: e["container"].update(
        image="localhost/x/base:latest"
    ),
    "must run an image of": lambda e, _: e["container"].update(image=f"docker.io/other/base:{COMMIT}"),
    "must have a resourceMemoryLimit": lambda e, _: e["container"]["resources"].pop("resourceMemoryLimit"),
    "must request 1 x nvidia.com/gpu; got none": lambda e, _: e["container"]["resources"].pop("accelerator"),
    "must install nothing when it starts": lambda e, _: e["container"]["command"].append("pip install kfp"),
    "must take secrets from a secret": lambda e, _: e["container"]["env"].append({"name": "API_TOKEN", "value": "x"}),
    "must run as a numeric user other than root; got {": lambda _, p: p["securityContext"].pop("runAsNonRoot"),
    "must run as a numeric user other than root; got no": lambda _, p: p.pop("securityContext"),
    "must select the node pool": lambda _, p: p.pop("nodeSelector"),
    "must tolerate the node pool's 2 taints; got 1": lambda _, p: p["tolerations"].pop(),
    "must have a deadline": lambda _, p: p.pop("activeDeadlineSeconds"),
    "must have a size limit on every volume": lambda _, p: p["emptyDirMounts"][0].pop("sizeLimit"),
    "must not read the secret 'kaggle'": lambda _, p: p.update(secretAsVolume=[{"secretName": "kaggle"}]),
}


@pytest.mark.parametrize("problem", BREAKS)
def test_broken_policy_is_found(gke, problem):
    """The policy check names each thing that a careful cluster refuses."""
    profile, documents = gke
    executor = documents[0]["deploymentSpec"]["executors"]["exec-search-mlp"]
    pod = documents[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]["exec-search-mlp"]

    BREAKS[problem](executor, pod)

    found = policy_problems(documents, profile)
    assert 1 == len([line for line in found if line.startswith("exec-search-mlp") and problem in line])


@pytest.mark.parametrize(
    ("policy", "problem"),
    [
        ({}, "must be retried 3 times; got 0"),
        ({"maxRetryCount": 3}, "must be retried for 172800s; got 3600s, the default"),
    ],
)
def test_retries_that_end_too_early_are_found(gke, policy, problem):
    """A task whose retries Argo would cut off after the default hour is named."""
    profile, documents = gke
    documents[0]["root"]["dag"]["tasks"]["plan"]["retryPolicy"] = policy

    assert [f"plan {problem}"] == policy_problems(documents, profile)


def test_policy_has_nothing_to_say_without_a_cluster():
    """A local run's graph has no pods to check."""
    assert [] == policy_problems([{}], load_profile("local"))


def test_applied_profile_reaches_both_documents():
    """One call sets image, requests, placement, queue, volumes and secrets of a task."""
    profile = dataclasses.replace(load_profile("gke"), queue="team")

    @dsl.component(base_image="x", install_kfp_package=False)
    def train_mlp() -> int:
        return 1

    @dsl.pipeline(name="p")
    def pipeline():
        apply_profile(train_mlp(), "train_mlp", profile)

    container = pipeline.pipeline_spec.deployment_spec["executors"]["exec-train-mlp"]["container"]
    pod = pipeline.platform_spec.platforms["kubernetes"].deployment_spec.executors["exec-train-mlp"]
    assert f"{profile.registry}/keras:{COMMIT}" == container["image"]
    assert {"kueue.x-k8s.io/queue-name": "team", "fashion-tuning/step": "train-mlp"} == dict(
        pod["podMetadata"]["labels"]
    )
    assert ["/tmp", "/dev/shm"] == [mount["mountPath"] for mount in pod["emptyDirMounts"]]
    assert {"fashion-tuning/pool": "gpu"} == dict(pod["nodeSelector"]["labels"])


@pytest.mark.parametrize(
    ("cpu", "environment", "threads"),
    [
        ("500m", {}, "1"),
        ("1", {}, "1"),
        ("1900m", {}, "1"),
        ("4", {}, "4"),
        ("4", {"OMP_NUM_THREADS": "2"}, "2"),
    ],
)
def test_a_step_computes_with_the_cpus_that_are_its_own(cpu, environment, threads):
    """CPUs that the node only lends bring no thread: pods that share a node's cores would wait for each other."""
    settings = {"train-mlp": StepSettings(cpu=cpu, cpu_limit="8")}
    profile = ClusterProfile(name="x", steps=settings, environment=environment)

    @dsl.component(base_image="x", install_kfp_package=False)
    def train_mlp() -> int:
        return 1

    @dsl.pipeline(name="p")
    def pipeline():
        apply_profile(train_mlp(), "train-mlp", profile)

    container = pipeline.pipeline_spec.deployment_spec["executors"]["exec-train-mlp"]["container"]
    assert {"OMP_NUM_THREADS": threads} == {entry["name"]: entry["value"] for entry in container["env"]}


def test_only_promote_knows_the_model_registry():
    """Where the profile names one, its URL is in that step's environment and in no other's."""
    profile = dataclasses.replace(load_profile("gke"), model_registry="http://registry:8080")

    @dsl.component(base_image="x", install_kfp_package=False)
    def step() -> int:
        return 1

    @dsl.pipeline(name="p")
    def pipeline():
        apply_profile(step(), "promote", profile)
        apply_profile(step(), "evaluate", profile)

    executors = pipeline.pipeline_spec.deployment_spec["executors"].values()
    named = [{e["name"]: e["value"] for e in executor["container"]["env"]} for executor in executors]
    assert ["http://registry:8080"] == [env[REGISTRY_VARIABLE] for env in named if REGISTRY_VARIABLE in env]


@pytest.mark.parametrize("price", [0.0, 0.71])
def test_price_reaches_the_report_alone(price):
    """The report knows what an hour of a device costs; without a price no step's settings change."""
    profile = dataclasses.replace(load_profile("kind"), price_per_hour=price, currency="EUR")

    @dsl.component(base_image="x", install_kfp_package=False)
    def report() -> int:
        return 1

    @dsl.component(base_image="x", install_kfp_package=False)
    def evaluate() -> int:
        return 2

    @dsl.pipeline(name="p")
    def pipeline():
        apply_profile(report(), "report", profile)
        apply_profile(evaluate(), "evaluate", profile)

    executors = pipeline.pipeline_spec.deployment_spec["executors"]
    prices = [
        {entry["name"]: entry["value"] for entry in executors[f"exec-{step}"]["container"]["env"]}.get(PRICE_VARIABLE)
        for step in ("report", "evaluate")
    ]
    assert [f"{price} EUR" if price else None, None] == prices


def test_local_profile_sets_only_the_image():
    """Without a cluster a task keeps its own image's name and gets no platform part."""

    @dsl.component(base_image="x", install_kfp_package=False)
    def plan() -> int:
        return 1

    @dsl.pipeline(name="p")
    def pipeline():
        apply_profile(plan(), "plan", load_profile("local"))

    container = pipeline.pipeline_spec.deployment_spec["executors"]["exec-plan"]["container"]
    assert f"localhost/fashion-tuning/base:{COMMIT}" == container["image"]
    assert "resources" not in container
    assert not pipeline.platform_spec.platforms


def test_every_step_has_settings():
    """A profile says something about every step of the pipeline, and nothing else."""
    assert tuple(ClusterProfile(name="x").steps) == STEPS
    assert Path(PROFILES_DIR).is_dir()
