"""A cluster profile sets image, resources, node, volumes, deadline and user of every task of the graph."""

from kfp import kubernetes
from kfp.dsl import PipelineTask

from components.evaluation.cost import PRICE_VARIABLE
from components.runtime import REGISTRY_VARIABLE
from pipelines.images import image_name
from pipelines.profile import ClusterProfile, StepSettings, num_cpus

REQUIRE_GPU = "FASHION_TUNING_REQUIRE_GPU"
"""Set to 1 in the steps that got an accelerator, which then refuse to run without one."""
THREADS = "OMP_NUM_THREADS"
"""How many threads a step computes with: the whole CPUs that it requests, at least one.

Threads of one operation wait for each other in a busy loop. Of a CPU that the node only lends (`cpu_limit`), a second
thread is often without one while the first waits: four searches with two threads each took ten times as long on two cores
as with one.
"""
STEP_LABEL = "fashion-tuning/step"
"""Pod label that the network policies select by: only ingest may reach the internet."""


def apply_profile(task: PipelineTask, step: str, profile: ClusterProfile) -> PipelineTask:
    """Give a task its image and everything the cluster needs; with the profile "local" only the image.

    Args:
        task: A task of the pipeline under construction.
        step: One of `STEPS`; underscores count as dashes.
        profile: What `load_profile` returned.

    Returns:
        The same task.
    """
    step = step.replace("_", "-")
    task.set_container_image(image_name(step, profile))
    if profile.is_local:
        return task
    settings = profile.steps[step]
    task.set_cpu_request(settings.cpu).set_cpu_limit(settings.cpu_limit or settings.cpu)
    task.set_memory_request(settings.memory).set_memory_limit(settings.memory)
    if settings.gpus:
        task.set_accelerator_type(profile.accelerator).set_accelerator_limit(settings.gpus)
        task.set_env_variable(REQUIRE_GPU, "1")
        if profile.queue:
            kubernetes.add_pod_label(task, "kueue.x-k8s.io/queue-name", profile.queue)
    task.set_retry(
        num_retries=profile.retries.number,
        backoff_duration=profile.retries.backoff,
        backoff_factor=profile.retries.factor,
        backoff_max_duration=profile.retries.max_duration,
    )
    if profile.model_registry and step == "promote":
        task.set_env_variable(REGISTRY_VARIABLE, profile.model_registry)
    environment = {THREADS: str(max(1, int(num_cpus(settings.cpu))))} | profile.environment
    for name, value in sorted(environment.items()):
        task.set_env_variable(name, value)
    if step == "report" and profile.price_per_hour:
        task.set_env_variable(PRICE_VARIABLE, f"{float(profile.price_per_hour)} {profile.currency}")
    kubernetes.add_pod_label(task, STEP_LABEL, step)
    _place(task, settings, profile)
    for secret in profile.secrets:
        if step not in secret.steps:
            continue
        if secret.mount_path:
            kubernetes.use_secret_as_volume(task, secret.name, secret.mount_path, optional=secret.optional)
        else:
            kubernetes.use_secret_as_env(task, secret.name, dict(secret.environment), optional=secret.optional)
    return task


def _place(task: PipelineTask, settings: StepSettings, profile: ClusterProfile) -> None:
    """Set what only the platform part of the compiled pipeline can say: placement, volumes, deadline, user."""
    for key, value in sorted(profile.node_selector.items()):
        kubernetes.add_node_selector(task, key, value)
    for toleration in profile.tolerations:
        kubernetes.add_toleration(
            task,
            key=toleration.key,
            operator=toleration.operator,
            value=toleration.value,
            effect=toleration.effect,
        )
    kubernetes.empty_dir_mount(task, "tmp", "/tmp", size_limit=settings.ephemeral_storage)  # noqa: S108
    if settings.shared_memory:
        kubernetes.empty_dir_mount(task, "shm", "/dev/shm", medium="Memory", size_limit=settings.shared_memory)  # noqa: S108
    kubernetes.set_timeout(task, settings.timeout_seconds)
    kubernetes.set_image_pull_policy(task, profile.image_pull_policy)
    if profile.image_pull_secrets:
        kubernetes.set_image_pull_secrets(task, list(profile.image_pull_secrets))
    kubernetes.set_security_context(
        task, run_as_user=profile.run_as_user, run_as_group=profile.run_as_group, run_as_non_root=True
    )
