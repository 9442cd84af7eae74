"""`images build`, `push`, `names` and `lock` make the container images."""

import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

import click

from components.errors import ConfigurationError, UnavailableError
from pipelines.commands import DEBUG_OPTION
from pipelines.commands.image_signing import digest_command, sign_command
from pipelines.images import ROOT, find_engine, image_name, image_tag
from pipelines.profile import load_profile
from pipelines.targets import TARGETS

LOCKS = {
    "requirements-base.txt": (),
    "requirements-keras.txt": ("--extra", "keras"),
    "requirements-keras-gpu.txt": ("--extra", "keras", "--group", "keras-gpu"),
    "requirements-torch.txt": ("--extra", "torch"),
    "requirements-registry.txt": ("--extra", "registry"),
}
"""What each lock file adds to the dependencies of pyproject.toml."""
PYTHON_VERSION, PLATFORM = "3.12", "x86_64-manylinux_2_28"
"""Python version and platform of the base image."""

_cluster = click.option(
    "--cluster", default="local", show_default=True, help="Cluster profile that names the registry."
)
_engine = click.option("--engine", default="", help="docker or podman; the one that is installed if not given.")
_targets = click.argument("targets", nargs=-1, type=click.Choice(TARGETS))


@click.group("images")
def images_command() -> None:
    """Build, push and lock the container images."""


images_command.add_command(digest_command)
images_command.add_command(sign_command)


@images_command.command("names")
@_cluster
@DEBUG_OPTION
def names_command(cluster: str) -> None:
    """Print the full names of the images."""
    for target in TARGETS:
        click.echo(image_name(target, load_profile(cluster)))


@images_command.command("build")
@_targets
@_cluster
@_engine
@click.option("--cpu", is_flag=True, help="Leave CUDA's libraries out of the Keras image.")
@click.option(
    "--argument", "arguments", multiple=True, metavar="NAME=VALUE", help="Build argument of images/Dockerfile."
)
@DEBUG_OPTION
def build_command(targets: tuple[str, ...], cluster: str, engine: str, cpu: bool, arguments: tuple[str, ...]) -> None:
    """Build the images, all of them or those named."""
    profile = load_profile(cluster)
    if profile.model_registry:
        arguments = (*arguments, "MODEL_REGISTRY=1")
    for target in targets or TARGETS:
        build_image(target, image_name(target, profile), engine=engine, cpu=cpu, arguments=arguments)


@images_command.command("push")
@_targets
@_cluster
@_engine
@DEBUG_OPTION
def push_command(targets: tuple[str, ...], cluster: str, engine: str) -> None:
    """Push the images to the registry of a cluster profile."""
    profile = load_profile(cluster)
    if image_tag().endswith("-dirty"):
        raise ConfigurationError(f"images must be pushed from a commit; got {image_tag()}. Commit or undo the changes")
    for target in targets or TARGETS:
        run_engine(["push", image_name(target, profile)], engine)


@images_command.command("lock")
@click.option("--upgrade", is_flag=True, help="Take the newest versions that pyproject.toml allows.")
@DEBUG_OPTION
def lock_command(upgrade: bool) -> None:
    """Write images/requirements-*.txt: exact versions and hashes of everything the images install."""
    uv = Path(sys.prefix) / "bin" / "uv"
    common = [
        *(str(uv), "pip", "compile", "-q", "--python-version", PYTHON_VERSION, "--python-platform", PLATFORM),
        *("--only-binary", ":all:", "--generate-hashes", "--no-emit-index-url", "--no-annotate"),
        *("--custom-compile-command", "make lock", "--constraint", "requirements.txt"),
        *(["--upgrade"] if upgrade else []),
    ]
    for name, additions in LOCKS.items():
        _checked([*common, *additions, "-o", f"images/{name}", "pyproject.toml"])
    kfp = next(
        line for line in _pyproject()["project"]["optional-dependencies"]["pipelines"] if line.startswith("kfp==")
    )
    _checked([*common, "--no-deps", "-o", "images/requirements-kfp.txt", "-"], text=kfp)


def build_image(target: str, name: str, *, engine: str = "", cpu: bool = False, arguments: Sequence[str] = ()) -> None:
    """Build one image.

    Args:
        target: One of `TARGETS`.
        name: Full name that the image gets.
        engine: docker or podman; "" for the one that is installed.
        cpu: True to leave CUDA's libraries out of the Keras image.
        arguments: Further build arguments, NAME=VALUE.

    Raises:
        ConfigurationError: No engine is installed.
        UnavailableError: The build failed; its output is on the terminal.
    """
    given = [f"VERSION={_pyproject()['project']['version']}", f"COMMIT={image_tag(needed=False)}", *arguments]
    if cpu:
        given.append("KERAS_LOCK=requirements-keras.txt")
    options = [option for argument in given for option in ("--build-arg", argument)]
    network = ["--network", "host"]  # engines inside a virtual machine or container have no network of their own
    run_engine(["build", *network, "--target", target, "--tag", name, "-f", "images/Dockerfile", *options, "."], engine)


def run_engine(arguments: list[str], engine: str = "") -> None:
    """Run docker or podman in the repository's root, its output on the terminal.

    Raises:
        ConfigurationError: No engine is installed.
        UnavailableError: It failed.
    """
    _checked([find_engine(engine), *arguments])


def _checked(command: list[str], text: str | None = None) -> None:
    result = subprocess.run(command, cwd=ROOT, check=False, input=text, text=True)  # noqa: S603 - fixed programs
    if result.returncode:
        display_command = " ".join([Path(command[0]).name, *command[1:3]])
        raise UnavailableError(
            f"{display_command} must succeed; got exit status {result.returncode}. Its output is above"
        )


def _pyproject() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
