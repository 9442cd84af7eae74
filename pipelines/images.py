"""Container images are named here; everything that needs a name asks `image_name`."""

import os
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

from components.errors import ConfigurationError
from pipelines.profile import ClusterProfile
from pipelines.targets import IMAGE_TARGETS, TARGETS

ROOT = Path(__file__).resolve().parent.parent
TAG_VARIABLE = "IMAGE_TAG"
"""Environment variable with the tag, for where there is no git checkout to ask for the commit."""
PINNED = re.compile(r"[^@\s]+(@sha256:[0-9a-f]{64}|:[0-9a-f]{12,40})")
"""Full image names that never change their content: by digest, or by commit."""
_CONTENT = ("components", "images", "pyproject.toml", ".dockerignore")


def image_name(step: str, profile: ClusterProfile) -> str:
    """Return the full name of the image that a step runs in.

    Args:
        step: A step, or one of `TARGETS`; underscores count as dashes.
        profile: Says which registry.

    Raises:
        ConfigurationError: No commit is known to name the images after.
    """
    step = step.replace("_", "-")
    target = step if step in TARGETS else IMAGE_TARGETS[step]
    return f"{profile.registry}/{target}:{image_tag(needed=not profile.is_local)}"


@cache
def image_tag(*, needed: bool = True) -> str:
    """Return the commit that images are named after, 12 hexadecimal digits, with `-dirty` where files differ from it.

    Args:
        needed: Raise where there is no commit; otherwise the tag is then "local".
    """
    if tag := os.environ.get(TAG_VARIABLE):
        return tag
    commit = _git("rev-parse", "--short=12", "HEAD")
    if commit:
        return f"{commit}-dirty" if _git("status", "--porcelain", "--", *_CONTENT) else commit
    if needed:
        raise ConfigurationError(
            f"the images' tag must be a commit; got no git checkout at {ROOT}. Set {TAG_VARIABLE} to the commit"
        )
    return "local"


def find_engine(engine: str = "") -> str:
    """Return the path of docker or podman; of both, podman's where docker's daemon does not answer.

    Raises:
        ConfigurationError: It is not installed.
    """
    wanted = [engine] if engine else ["docker", "podman"]
    engines = [path for candidate in wanted if (path := shutil.which(candidate))]
    if len(engines) > 1 and not _answers(engines[0]):
        return engines[1]
    if engines:
        return engines[0]
    raise ConfigurationError(f"a container engine must be installed; got no {' or '.join(wanted)}. Install podman")


@cache
def _answers(docker: str) -> bool:
    command = [docker, "version", "--format", "{{.Server.Version}}"]
    try:
        return subprocess.run(command, capture_output=True, timeout=20, check=False).returncode == 0  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return False


def _git(*arguments: str) -> str:
    """Return what git prints, "" where git or the repository is missing."""
    try:
        result = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False)  # noqa: S603, S607
    except OSError:
        return ""
    return result.stdout.strip() if result.returncode == 0 else ""
