"""A cluster profile holds every fact about one cluster that the pipeline depends on; it is checked when it is loaded.

A profile is a YAML file with the fields of `ClusterProfile`. All values are fixed at compile time: inside a loop kfp
2.17 loses resource values given as run parameters (the sub-graph never declares them, and the driver fails).
"""

import dataclasses
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from components.errors import ConfigurationError, ParameterError
from components.notification.webhook import WEBHOOK_VARIABLE
from pipelines.profile_rules import Problems, check
from pipelines.targets import GPU_STEPS, STEP_GROUPS, STEPS

PROFILES_DIR = Path(__file__).parent / "profiles"
LOCAL = "local"
EXAMPLE = re.compile(r"\bexample-[a-z]")
"""Values that ship with a profile and must be replaced before anything can run."""


@dataclass(frozen=True, kw_only=True)
class StepSettings:
    """The resources and limits of one step's pod.

    Attributes:
        cpu: Request, and limit where there is no `cpu_limit`, Kubernetes quantity ("2", "500m"). The step computes with so
            many threads, at least one, unless `environment` sets `OMP_NUM_THREADS`.
        cpu_limit: Most that the pod may use while the node has it to spare; "" for what it requests.
        memory: Request and limit, Kubernetes quantity ("4Gi").
        ephemeral_storage: Size limit of the step's writable /tmp, Kubernetes quantity.
        shared_memory: Size of /dev/shm, Kubernetes quantity; "" for the container runtime's 64 MiB.
        gpus: Accelerators requested.
        timeout_seconds: The pod is ended after so many seconds.
    """

    cpu: str = "1"
    cpu_limit: str = ""
    memory: str = "2Gi"
    ephemeral_storage: str = "10Gi"
    shared_memory: str = ""
    gpus: int = 0
    timeout_seconds: int = 3600


@dataclass(frozen=True, kw_only=True)
class Retries:
    """How often, and for how long, a failed step is tried again.

    Attributes:
        number: Retries after the first attempt.
        backoff: Wait before the first retry, for example "60s".
        factor: What each wait is multiplied with.
        max_duration: Counted from the start of the first attempt, queueing and running included; no retry starts and no
            retry outlives it.
    """

    number: int = 3
    backoff: str = "60s"
    factor: float = 2.0
    max_duration: str = "172800s"


@dataclass(frozen=True, kw_only=True)
class Secret:
    """A secret that some steps may read.

    Attributes:
        name: Of the Kubernetes secret, in the run's namespace.
        steps: The only steps that get it.
        keys: The keys it must have.
        mount_path: Folder to find the keys in; "" where they come as environment variables.
        environment: Environment variable by key; empty where they come as files.
        optional: True where a run may start without it.
    """

    name: str
    steps: tuple[str, ...]
    keys: tuple[str, ...]
    mount_path: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    optional: bool = False


@dataclass(frozen=True, kw_only=True)
class Notify:
    """Where the end of a run is reported.

    Attributes:
        secret: Name of the Kubernetes secret with the webhook's URL, in the run's namespace.
        key: The key that holds it.
        format: `cloudevents`, `slack` or `teams`.
        link: Page of a run in the Kubeflow UI, `{run}` standing for its id; "" for none.
    """

    secret: str
    key: str = "url"
    format: str = "cloudevents"
    link: str = ""


@dataclass(frozen=True, kw_only=True)
class ClusterProfile:
    """One cluster.

    Attributes:
        name: The file's name without its ending, or "local".
        api: URL of the Kubeflow Pipelines API as the submitter reaches it; "" for none.
        kubernetes_version: Oldest supported Kubernetes, for example "1.29".
        kfp_version: Oldest supported Kubeflow Pipelines, for example "2.16.0".
        namespace: Where the run's pods live.
        experiment: Kubeflow experiment the runs belong to.
        service_account: Kubernetes service account of the run's pods; "" for the installation's default.
        registry: Host and path before the image's name.
        image_pull_policy: Always, IfNotPresent or Never.
        image_pull_secrets: Names of secrets with the registry's credentials.
        study_root: Store of the studies and champions, `gs://bucket/prefix` or `s3://bucket/prefix`.
        pipeline_root: Store of the artifacts; "" for the installation's default.
        accelerator: Resource name of the GPU, for example `nvidia.com/gpu`; "" where steps run on CPUs.
        node_selector: Labels of the node pool, given to every step.
        tolerations: Of the node pool's taints, given to every step.
        autoscaled: True where the node pool may have no node while nothing runs.
        queue: Kueue local queue of the steps with a GPU; "" without Kueue.
        run_as_user: Numeric user of every container; never 0.
        run_as_group: Numeric group of every container.
        environment: Environment variables of every step; never a secret.
        secrets: Which step may read which secret.
        notify: Where the end of a run is reported; None, or nothing in the file, for no report.
        model_registry: URL of Kubeflow's Model Registry, where promotions register champions; "" for none.
        price_per_hour: What an hour of a device costs, for the report and the message; 0 where nobody wants to know.
        currency: The price's currency, three letters.
        retries: How every step is retried.
        steps: Settings by step; in the file, `search` and `train` stand for those steps of every approach.
    """

    name: str
    api: str = ""
    kubernetes_version: str = "1.29"
    kfp_version: str = "2.16.0"
    namespace: str = ""
    experiment: str = "fashion-tuning"
    service_account: str = ""
    registry: str = "localhost/fashion-tuning"
    image_pull_policy: str = "IfNotPresent"
    image_pull_secrets: tuple[str, ...] = ()
    study_root: str = ""
    pipeline_root: str = ""
    accelerator: str = ""
    node_selector: dict[str, str] = field(default_factory=dict)
    tolerations: tuple[dict[str, Any], ...] = ()
    autoscaled: bool = False
    queue: str = ""
    run_as_user: int = 65532
    run_as_group: int = 65532
    environment: dict[str, str] = field(default_factory=dict)
    secrets: tuple[Secret, ...] = ()
    notify: Notify | None = None
    model_registry: str = ""
    price_per_hour: float = 0.0
    currency: str = "USD"
    retries: Retries = field(default_factory=Retries)
    steps: dict[str, StepSettings] = field(default_factory=lambda: {step: StepSettings() for step in STEPS})

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
    path = Path(name_or_path).expanduser()
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
    problems = Problems()
    values = check(ClusterProfile, values, problems, required=_REQUIRED, ignored=("name",))
    values["retries"] = Retries(**check(Retries, values.get("retries", {}), problems, "retries"))
    values["secrets"] = tuple(
        _secret(entry, f"secrets[{index}]", problems) for index, entry in enumerate(values.get("secrets", ()))
    )
    if "notify" in values:
        values["notify"] = _notify(values["notify"], problems)
        values["secrets"] += (_webhook(values["notify"]),)
    values["steps"] = _steps(values.get("steps", {}), problems)
    if problems:
        raise ConfigurationError(f"{where}: {'; '.join(problems)}. Repair the file")
    profile = ClusterProfile(name=name, **values)
    if contradictions := _contradictions(profile):
        raise ConfigurationError(f"{where}: {'; '.join(contradictions)}. Repair the file")
    return profile


_STEP_NAMES = (*STEPS, *STEP_GROUPS)
_REQUIRED = ("api", "namespace", "registry", "study_root", "steps")


def _secret(entry: Any, where: str, problems: Problems) -> Secret | None:
    values = check(Secret, entry, problems, where, required=("name", "steps", "keys"))
    for step in values.get("steps", ()):
        if step not in _STEP_NAMES:
            problems.add(f"{where}.steps must name steps ({', '.join(_STEP_NAMES)}); got {step!r}")
    values["steps"] = tuple(s for step in values.get("steps", ()) for s in STEP_GROUPS.get(step, (step,)))
    if bool(values.get("mount_path")) == bool(values.get("environment")):
        given = "both" if values.get("mount_path") else "neither"
        problems.add(f"{where} must have either a mount_path or an environment; got {given}")
    for key in set(values.get("environment", {})) - set(values.get("keys", ())):
        problems.add(f"{where}.environment must use the secret's keys; got {key!r}")
    return None if problems else Secret(**values)


def _notify(entry: Any, problems: Problems) -> Notify | None:
    values = check(Notify, entry, problems, "notify", required=("secret",))
    return None if problems else Notify(**values)


def _webhook(notify: Notify | None) -> Secret | None:
    """Return what gives the address to its step, which runs and says so where the secret is missing."""
    if notify is None:
        return None
    environment = {notify.key: WEBHOOK_VARIABLE}
    return Secret(name=notify.secret, steps=("notify",), keys=(notify.key,), environment=environment, optional=True)


def _steps(entries: dict[str, Any], problems: Problems) -> dict[str, StepSettings]:
    """Read the settings of each step on top of those of its kind (`search`, `train`) and of those named `default`."""
    names = ("default", *_STEP_NAMES)
    for step in set(entries) - set(names):
        problems.add(f"steps.{step} must be one of {', '.join(names)}; got {step!r}")
    given = {name: check(StepSettings, entries.get(name, {}), problems, f"steps.{name}") for name in names}
    if problems:
        return {step: StepSettings() for step in STEPS}
    kind = {step: name for name, steps in STEP_GROUPS.items() for step in steps}
    return {
        step: StepSettings(**{**given["default"], **given.get(kind.get(step, ""), {}), **given[step]}) for step in STEPS
    }


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
