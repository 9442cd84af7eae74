"""`images digest` and `images sign` are the commands for images that have been pushed."""

import re
import shutil
import subprocess

import click

from components.errors import ConfigurationError, UnavailableError
from pipelines.commands import DEBUG_OPTION
from pipelines.images import find_engine, image_name
from pipelines.profile import load_profile
from pipelines.targets import TARGETS

_cluster = click.option("--cluster", default="gke", show_default=True, help="Cluster profile that names the registry.")


@click.command("digest")
@click.argument("target", type=click.Choice(TARGETS))
@_cluster
@DEBUG_OPTION
def digest_command(target: str, cluster: str) -> None:
    """Print name and digest of a pushed image, as `name=` and `digest=` lines for CI."""
    name, digest = pushed_image(image_name(target, load_profile(cluster)))
    click.echo(f"name={name}\ndigest={digest}")


@click.command("sign")
@click.argument("targets", nargs=-1, type=click.Choice(TARGETS))
@_cluster
@DEBUG_OPTION
def sign_command(targets: tuple[str, ...], cluster: str) -> None:
    """Sign pushed images with cosign, by digest; in CI its identity is the workflow's, and there is no key."""
    cosign = shutil.which("cosign")
    if not cosign:
        raise ConfigurationError("cosign must be installed to sign images; got none. Install it from sigstore")
    profile = load_profile(cluster)
    for target in targets or TARGETS:
        name, digest = pushed_image(image_name(target, profile))
        result = subprocess.run([cosign, "sign", "--yes", f"{name}@{digest}"], check=False)  # noqa: S603 - no shell
        if result.returncode:
            raise UnavailableError(f"cosign must sign {name}; got exit status {result.returncode}. Its output is above")


def pushed_image(full_name: str) -> tuple[str, str]:
    """Return name without tag and `sha256:...` digest of an image that this machine has pushed.

    Args:
        full_name: With its tag.

    Raises:
        ConfigurationError: It has not been pushed from here.
    """
    name = full_name.rpartition(":")[0]
    command = [find_engine(), "image", "inspect", "--format", '{{join .RepoDigests "\\n"}}', full_name]
    result = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603 - no shell
    for line in result.stdout.splitlines():
        pushed_name, _, digest = line.partition("@")
        if pushed_name == name and re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
            return name, digest
    raise ConfigurationError(
        f"{full_name} must have been pushed from this machine; got no digest. Run `make push` first"
    )
