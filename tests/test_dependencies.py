"""What the project imports is what pyproject.toml declares, and the lock holds what it allows."""

import importlib.metadata
import re
import sys
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.test_layout import ROOT, imports, tracked

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
STEPS = PROJECT["project"]["dependencies"]
KERAS, TORCH, REGISTRY, PIPELINES, EXPORTS = (
    PROJECT["project"]["optional-dependencies"][name] for name in ("keras", "torch", "registry", "pipelines", "exports")
)
TEST = PROJECT["dependency-groups"]["test"]
OURS = {"benchmarks", "components", "images", "pipelines", "tests"}
AREAS = {
    "components": (*STEPS, *KERAS, *TORCH, *REGISTRY, "kfp"),
    "images": (*STEPS, *TORCH),
    "pipelines": (*STEPS, *PIPELINES, *EXPORTS),
    "benchmarks": (*STEPS, *KERAS, *TORCH, *PIPELINES, *EXPORTS, *TEST),
    "tests": (*STEPS, *KERAS, *TORCH, *PIPELINES, *EXPORTS, *TEST),
}
"""What may be imported below each folder; `tests/test_layout.py` says in which files frameworks and kfp may be."""
NAMESPACES = {"google", "google.cloud"}
"""What several distributions share and none of them owns."""


def distributions() -> dict[str, str]:
    """Return the distribution that each importable name comes from, with dots where several share a namespace."""
    found = {}
    for distribution in importlib.metadata.distributions():
        name = canonicalize_name(distribution.metadata["Name"])
        for file in distribution.files or ():
            if file.suffix in (".py", ".so") and ".." not in file.parts:
                found[".".join((*file.parts[:-1], file.name.split(".")[0])).removesuffix(".__init__")] = name
    return found


def distribution_of(module: str, known: dict[str, str]) -> str | None:
    """Return the distribution of a dotted name, which may end in what a module defines."""
    parts = module.split(".")
    return next((known[n] for n in (".".join(parts[:i]) for i in range(len(parts), 0, -1)) if n in known), None)


@pytest.mark.parametrize("area", AREAS)
def test_everything_imported_is_declared(area):
    """Nothing works only because another package happens to need the same one."""
    declared = {canonicalize_name(Requirement(text).name) for text in AREAS[area]}
    known = distributions()
    undeclared = {
        (str(path.relative_to(ROOT)), module, found)
        for path in tracked(f"{area}/*.py")
        for module in imports(path)
        if module.split(".")[0] not in sys.stdlib_module_names | OURS
        and module not in NAMESPACES
        and (found := distribution_of(module, known)) not in declared
    }

    assert set() == undeclared


@pytest.mark.parametrize("lock", ["requirements.txt", *(f"images/{p.name}" for p in ROOT.glob("images/*.txt"))])
def test_lock_holds_what_is_declared(lock):
    """A changed requirement without `make lock` is noticed here, and no lock file names a package index."""
    text = (ROOT / lock).read_text(encoding="utf-8")
    locked = dict(re.findall(r"^([a-z0-9-]+)(?:\[[a-z,-]+\])?==([^\s;]+)", text, re.M))
    wanted = [Requirement(t) for t in (*STEPS, *KERAS, *TORCH, *REGISTRY, *PIPELINES, *EXPORTS, *TEST)]

    assert "://" not in text
    assert [] == [
        f"{r} is locked as {locked[name]}"
        for r in wanted
        if (name := canonicalize_name(r.name)) in locked and not r.specifier.contains(locked[name], prereleases=True)
    ]
    if lock == "requirements.txt":
        assert set() == {canonicalize_name(r.name) for r in wanted} - set(locked)
