"""Builds the images for real and runs the quick start in them: `make test-images`, as root, with podman and debootstrap.

    apt-get install podman runc debootstrap

Not part of `make test`: it downloads some gigabytes. Without access to a registry the base image is a stand-in that
debootstrap makes of Debian's packages; IMAGE_TEST_BASE names a real one. TensorFlow comes without CUDA's libraries,
unless IMAGE_TEST_GPU is set. Sizes and seconds are left in build/images.json.
"""

import json
import os
import shutil
import subprocess
import sys
import time

import pytest

from pipelines.commands.images import build_image
from pipelines.images import ROOT, image_name, image_tag
from pipelines.profile import load_profile
from pipelines.targets import TARGETS

STAND_IN = "localhost/python-stand-in:trixie"
TAG = "test"
ANY_USER = "123456:123456"
MAX_BASE_BYTES = 700_000_000
CONFINED = (
    *("--rm", "--read-only", "--network", "none", "--user", ANY_USER, "--cap-drop", "all"),
    *("--security-opt", "no-new-privileges", "--tmpfs", "/tmp:rw,mode=1777"),
)
IMPORTS = {
    "base": "numpy, onnxruntime, sklearn.metrics, skopt, matplotlib.pyplot, pandas, PIL, safetensors, google.cloud.storage",
    "keras": "tensorflow, keras, keras_tuner, onnx",
    "torch": "torch, torchvision, onnxscript",
}
OTHER = {"base": ("tensorflow", "torch"), "keras": ("torch",), "torch": ("tensorflow", "keras")}

pytestmark = [
    pytest.mark.timeout(3600),
    pytest.mark.skipif(not shutil.which("podman"), reason="podman is not installed"),
]


def run(*command: str, **options) -> str:
    result = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    assert 0 == result.returncode, f"{' '.join(command[:6])}: {result.stdout[-2000:]}{result.stderr[-2000:]}"
    return result.stdout


@pytest.fixture(scope="session", autouse=True)
def _engine(tmp_path_factory):
    """Podman without a network of its own, which machines inside a sandbox cannot give it."""
    runtime = next((name for name in ("crun", "runc") if shutil.which(name)), "runc")
    path = tmp_path_factory.mktemp("podman") / "containers.conf"
    path.write_text(
        '[containers]\nnetns = "host"\ndefault_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]\n'
        f'[engine]\nruntime = "{runtime}"\nevents_logger = "file"\ncgroup_manager = "cgroupfs"\n'
    )
    with pytest.MonkeyPatch.context() as patch:
        if "CONTAINERS_CONF" not in os.environ:
            patch.setenv("CONTAINERS_CONF", str(path))
        patch.setenv("IMAGE_TAG", TAG)
        image_tag.cache_clear()
        yield
    image_tag.cache_clear()


@pytest.fixture(scope="session")
def base_image(tmp_path_factory) -> str:
    """The image to start from: the one named by IMAGE_TEST_BASE, or a stand-in of Debian's packages."""
    if given := os.environ.get("IMAGE_TEST_BASE"):
        return given
    if subprocess.run(["podman", "image", "exists", STAND_IN], check=False).returncode == 0:
        return STAND_IN
    root = tmp_path_factory.mktemp("base") / "root"
    packages = "python3,python3-venv,ca-certificates"
    run("debootstrap", "--variant=minbase", f"--include={packages}", "trixie", str(root))
    # Where a proxy looks into encrypted traffic, this machine's certificates are the ones that work.
    shutil.copy("/etc/ssl/certs/ca-certificates.crt", root / "etc/ssl/certs/ca-certificates.crt")
    (root / "etc/pip.conf").write_text("[global]\ncert = /etc/ssl/certs/ca-certificates.crt\n")
    for folder in ("var/cache/apt", "var/lib/apt/lists"):
        shutil.rmtree(root / folder, ignore_errors=True)
    archive = root.parent / "root.tar"
    run("tar", "-C", str(root), "-cf", str(archive), ".")
    run("podman", "import", "--change", 'CMD ["python3"]', str(archive), STAND_IN)
    shutil.rmtree(root.parent)
    return STAND_IN


@pytest.fixture(scope="session")
def images(base_image) -> dict[str, dict]:
    """The built images as podman describes them, by target."""
    profile, found = load_profile("local"), {}
    for target in TARGETS:
        started = time.monotonic()
        name = image_name(target, profile)
        gpu = bool(os.environ.get("IMAGE_TEST_GPU"))
        build_image(target, name, engine="podman", cpu=not gpu, arguments=[f"PYTHON_IMAGE={base_image}"])
        found[target] = json.loads(run("podman", "image", "inspect", name))[0]
        found[target] |= {"name": name, "seconds": round(time.monotonic() - started)}
    report = {target: {"bytes": image["Size"], "seconds": image["seconds"]} for target, image in found.items()}
    path = ROOT / "build" / "images.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(report | {"base_image": base_image}, indent=1) + "\n")
    return found


def confined(image: dict, *command: str) -> str:
    """Run a command as any user, with a read-only file system and without a network."""
    return run("podman", "run", *CONFINED, image["name"], *command)


def test_base_is_small(images):
    """The image of most steps stays below 700 MB."""
    assert images["base"]["Size"] < MAX_BASE_BYTES


@pytest.mark.parametrize("target", TARGETS)
def test_image_says_what_it_is(images, target):
    """Labels name version and commit, and the user is a number other than root's."""
    labels, user = images[target]["Config"]["Labels"], images[target]["Config"]["User"]

    assert ("0.2.0", TAG, "65532:65532") == (
        labels["org.opencontainers.image.version"],
        labels["org.opencontainers.image.revision"],
        user,
    )


@pytest.mark.parametrize("target", TARGETS)
def test_image_carries_its_framework_only(images, target):
    """Every package of an image can be imported by any user, offline and read-only; the other framework is not there."""
    check = f"import importlib.util as u; print([m for m in {OTHER[target]} if u.find_spec(m)])"

    assert "[]" == confined(images[target], "python3", "-c", check).strip()
    confined(images[target], "python3", "-c", f"import {IMPORTS[target]}; import components.plan, components.stores")


@pytest.mark.parametrize("target", TARGETS)
def test_kfp_executor_starts(images, target):
    """The part of kfp that runs inside a step works without kfp's own dependencies."""
    text = confined(images[target], "sh", "-c", "_KFP_RUNTIME=true python3 -m kfp.dsl.executor_main --help")

    assert "--executor_input" in text


@pytest.mark.parametrize("target", TARGETS)
def test_nothing_is_left_of_the_build(images, target):
    """No compiler, no package cache and no package's own tests remain in an image."""
    find = "find /opt /root /tmp -name '*.whl' -o -type d -name tests -path '/opt/venv/*' 2>/dev/null; ls /root/.cache"

    assert "" == run(
        "podman", "run", "--rm", "--user", "0", images[target]["name"], "sh", "-c", f"({find}) 2>/dev/null; :"
    )
    assert "" == confined(images[target], "sh", "-c", "command -v gcc cc make; :")


def test_quick_start_runs_in_the_images(images, tmp_path):
    """The compiled pipeline runs step by step in the images, and leaves report and summary at the top of its folder."""
    out = tmp_path / "run"
    command = [sys.executable, "-m", "pipelines", "run", "--preset", "quickstart", "--containers", "--out", str(out)]
    smaller = ("search_trials=2", "search_epochs=2", "train_replicates=1", "search_workers=1")
    settings = [argument for setting in smaller for argument in ("--set", setting)]

    text = run(*command, *settings, cwd=ROOT)

    summary = json.loads((out / "summary.json").read_text())
    assert images
    assert {"fashion-mnist", "fashion-products"} == set(summary["datasets"]), text
    assert (out / "report.html").stat().st_size > 10_000
    assert "" == run("podman", "ps", "--all", "--quiet", "--filter", "label=fashion-tuning.run")
