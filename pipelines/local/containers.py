"""Local runs whose steps run in their images: kfp's DockerRunner, on docker or a podman socket, with its race worked around.

Each step gets a read-only file system, no capabilities, a numeric user other than root, and no network, but for an ingest that fetches.
"""

import json
import logging
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import docker
import docker.errors
import docker.types
import requests
from kfp import local
from kfp.local import docker_task_handler

from components.dataset_name import local_path, parse_dataset
from components.errors import ConfigurationError, UnavailableError
from components.plan import RUN_ID_VARIABLE
from components.runtime import EVENTS_VARIABLE
from pipelines.images import image_name
from pipelines.profile import LOCAL, load_profile
from pipelines.targets import TARGETS

log = logging.getLogger(__name__)

SOCKETS = ("/var/run/docker.sock", "{XDG_RUNTIME_DIR}/podman/podman.sock", "/run/podman/podman.sock")
LABEL = "fashion-tuning.run"
PASSED_ON = (
    *("OMP_NUM_THREADS", "TF_CPP_MIN_LOG_LEVEL", "FASHION_TUNING_DEBUG", "FASHION_TUNING_LOG_LEVEL"),
    *(RUN_ID_VARIABLE, EVENTS_VARIABLE),
)
"""Environment variables that reach the steps; nothing else of the caller's environment does."""
USER = 65532
"""Whom the steps run as where the caller is root."""
STOP_SECONDS = 10

_running: dict[str, Any] = {}
_stopping = threading.Event()


def check_engine(out: Path) -> None:
    """Check before anything is started that a container engine answers and has the images.

    Raises:
        UnavailableError: No engine answers.
        ConfigurationError: An image is missing.
    """
    with closing(_service(out)) as engine:
        present = {tag for image in engine.images.list() for tag in image.tags}
    missing = [name for target in TARGETS if (name := image_name(target, load_profile(LOCAL))) not in present]
    if missing:
        raise ConfigurationError(
            f"the images must be built first; got no {', '.join(missing)}. Run: make images CLUSTER=local"
        )


def container_runner(out: Path) -> local.DockerRunner:
    """Return the runner for a run's folder, and make kfp use it safely.

    Args:
        out: The run's folder, with `parameters.json`; mounted at the same path in every container.
    """
    parameters = json.loads((out / "parameters.json").read_text(encoding="utf-8"))["parameters"]
    engine = _service(out)
    for leftover in engine.containers.list(all=True, filters={"label": f"{LABEL}={out}"}):
        leftover.remove(force=True)
    docker_task_handler.run_docker_container = _run_container
    signal.signal(signal.SIGTERM, _stop_all)
    # The engine would make it, but so that only root may write.
    (out / "artifacts").mkdir(exist_ok=True)
    sources = _local_sources(parameters, out)
    mounts = [
        docker.types.Mount(str(out), str(out), type="bind"),
        *(docker.types.Mount(str(path), str(path), type="bind", read_only=True) for path in sources),
    ]
    return local.DockerRunner(
        user=_user(engine, out),
        labels={LABEL: str(out)},
        mounts=mounts,
        read_only=True,
        tmpfs={"/tmp": "rw,exec,mode=1777,size=8g"},  # noqa: S108 - the containers' own
        shm_size="1g",
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
        environment={name: os.environ[name] for name in PASSED_ON if name in os.environ},
        network="none" if "://" not in parameters["study_root"] else "default",
        **_devices(engine),
    )


def _service(out: Path) -> docker.DockerClient:
    """Connect to docker or podman; start a podman service for this process where only podman is installed."""
    if not os.environ.get("DOCKER_HOST"):
        candidates = [name.format(XDG_RUNTIME_DIR=os.environ.get("XDG_RUNTIME_DIR", "")) for name in SOCKETS]
        listening = [name for name in candidates if _is_socket(Path(name))]
        if listening:
            os.environ["DOCKER_HOST"] = f"unix://{listening[0]}"
        elif podman := shutil.which("podman"):
            os.environ["DOCKER_HOST"] = _start_podman(podman, out)
    try:
        if (address := os.environ.get("DOCKER_HOST", "")).startswith("unix://"):
            # The client would leave its socket open where nobody listens.
            with closing(socket.socket(socket.AF_UNIX)) as probe:
                probe.connect(address.removeprefix("unix://"))
        engine = docker.from_env(timeout=300)
        engine.ping()
    except (docker.errors.DockerException, requests.RequestException, OSError) as error:
        raise UnavailableError(
            f"a container engine must answer; got {' '.join(str(error).split())}. Start docker, install podman, or set"
            " DOCKER_HOST"
        ) from error
    return engine


def _start_podman(podman: str, out: Path) -> str:
    """Start podman's service; it ends by itself when nobody has asked it anything for a minute."""
    # A socket's path may have 108 characters at most, so not in the run's folder.
    runtime = Path(os.environ.get("XDG_RUNTIME_DIR") or "/run")
    listening = runtime / f"fashion-tuning-{os.getpid()}.sock"
    address = f"unix://{listening}"
    with (out / "podman.log").open("ab") as output:
        subprocess.Popen(  # noqa: S603 - the podman that the caller's PATH names
            [podman, "system", "service", "--time", "60", address],
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    deadline = time.monotonic() + 20
    while not _is_socket(listening) and time.monotonic() < deadline:
        time.sleep(0.05)
    return address


def _is_socket(path: Path) -> bool:
    try:
        return stat.S_ISSOCK(path.stat().st_mode)
    except OSError:
        return False


def _user(engine: docker.DockerClient, out: Path) -> str:
    """Return `uid:gid` such that the steps may write the run's folder and the caller may read what they wrote."""
    if "name=rootless" in (engine.info().get("SecurityOptions") or []):
        return "0:0"  # whom a rootless engine maps to the caller
    if os.getuid():
        return f"{os.getuid()}:{os.getgid()}"
    # Root's steps run as somebody else, who must be able to write.
    os.umask(0)
    for path in (out, *out.rglob("*")):
        if not path.is_symlink() and path != out / "parameters.json":
            path.chmod(0o777 if path.is_dir() else 0o666)
    return f"{USER}:{USER}"


def _local_sources(parameters: dict[str, Any], out: Path) -> list[Path]:
    """Return the files and folders outside of the run's folder that its steps read."""
    sources = [parse_dataset(entry)[1] for entry in parameters["data_datasets"]]
    paths = [local_path(source) for source in (*sources, parameters["train_weights"]) if source]
    existing = {path.resolve() for path in paths if path is not None and path.exists()}
    if "://" not in (root := parameters["study_root"]):
        Path(root).mkdir(parents=True, exist_ok=True)
    return sorted(path for path in existing if not path.is_relative_to(out))


def _devices(engine: docker.DockerClient) -> dict[str, Any]:
    """Return the option that gives the steps all GPUs, where the engine knows how."""
    if "nvidia" not in (engine.info().get("Runtimes") or {}):
        return {}
    return {"device_requests": [docker.types.DeviceRequest(count=-1, capabilities=[["gpu"]])]}


def _run_container(
    client: docker.DockerClient, image: str, command: list[str], volumes: dict[str, Any], **options: Any
) -> int:
    """Run one step's container to its end; takes the place of kfp's function of the same arguments.

    kfp lets the engine remove the container as soon as it ends and asks for its exit status afterwards: a container
    that failed may then count as successful. Here it is removed after its status is known, and a step only succeeds if
    what it promised is there.

    Source: https://github.com/kubeflow/pipelines/issues/13332
    """
    if _stopping.is_set():
        return 1
    step, told = _step(command)
    if step == "ingest" and _is_remote(told["inputs"]["parameterValues"]["dataset"]["source"]):
        options["network"] = "default"
    container = client.containers.create(image=image, command=command, volumes=volumes, **options)
    _running[container.id] = container
    try:
        container.start()
        for line in container.logs(stream=True, follow=True):
            sys.stdout.write(line.decode(errors="replace"))
        status = container.wait()["StatusCode"]
    finally:
        _running.pop(container.id, None)
        container.remove(force=True)
    missing = _missing_outputs(told) if status == 0 else []
    for path in missing:
        sys.stdout.write(f"the step ended well but must have written {path}; got nothing\n")
    return 1 if missing else status


def _step(command: list[str]) -> tuple[str, dict[str, Any]]:
    """Return a step and what kfp tells it, its inputs and where its outputs belong, from `... components STEP JSON ...`."""
    name, executor_input = command[command.index("components") + 1 :][:2]
    return name, json.loads(executor_input)


def _is_remote(source: str) -> bool:
    return not source or local_path(source) is None


def _missing_outputs(told: dict[str, Any]) -> list[str]:
    """Return the files that a step's own description promises and that are not there."""
    outputs = told.get("outputs", {})
    promised = [parameter["outputFile"] for parameter in outputs.get("parameters", {}).values()]
    if promised or outputs.get("artifacts"):
        # kfp's executor writes the parameters into this one file.
        promised = [outputs["outputFile"]]
    for artifacts in outputs.get("artifacts", {}).values():
        promised += [artifact["uri"] for artifact in artifacts["artifacts"]]
    return [path for path in promised if path and not Path(path).exists()]


def _stop_all(_signal: int, _frame: Any) -> None:
    """End all running containers, asking first, and then this process: they are no children of it."""
    _stopping.set()
    stopping = [threading.Thread(target=_stop, args=(container,), daemon=True) for container in list(_running.values())]
    for thread in stopping:
        thread.start()
    deadline = time.monotonic() + STOP_SECONDS + 1
    for thread in stopping:
        thread.join(max(0.0, deadline - time.monotonic()))
    os._exit(128 + signal.SIGTERM)


def _stop(container: Any) -> None:
    try:
        container.stop(timeout=STOP_SECONDS)
        container.remove(force=True)
    except (docker.errors.DockerException, requests.RequestException) as error:
        log.warning("container %s could not be stopped: %s", container.id[:12], error)
