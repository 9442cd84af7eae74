import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from components.errors import ConfigurationError, UnavailableError
from pipelines import images
from pipelines.commands import images as image_commands
from pipelines.commands.images import LOCKS, images_command
from pipelines.images import PINNED, image_name, image_tag
from pipelines.profile import PROFILES_DIR, load_profile
from pipelines.targets import IMAGE_TARGETS, TARGETS

ROOT = Path(__file__).resolve().parents[2]
COMMIT = "0123456789ab"


@pytest.fixture(autouse=True)
def _no_tag(monkeypatch):
    monkeypatch.delenv("IMAGE_TAG", raising=False)
    image_tag.cache_clear()
    yield
    image_tag.cache_clear()


@pytest.fixture
def commit(monkeypatch):
    monkeypatch.setenv("IMAGE_TAG", COMMIT)


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A git repository with one commit, in the place of this one."""
    monkeypatch.setattr(images, "ROOT", tmp_path)
    (tmp_path / "components").mkdir()
    (tmp_path / "components" / "a.py").write_text("a = 1\n")
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    for arguments in (["init", "-q"], ["add", "."], [*identity, "commit", "-q", "-m", "first"]):
        subprocess.run(["git", "-C", str(tmp_path), *arguments], check=True)
    return tmp_path


@pytest.fixture
def engine(tmp_path, monkeypatch):
    """A container engine that writes its arguments down, one call a line."""
    calls = tmp_path / "calls"
    program = tmp_path / "bin" / "podman"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$@" >>{calls}\n[ "$1" != fail ]\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    monkeypatch.setattr(images.shutil, "which", lambda name: str(program) if name == "podman" else None)
    return calls


@pytest.mark.usefixtures("commit")
@pytest.mark.parametrize("cluster", ["local", "gke", "kind"])
@pytest.mark.parametrize(("step", "target"), IMAGE_TARGETS.items())
def test_every_step_has_an_image_of_the_profile(cluster, step, target):
    """One function names the image of each step: the profile's registry, the step's target, the commit."""
    profile = load_profile(cluster)

    assert f"{profile.registry}/{target}:{COMMIT}" == image_name(step, profile)
    assert image_name(step.replace("-", "_"), profile) == image_name(target, profile)
    assert PINNED.fullmatch(image_name(step, profile))


def test_tag_is_the_commit(repository):
    """Images are named after the commit they are made of."""
    head = subprocess.run(
        ["git", "-C", str(repository), "rev-parse", "HEAD"], capture_output=True, text=True, check=True
    ).stdout

    assert head[:12] == image_tag()


def test_changed_content_shows_in_the_tag(repository):
    """A checkout whose image content differs from its commit says so, and is not taken for pinned."""
    (repository / "README.md").write_text("not part of an image\n")
    clean = image_tag()
    image_tag.cache_clear()
    (repository / "components" / "a.py").write_text("a = 2\n")

    assert f"{clean}-dirty" == image_tag()
    assert not PINNED.fullmatch(f"r/base:{image_tag()}")


def test_unknown_commit_is_reported_where_it_matters(tmp_path, monkeypatch):
    """Without git a cluster's images cannot be named, while local ones can."""
    monkeypatch.setattr(images, "ROOT", tmp_path)

    assert "localhost/fashion-tuning/base:local" == image_name("plan", load_profile("local"))
    with pytest.raises(ConfigurationError, match="the images' tag must be a commit; got no git checkout"):
        image_name("plan", load_profile("gke"))


@pytest.mark.parametrize(
    ("name", "pinned"),
    [
        (f"ghcr.io/me/base@sha256:{'a' * 64}", True),
        (f"ghcr.io/me/base:{COMMIT}", True),
        (f"localhost:5000/base:{'0' * 40}", True),
        ("ghcr.io/me/base:latest", False),
        ("ghcr.io/me/base:1.0", False),
        ("ghcr.io/me/base", False),
        (f"ghcr.io/me/base@sha256:{'a' * 63}", False),
        (f"localhost:5000/base:{COMMIT} evil", False),
    ],
)
def test_pinned_names_are_recognised(name, pinned):
    """A digest or a commit counts as pinned; a moving tag does not."""
    assert pinned is bool(PINNED.fullmatch(name))


@pytest.mark.usefixtures("commit")
def test_names_are_printed_one_a_line():
    """The command that scripts ask prints exactly what the pipeline will use."""
    result = CliRunner().invoke(images_command, ["names", "--cluster", "gke"])

    assert [image_name(target, load_profile("gke")) for target in TARGETS] == result.output.split()


@pytest.mark.usefixtures("commit")
def test_build_passes_version_commit_and_variant(engine):
    """Building hands the engine the target, the full name, version and commit, and the lock without CUDA when asked."""
    result = CliRunner().invoke(images_command, ["build", "keras", "--cpu", "--argument", "A=b"])

    call = engine.read_text()
    version = re.search('^version = "(.+)"$', (images.ROOT / "pyproject.toml").read_text(), re.MULTILINE)[1]
    assert 0 == result.exit_code, result.output
    assert f"--target keras --tag localhost/fashion-tuning/keras:{COMMIT} -f images/Dockerfile" in call
    for argument in (f"VERSION={version}", f"COMMIT={COMMIT}", "A=b", "KERAS_LOCK=requirements-keras.txt"):
        assert f"--build-arg {argument}" in call


@pytest.mark.usefixtures("commit")
@pytest.mark.parametrize("registry", ["", "http://registry:8080"])
def test_the_registrys_client_is_built_in_where_the_profile_names_one(engine, tmp_path, registry):
    """The base image is small for everybody else."""
    text = (PROFILES_DIR / "gke.yaml").read_text()
    (tmp_path / "mine.yaml").write_text(f"{text}\nmodel_registry: '{registry}'\n")

    result = CliRunner().invoke(images_command, ["build", "base", "--cluster", str(tmp_path / "mine.yaml")])

    assert 0 == result.exit_code, result.output
    assert ("--build-arg MODEL_REGISTRY=1" in engine.read_text()) == bool(registry)


def test_push_refuses_what_no_commit_names(monkeypatch, engine):
    """Images of uncommitted work do not leave the machine."""
    monkeypatch.setenv("IMAGE_TAG", f"{COMMIT}-dirty")

    result = CliRunner().invoke(images_command, ["push", "--cluster", "gke"])

    assert isinstance(result.exception, ConfigurationError)
    assert not engine.exists()


@pytest.mark.usefixtures("commit")
def test_push_pushes_every_image(engine):
    """Pushing takes the same names as the pipeline."""
    CliRunner().invoke(images_command, ["push", "--cluster", "gke"])

    assert [f"push {image_name(target, load_profile('gke'))}" for target in TARGETS] == engine.read_text().splitlines()


@pytest.mark.usefixtures("engine")
def test_failing_engine_ends_the_command():
    """A build that fails is reported with the engine's exit status."""
    with pytest.raises(UnavailableError, match="podman fail must succeed; got exit status 1"):
        image_commands.run_engine(["fail"])


def test_missing_engine_is_named(monkeypatch):
    """Without docker and podman the message says what to install."""
    monkeypatch.setattr(images.shutil, "which", lambda _: None)

    with pytest.raises(ConfigurationError, match="a container engine must be installed; got no docker or podman"):
        image_commands.find_engine()


@pytest.mark.parametrize(("daemon", "chosen"), [(0, "docker"), (1, "podman")])
def test_docker_without_a_daemon_leaves_the_work_to_podman(tmp_path, monkeypatch, daemon, chosen):
    """A docker command alone builds nothing; podman is taken where it is installed, and docker where nothing else is."""
    for name in ("docker", "podman"):
        (tmp_path / name).write_text(f"#!/bin/sh\nexit {daemon}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))

    assert str(tmp_path / chosen) == image_commands.find_engine()
    (tmp_path / "podman").unlink()
    assert str(tmp_path / "docker") == image_commands.find_engine()


def test_dockerfile_uses_the_locks_and_nothing_else():
    """Every lock file is used by the Dockerfile, and every lock that it uses exists."""
    text = (ROOT / "images" / "Dockerfile").read_text()
    named = set(re.findall(r"requirements-[a-z-]+\.txt", text))

    assert {path.name for path in (ROOT / "images").glob("requirements-*.txt")} == named
    assert set(LOCKS) | {"requirements-kfp.txt"} == named


def test_locks_keep_to_the_project():
    """Each lock satisfies the ranges of pyproject.toml, and all agree on the version of a shared package."""
    locked: dict[str, set[str]] = {}
    for path in (ROOT / "images").glob("requirements-*.txt"):
        for name, version in re.findall(r"^([a-z0-9][\w.-]*)==(\S+)", path.read_text(), re.MULTILINE):
            locked.setdefault(name, set()).add(version)

    assert {} == {name: versions for name, versions in locked.items() if len(versions) > 1}
    for requirement in image_commands._pyproject()["project"]["dependencies"]:
        assert re.split(r"[<>=\[]", requirement)[0] in locked


def test_context_holds_only_what_the_images_need():
    """Everything but the project's code and the locks is kept out of the build."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()

    assert "*" == next(line for line in lines if not line.startswith("#"))
    assert {"!components", "!images/requirements-*.txt", "!images/bake_weights.py"} == {
        line for line in lines if line.startswith("!")
    }


@pytest.mark.skipif(not (Path(sys.prefix) / "bin" / "hadolint").exists(), reason="hadolint is not installed")
def test_dockerfile_passes_its_linter():
    """Hadolint has nothing to say but what the file itself excepts with a reason."""
    result = subprocess.run(
        [str(Path(sys.prefix) / "bin" / "hadolint"), "images/Dockerfile"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert (0, "") == (result.returncode, result.stdout)
