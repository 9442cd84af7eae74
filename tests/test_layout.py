"""What a machine can check of the project's own rules: import directions, documented commands, nothing private committed."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
_KERAS = {
    "components/models/mlp/training.py",
    "components/models/mlp/network.py",
    "components/models/mlp/compiled.py",
    "components/models/mlp/updates.py",
    "components/search/samplers/keras.py",
}
FRAMEWORKS = {
    "tensorflow": _KERAS,
    "keras": _KERAS,
    "keras_tuner": {"components/search/samplers/keras.py", "components/search/samplers/noisy_bayesian.py"},
    "torch": {
        "components/models/resnet18/training.py",
        "components/models/resnet18/captured.py",
        "components/models/resnet18/examples.py",
        "components/models/resnet18/network.py",
    },
    "torchvision": {"components/models/resnet18/network.py"},
}
"""Which files of `components` may import a framework: two of them in one process abort it."""


def tracked(pattern: str) -> list[Path]:
    """Return the files under version control that match a git path pattern; all files where there is no checkout."""
    listed = subprocess.run(["git", "ls-files", "-z", pattern], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        return [p for p in ROOT.rglob(pattern) if ".venv" not in p.parts]
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).exists()]


def imports(path: Path) -> set[str]:
    """Return the dotted names of every module that a file imports, at the top or inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


SOURCES = tracked("components/*.py") + tracked("pipelines/*.py")


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_import_directions(path):
    """`components` never imports `pipelines`; frameworks and kfp stay in the files that own them."""
    name = str(path.relative_to(ROOT))
    roots = {module.split(".")[0] for module in imports(path)}

    if name.startswith("components/"):
        assert "pipelines" not in roots
        assert "kfp" not in roots or name == "components/steps.py"
    assert [] == [f for f in FRAMEWORKS if f in roots and name not in FRAMEWORKS[f] | {"pipelines/none"}]


STAGES = (
    *(
        "approaches",
        "text",
        "errors",
        "secret_values",
        "failpoints",
        "runtime",
        "buckets",
        "dataset_name",
        "parameters",
    ),
    *(
        "stores",
        "data",
        "models",
        "search",
        "training",
        "training_step",
        "evaluation",
        "plan",
        "notification",
        "steps",
        "__main__",
    ),
)
"""The modules and folders of `components`, each of which may import the ones before it and no other."""

MAX_MODULES = 14
"""In one folder, `__init__.py` not counted: a folder is to be read from top to bottom."""


def project_imports() -> dict[str, set[str]]:
    """Return the modules of the project by dotted name, each with those that it imports: at the top, in functions, for types."""
    paths = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in SOURCES}
    return {name: {module for module in imports(path) if module in paths} - {name} for name, path in paths.items()}


PROJECT = project_imports()


def folder_graph(folder: str) -> dict[str, set[str]]:
    """Return which modules and folders of a folder import which others of it; a folder counts as one, with all in it."""
    graph: dict[str, set[str]] = {}
    for name, imported in PROJECT.items():
        inside = [
            module.removeprefix(f"{folder}.").split(".")[0] for module in imported if module.startswith(f"{folder}.")
        ]
        if name.startswith(f"{folder}."):
            child = name.removeprefix(f"{folder}.").split(".")[0]
            graph.setdefault(child, set()).update(set(inside) - {child})
    return graph


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Return what is part of a circle or leads into one, in alphabetical order; nothing where there is none."""
    left = {name: set(imported) for name, imported in graph.items()}
    while free := [name for name, imported in left.items() if not imported & left.keys()]:
        for name in free:
            del left[name]
    return sorted(left)


@pytest.mark.parametrize("folder", sorted({name.rpartition(".")[0] for name in PROJECT} - {""}))
def test_no_import_circles(folder):
    """The modules and folders of a folder can be read in an order in which each needs earlier ones only; lazy imports count."""
    assert [] == circle(folder_graph(folder))


def test_no_import_circles_between_modules():
    """Not across folders either."""
    assert [] == circle(PROJECT)


def test_circles_are_found():
    """The check sees a circle, also one of three."""
    assert ["a", "b", "c"] == circle({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": set()})
    assert [] == circle({"a": {"b", "c"}, "b": {"c"}, "c": set()})


def test_stages_import_earlier_stages_only():
    """Data knows no search, search no evaluation; whatever is new in `components` gets its place in `STAGES`."""
    graph = folder_graph("components")
    wrong = {
        name: sorted(later)
        for name, imported in graph.items()
        if (later := {other for other in imported if STAGES.index(other) >= STAGES.index(name)})
    }

    assert set(STAGES) == set(graph)
    assert {} == wrong


def test_folders_are_small():
    """No folder has more modules than one can read."""
    sizes: dict[str, int] = {}
    for path in SOURCES:
        if path.name != "__init__.py":
            folder = str(path.parent.relative_to(ROOT))
            sizes[folder] = sizes.get(folder, 0) + 1

    assert {} == {folder: size for folder, size in sizes.items() if size > MAX_MODULES}


def test_every_target_has_help():
    """Bare `make` explains every target."""
    text = (ROOT / "Makefile").read_text()
    phony = set(re.search(r"^\.PHONY: (.*?)(?<!\\)$", text, re.M | re.S)[1].replace("\\\n", " ").split())

    assert phony == set(re.findall(r"^([a-z-]+):.*?## \S", text, re.M))


def test_nothing_of_a_machine_is_committed():
    """No package registry's host and no absolute path of a developer's machine stands in the tree."""
    hosts = (
        "pypi." + "org",
        "pythonhosted." + "org",
        "registry.npmjs" + ".org",
        "deb.debian" + ".org",
        "proxy.golang" + ".org",
    )
    paths = ("/" + "work/", re.escape(str(ROOT)), re.escape(str(Path.home() / ".")) + "/[.](?!cache)")
    wrong = re.compile("|".join([*map(re.escape, hosts), *paths]))
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in tracked("*")
        if path.suffix not in (".png", ".gz", ".zip", ".npz")
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1)
        if wrong.search(line)
    ]

    assert [] == found
