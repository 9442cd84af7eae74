"""Reading the manifests for the tests: every file as it stands, and each overlay as kustomize renders it."""

import shutil
import subprocess
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
MANIFESTS = ROOT / "manifests"
OVERLAYS = sorted(path.name for path in (MANIFESTS / "overlays").iterdir())
KUSTOMIZE = next(
    (
        [found, *arguments]
        for program, arguments in (("kustomize", ["build"]), ("kubectl", ["kustomize"]))
        if (found := shutil.which(program))
    ),
    [],
)


def kustomizations() -> dict[Path, dict]:
    """Return every kustomization by its folder."""
    return {path.parent: yaml.safe_load(path.read_text()) for path in MANIFESTS.rglob("kustomization.yaml")}


def local_files(folder: Path, content: dict) -> list[Path]:
    """Return the files and folders that a kustomization names, without those on the internet."""
    names = [*content.get("resources", []), *content.get("components", [])]
    names += [patch["path"] for patch in content.get("patches", []) if "path" in patch]
    return [(folder / name).resolve() for name in names if not name.startswith("https://")]


def resources() -> list[dict]:
    """Return every resource of ours as it stands in its file: no patches, no kustomizations."""
    patches = {
        (folder / patch["path"]).resolve()
        for folder, content in kustomizations().items()
        for patch in content.get("patches", [])
        if "path" in patch
    }
    found = []
    for path in sorted(MANIFESTS.rglob("*.yaml")):
        if path.name != "kustomization.yaml" and path.resolve() not in patches:
            found += [document for document in yaml.safe_load_all(path.read_text()) if document]
    return found


def rendered(overlay: str, workspace: Path) -> list[dict]:
    """Return what kustomize makes of an overlay without the parts on the internet."""
    copy = workspace / "manifests"
    if not copy.exists():
        shutil.copytree(MANIFESTS, copy)
        for path in copy.rglob("kustomization.yaml"):
            content = yaml.safe_load(path.read_text())
            content["resources"] = [name for name in content.get("resources", []) if not name.startswith("https://")]
            path.write_text(yaml.safe_dump(content))
    result = subprocess.run(
        [*KUSTOMIZE, str(copy / "overlays" / overlay)], capture_output=True, text=True, check=False, timeout=60
    )
    assert (0, "") == (result.returncode, result.stderr)
    return list(yaml.safe_load_all(result.stdout))
