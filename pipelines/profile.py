"""A cluster profile holds every fact about one cluster that the pipeline depends on; it is checked when it is loaded.

A profile is a YAML file with the fields of `ClusterProfile`; `profiles/schema.json` tells editors which. All values are fixed
at compile time: inside a loop kfp 2.17 loses resource values given as run parameters (the sub-graph never declares them, and
the driver fails).
"""

import dataclasses
import difflib
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from pydantic.dataclasses import dataclass
from pydantic_core import ErrorDetails, PydanticCustomError

from components.errors import ConfigurationError, ParameterError, file_error
from components.notification.webhook import WEBHOOK_VARIABLE
from pipelines import profile_rules as rules
from pipelines.targets import GPU_STEPS, STEP_GROUPS, STEPS

PROFILES_DIR = Path(__file__).parent / "profiles"
SCHEMA = PROFILES_DIR / "schema.json"
"""The fields as JSON schema; `python -m pipelines.profile` writes it."""
LOCAL = "local"
EXAMPLE = re.compile(r"\bexample-[a-z]")
"""Values that ship with a profile and must be replaced before anything can run."""
_CONFIG = ConfigDict(extra="forbid", use_attribute_docstrings=True)

_Text = Annotated[str, Field(min_length=1)]


def _contradiction(text: str) -> PydanticCustomError:
    """Return the error of values that are wrong only together; the text follows "must"."""
    return PydanticCustomError("contradiction", "{text}", {"text": text})


def _ungrouped(steps: tuple[str, ...]) -> tuple[str, ...]:
    """Return the steps with each name of a group replaced by its members."""
    return tuple(s for step in steps for s in STEP_GROUPS.get(step, (step,)))


@dataclass(frozen=True, kw_only=True, config=_CONFIG)
class StepSettings:
    """The resources and limits of one step's pod."""

    cpu: Annotated[str, rules.CPU] = "1"
    """Request, and limit where there is no `cpu_limit`, Kubernetes quantity ("2", "500m"). The step computes with so many
    threads, at least one, unless `environment` sets `OMP_NUM_THREADS`.
    """
    cpu_limit: Annotated[str, rules.CPU_LIMIT] = ""
    """Most that the pod may use while the node has it to spare; "" for what it requests."""
    memory: Annotated[str, rules.MEMORY] = "2Gi"
    """Request and limit, Kubernetes quantity ("4Gi")."""
    ephemeral_storage: Annotated[str, rules.STORAGE] = "10Gi"
    """Size limit of the step's writable /tmp, Kubernetes quantity."""
    shared_memory: Annotated[str, rules.SHARED_MEMORY] = ""
    """Size of /dev/shm, Kubernetes quantity; "" for the container runtime's 64 MiB."""
    gpus: Annotated[int, rules.whole(0, 16)] = 0
    """Accelerators requested."""
    timeout_seconds: Annotated[int, rules.whole(60, 30 * 86400)] = 3600
    """The pod is ended after so many seconds."""


@dataclass(frozen=True, kw_only=True, config=_CONFIG)
class Retries:
    """How often, and for how long, a failed step is tried again."""

    number: Annotated[int, rules.whole(0, 10)] = 3
    """Retries after the first attempt."""
    backoff: Annotated[str, rules.SECONDS] = "60s"
    """Wait before the first retry, for example "60s"."""
    factor: Annotated[float, rules.number(1, 10)] = 2.0
    """What each wait is multiplied with."""
    max_duration: Annotated[str, rules.SECONDS] = "172800s"
    """Counted from the start of the first attempt, queueing and running included; no retry starts and no retry outlives
    it.
    """


@dataclass(frozen=True, kw_only=True, config=_CONFIG)
class Secret:
    """A secret that some steps may read."""

    name: Annotated[str, rules.SECRET]
    """Of the Kubernetes secret, in the run's namespace."""
    steps: Annotated[tuple[Annotated[str, rules.STEP], ...], AfterValidator(_ungrouped)]
    """The only steps that get it."""
    keys: Annotated[tuple[_Text, ...], rules.NAMES]
    """The keys it must have."""
    mount_path: Annotated[str, rules.MOUNT_PATH] = ""
    """Folder to find the keys in; "" where they come as environment variables."""
    environment: Annotated[dict[_Text, _Text], rules.TEXTS] = Field(default_factory=dict)
    """Environment variable by key; empty where they come as files."""
    optional: Annotated[bool, rules.FLAG] = False
    """True where a run may start without it."""

    @model_validator(mode="after")
    def _comes_in_one_way(self) -> "Secret":
        if bool(self.mount_path) == bool(self.environment):
            raise _contradiction(
                f"have either a mount_path or an environment; got {'both' if self.mount_path else 'neither'}"
            )
        if strange := sorted(set(self.environment) - set(self.keys)):
            raise _contradiction(f"give only its keys an environment variable; got {strange[0]!r}")
        return self


@dataclass(frozen=True, kw_only=True, config=_CONFIG)
class Toleration:
    """A taint of the node pool that pods tolerate, in Kubernetes' own words."""

    key: str | None = None
    operator: Annotated[str, rules.OPERATOR] = "Equal"
    value: str | None = None
    effect: Annotated[str, rules.EFFECT] | None = None

    @model_validator(mode="after")
    def _has_what_the_operator_compares(self) -> "Toleration":
        if self.operator == "Exists" and self.value is not None:
            raise _contradiction(f"have no value with the operator Exists; got {self.value!r}")
        if self.operator == "Equal" and None in (self.key, self.value):
            raise _contradiction("have a key and a value with the operator Equal; got only one of them or none")
        return self


@dataclass(frozen=True, kw_only=True, config=_CONFIG)
class Notify:
    """Where the end of a run is reported."""

    secret: Annotated[str, rules.SECRET]
    """Name of the Kubernetes secret with the webhook's URL, in the run's namespace."""
    key: Annotated[str, rules.SECRET_KEY] = "url"
    """The key that holds it."""
    format: Annotated[str, rules.FORMAT] = "cloudevents"
    """`cloudevents`, `slack` or `teams`."""
    link: Annotated[str, rules.LINK] = ""
    """Page of a run in the Kubeflow UI, `{run}` standing for its id; "" for none."""


@dataclass(frozen=True, kw_only=True, config=_CONFIG)
class ClusterProfile:
    """One cluster."""

    name: str
    """The file's name without its ending, or "local"."""
    api: Annotated[str, rules.API] = ""
    """URL of the Kubeflow Pipelines API as the submitter reaches it; "" for none."""
    kubernetes_version: Annotated[str, rules.VERSION] = "1.29"
    """Oldest supported Kubernetes, for example "1.29"."""
    kfp_version: Annotated[str, rules.VERSION] = "2.16.0"
    """Oldest supported Kubeflow Pipelines, for example "2.16.0"."""
    namespace: Annotated[str, rules.NAMESPACE] = ""
    """Where the run's pods live."""
    experiment: Annotated[str, rules.EXPERIMENT] = "fashion-tuning"
    """Kubeflow experiment the runs belong to."""
    service_account: Annotated[str, rules.SERVICE_ACCOUNT] = ""
    """Kubernetes service account of the run's pods; "" for the installation's default."""
    registry: Annotated[str, rules.REGISTRY] = "localhost/fashion-tuning"
    """Host and path before the image's name."""
    image_pull_policy: Annotated[str, rules.PULL_POLICY] = "IfNotPresent"
    """Always, IfNotPresent or Never."""
    image_pull_secrets: Annotated[tuple[_Text, ...], rules.NAMES] = ()
    """Names of secrets with the registry's credentials."""
    study_root: Annotated[str, rules.STUDY_ROOT] = ""
    """Store of the studies and champions, `gs://bucket/prefix` or `s3://bucket/prefix`."""
    pipeline_root: Annotated[str, rules.PIPELINE_ROOT] = ""
    """Store of the artifacts; "" for the installation's default."""
    accelerator: Annotated[str, rules.ACCELERATOR] = ""
    """Resource name of the GPU, for example `nvidia.com/gpu`; "" where steps run on CPUs."""
    node_selector: Annotated[dict[_Text, _Text], rules.TEXTS] = Field(default_factory=dict)
    """Labels of the node pool, given to every step."""
    tolerations: tuple[Toleration, ...] = ()
    """Of the node pool's taints, given to every step."""
    autoscaled: Annotated[bool, rules.FLAG] = False
    """True where the node pool may have no node while nothing runs."""
    queue: Annotated[str, rules.QUEUE] = ""
    """Kueue local queue of the steps with a GPU; "" without Kueue."""
    run_as_user: Annotated[int, rules.whole(1, 2**31 - 1)] = 65532
    """Numeric user of every container; never 0."""
    run_as_group: Annotated[int, rules.whole(0, 2**31 - 1)] = 65532
    """Numeric group of every container."""
    environment: Annotated[dict[_Text, _Text], rules.TEXTS] = Field(default_factory=dict)
    """Environment variables of every step; never a secret."""
    secrets: tuple[Secret, ...] = ()
    """Which step may read which secret."""
    notify: Notify | None = None
    """Where the end of a run is reported; None, or nothing in the file, for no report."""
    model_registry: Annotated[str, rules.MODEL_REGISTRY] = ""
    """URL of Kubeflow's Model Registry, where promotions register champions; "" for none."""
    price_per_hour: Annotated[float, rules.number(0, 10_000)] = 0.0
    """What an hour of a device costs, for the report and the message; 0 where nobody wants to know."""
    currency: Annotated[str, rules.CURRENCY] = "USD"
    """The price's currency, three letters."""
    retries: Retries = Field(default_factory=Retries)
    """How every step is retried."""
    steps: dict[Annotated[str, rules.STEP_ENTRY], StepSettings] = Field(
        default_factory=lambda: {step: StepSettings() for step in STEPS}
    )
    """Settings by step; in the file, `search` and `train` stand for those steps of every approach."""

    @property
    def is_local(self) -> bool:
        """True for the built-in profile without a cluster."""
        return self.name == LOCAL

    def examples(self) -> list[str]:
        """Return `field: value` of everything that still has its example value."""
        values = dataclasses.asdict(self)
        return [
            f"{name}: {value}" for name, value in values.items() if isinstance(value, str) and EXAMPLE.search(value)
        ]


def load_profile(name_or_path: str) -> ClusterProfile:
    """Load and check a profile.

    Args:
        name_or_path: "local", the name of a file in `pipelines/profiles/`, or a path that ends in .yaml.

    Raises:
        ParameterError: No such profile.
        ConfigurationError: The file is not a valid profile; the text lists every problem.
    """
    if name_or_path == LOCAL:
        return ClusterProfile(name=LOCAL)
    path = Path(os.path.expanduser(name_or_path))  # noqa: PTH111 - keeps an unknown ~name
    if path.suffix not in (".yaml", ".yml"):
        path = PROFILES_DIR / f"{name_or_path}.yaml"
    if not path.is_file():
        names = ", ".join([LOCAL, *sorted(file.stem for file in PROFILES_DIR.glob("*.yaml"))])
        raise ParameterError(
            f"cluster profile must be one of {names} or the path of a .yaml file; got {name_or_path!r}."
            f" Copy {PROFILES_DIR.name}/gke.yaml and name the copy"
        )
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except PermissionError as error:
        raise file_error(error, "must be readable") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        problem = " ".join(str(error).split())
        raise ConfigurationError(f"{path} must be a readable YAML file; got {problem}. Repair the file") from error
    return parse_profile(path.stem, values, str(path))


def parse_profile(name: str, values: Any, where: str) -> ClusterProfile:
    """Make a profile of a file's content.

    Args:
        name: The profile's name.
        values: Mapping with the fields of `ClusterProfile` but `name`.
        where: What the error text begins with, for example the file's path.

    Raises:
        ConfigurationError: The text lists every problem.
    """
    try:
        profile = _ADAPTER.validate_python({**values, "name": name} if isinstance(values, Mapping) else values)
        problems = []
    except ValidationError as error:
        problems = list(dict.fromkeys(_problem(details) for details in error.errors()))
    if isinstance(values, Mapping):
        problems += [f"{field} must be given; got nothing" for field in _REQUIRED if field not in values]
        if "name" in values:
            problems.append(f"name must be that of the file; got {values['name']!r} in it")
    if not problems:
        secrets = (*profile.secrets, *_webhook(profile.notify))
        profile = dataclasses.replace(profile, secrets=secrets, steps=_steps(values["steps"]))
        problems = _contradictions(profile)
    if problems:
        raise ConfigurationError(f"{where}: {'; '.join(problems)}. Repair the file")
    return profile


_REQUIRED = ("api", "namespace", "registry", "study_root", "steps")
_ADAPTER = TypeAdapter(ClusterProfile)
_PARTS = {"steps": StepSettings, "retries": Retries, "secrets": Secret, "tolerations": Toleration, "notify": Notify}
_KINDS = {"tuple_type": "a list", "string_type": "a text"}


def _problem(details: ErrorDetails) -> str:
    """Return what pydantic found as `field must be RULE; got VALUE`."""
    place, value, kind = details["loc"], details["input"], details["type"]
    if place[-1:] == ("[key]",):
        place = place[:-1]
    if kind == "invalid_key":  # a field's name that is no text
        place, kind = (*place[:-1], str(place[-1])), "unexpected_keyword_argument"
    label = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).lstrip(".")
    if kind == "unexpected_keyword_argument":
        part = _PARTS[str(place[0])] if len(place) > 1 else ClusterProfile
        near = difflib.get_close_matches(str(place[-1]), [field.name for field in dataclasses.fields(part)], n=1)
        return f"{label} must be a known field{f' ({near[0]}?)' if near else ''}; got {place[-1]!r}"
    if kind == "missing":
        return f"{label} must be given; got nothing"
    if kind == "contradiction":
        return f"{label} must {details['msg']}"
    rule = details["msg"] if kind == "rule" else _KINDS.get(kind, "a mapping")
    return f"{label or 'the profile'} must be {rule}; got {value!r}"


def _webhook(notify: Notify | None) -> Sequence[Secret]:
    """Return what gives the address to its step, which runs and says so where the secret is missing."""
    if notify is None:
        return ()
    environment = {notify.key: WEBHOOK_VARIABLE}
    return (Secret(name=notify.secret, steps=("notify",), keys=(notify.key,), environment=environment, optional=True),)


def _steps(entries: Mapping[str, Mapping[str, Any]]) -> dict[str, StepSettings]:
    """Return the settings of each step, on top of those of its group (`search`, `train`) and of those named `default`."""
    group = {step: name for name, steps in STEP_GROUPS.items() for step in steps}
    names = {step: ("default", group.get(step, ""), step) for step in STEPS}
    return {step: StepSettings(**{k: v for n in names[step] for k, v in entries.get(n, {}).items()}) for step in STEPS}


def _contradictions(profile: ClusterProfile) -> list[str]:
    """Return what is wrong only in combination."""
    problems = []
    for step, settings in profile.steps.items():
        if settings.gpus and not profile.accelerator:
            problems.append(f"steps.{step}.gpus must be 0 without an accelerator; got {settings.gpus}")
        if profile.accelerator and step in GPU_STEPS and not settings.gpus:
            problems.append(f"steps.{step}.gpus must be at least 1 with accelerator {profile.accelerator}; got 0")
        if settings.cpu_limit and num_cpus(settings.cpu_limit) < num_cpus(settings.cpu):
            problems.append(f"steps.{step}.cpu_limit must be at least cpu ({settings.cpu}); got {settings.cpu_limit}")
    longest = max(settings.timeout_seconds for settings in profile.steps.values())
    if profile.retries.number and int(profile.retries.max_duration[:-1]) <= longest:
        problems.append(
            f"retries.max_duration must exceed the longest timeout_seconds ({longest}), or a step cut short is never"
            f" tried again; got {profile.retries.max_duration}"
        )
    if profile.queue and not profile.accelerator:
        problems.append(f"queue must be empty without an accelerator; got {profile.queue!r}")
    return problems


def num_cpus(quantity: str) -> float:
    """Return a CPU quantity of Kubernetes ("2", "500m") as a number."""
    return float(quantity[:-1]) / 1000 if quantity.endswith("m") else float(quantity)


def json_schema() -> str:
    """Return the schema of a profile's file for editors."""
    schema = _ADAPTER.json_schema()
    del schema["properties"]["name"]
    schema |= {"$schema": "https://json-schema.org/draft/2020-12/schema", "required": list(_REQUIRED)}
    return json.dumps(schema, indent=1, sort_keys=True) + "\n"


if __name__ == "__main__":
    SCHEMA.write_text(json_schema(), encoding="utf-8")
