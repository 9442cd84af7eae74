"""What the pages say is so: links, headings, commands, options, targets, defaults."""

import json
import re
import shlex
from importlib import import_module
from pathlib import Path

import click
import pytest

from pipelines.__main__ import COMMANDS
from pipelines.presets import default_parameters

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def headings(page: Path) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    found = re.findall(
        r"^#+ (.+)$", re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S), re.M
    )
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in found}


def commands(page: Path, program: str) -> list[list[str]]:
    """The words of each command of a program, in code blocks and in backquotes."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ").replace("\\|", "|")
    lines = re.findall(rf"^ *(?:\$ )?({program}(?: [^\n]*)?)$", text, re.M) + re.findall(
        rf"`({program} [^`\n]*)`", text
    )
    lines += re.findall(rf"\$\(({program} [^)\n]*)\)", text)
    return [shlex.split(re.sub(r" +#.*$| [|>].*$", "", line), posix=True)[len(program.split()) :] for line in lines]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    """Files of the project exist, and so do the headings that links name."""
    broken = []
    for target in re.findall(r"\]\((?!https?://|mailto:)([^)]+)\)", page.read_text(encoding="utf-8")):
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in headings(file)):
            broken.append(target)

    assert [] == broken


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_exist(page):
    """Each `fashion-tuning` command is one and has the options that it is given."""
    wrong = []
    for words in commands(page, "fashion-tuning"):
        found: click.Command | None = None
        options = {"--help", "-h"}
        for word in words:
            if word.startswith("-"):
                options |= {o for p in (found.params if found else []) for o in (*p.opts, *p.secondary_opts)}
                if word.partition("=")[0] not in options:
                    wrong.append(words)
            elif found is None:
                if word not in COMMANDS:
                    wrong.append(words)
                    break
                module, _, attribute = COMMANDS[word][0].partition(":")
                found = getattr(import_module(module), attribute)
            elif isinstance(found, click.Group) and word in found.commands:
                found = found.commands[word]

    assert [] == wrong


def test_targets_exist():
    """Each `make` command is a target."""
    targets = set(re.findall(r"^([a-z-]+):.*?## \S", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    used = {words[0] for page in PAGES for words in commands(page, "make") if words and not words[0].startswith("-")}

    assert set() == used - targets


def test_modules_exist():
    """Each `python -m` names a module of the project or a tool of the environment."""
    used = {words[0] for page in PAGES for p in ("python -m", ".venv/bin/python -m") for words in commands(page, p)}
    names = {name for name in used if name not in ("pytest", "pipelines")}

    assert "benchmarks" in names
    files = {name: ROOT / name.replace(".", "/") for name in names}
    assert [] == [name for name, file in files.items() if not file.with_suffix(".py").exists() and not file.is_dir()]


def test_every_field_of_the_form_has_its_default():
    """The table of docs/ui.md names every run parameter with the default of the signature."""
    rows = re.findall(r"^\| `([a-z0-9_]+)` \| ([^|]+) \|", (ROOT / "docs" / "ui.md").read_text(encoding="utf-8"), re.M)
    shown = {name: cell.strip("` ") for name, cell in rows}

    def text(value: object) -> str:
        if value == "":
            return "empty"
        return value if isinstance(value, str) else json.dumps(value).removesuffix(".0")

    defaults = {name: text(value) for name, value in default_parameters("").items()}

    assert {**defaults, "study_root": "the profile's"} == shown


def test_the_first_page_is_short():
    """Whoever has two minutes reads all of it, pictures included."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")

    assert text.count("\n") < 150
    assert 2 == len(re.findall(r"^!\[[^]]+\]\(docs/pictures/", text, re.M))
