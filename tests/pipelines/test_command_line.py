import os
import signal
import socket
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import click
import pytest

from pipelines.__main__ import COMMANDS, main, run

ROOT = Path(__file__).resolve().parents[2]
INSTALLED = (
    "import sys; sys.argv[0] = 'bin/fashion-tuning'; from pipelines.__main__ import program; sys.exit(program())"
)
"""What the installed script does."""


def start(*arguments: str, code: str = INSTALLED, **environment: str) -> str:
    """Stdout of a process of its own."""
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=True
    ).stdout


def test_help_lists_every_command_and_imports_none() -> None:
    """A list of names must not cost the seconds that all commands together take to import."""
    code = (
        "import sys; from pipelines.__main__ import run; code = run(['--help']);"
        " print(*sorted({name.split('.')[0] for name in sys.modules} | set(sys.modules))); sys.exit(code)"
    )
    *lines, loaded = start(code=code).splitlines()

    assert set(COMMANDS) <= {line.split()[0] for line in lines if line.strip()}
    assert set() == {"kfp", "numpy", "pandas", "rich", "yaml", "pipelines.commands"} & set(loaded.split())


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_says_what_the_command_does(name: str) -> None:
    """Each entry leads to a command of that name, and its one line is a sentence."""
    place, summary = COMMANDS[name]
    module, _, attribute = place.partition(":")
    command = getattr(import_module(module), attribute)

    assert name == command.name
    assert summary.split()[0] == command.help.split()[0]
    assert summary.endswith(".")


def leaves(command: click.Command, *names: str) -> dict[str, click.Command]:
    """A command, or all below it where it is a group, by what is typed."""
    if not isinstance(command, click.Group):
        return {" ".join(names): command}
    found = {}
    for name in command.list_commands(click.Context(command)):
        child = command.get_command(click.Context(command), name)
        assert child
        found |= leaves(child, *names, name)
    return found


def test_every_command_shows_tracebacks_on_request() -> None:
    """`--debug` is an option of all commands; the edge reads it, and tells to add it where there is a defect."""
    found = leaves(main)

    assert {"sample-data", "images names", "images sign", "study watch"} <= set(found)
    assert [] == [
        name for name, command in found.items() if not any("--debug" in option.opts for option in command.params)
    ]


def test_the_program_knows_its_name() -> None:
    """Usage lines name what was typed."""
    assert start("run", "--help").startswith("Usage: fashion-tuning run ")
    assert start(
        "run", "--help", code="import runpy; runpy.run_module('pipelines', run_name='__main__', alter_sys=True)"
    )


@pytest.mark.parametrize(
    ("typed", "position", "expected"),
    [
        ("fashion-tuning s", 1, {"sample-data", "submit", "schedule", "study"}),
        ("fashion-tuning submit --dr", 2, {"--dry-run"}),
        ("fashion-tuning study ", 2, {"show"}),
    ],
)
def test_the_shell_completes(typed: str, position: int, expected: set[str]) -> None:
    """Commands, their options and their own commands, as bash asks for them."""
    answer = start(_FASHION_TUNING_COMPLETE="bash_complete", COMP_WORDS=typed, COMP_CWORD=str(position))

    assert expected <= {line.partition(",")[2] for line in answer.splitlines()}
    assert "complete" in start(_FASHION_TUNING_COMPLETE="bash_source")


def test_the_script_is_declared() -> None:
    """`make setup` installs the program from this declaration."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")

    assert 'fashion-tuning = "pipelines.__main__:program"' in text
    assert "uv pip install -q --no-deps -e ." in (ROOT / "Makefile").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["ingest", "x=y", "--out", "x", "--limit", "-1"], "--limit must be a whole number from 0"),
        (["ingest", "x=y", "--out", "x", "--limit", "many"], "--limit must be a whole number from 0"),
        (
            ["ingest", "x=y", "--out", "x", "--test-fraction", "1.5"],
            "--test-fraction must be a number from 0.01 to 0.5",
        ),
        (
            ["ingest", "x=y", "--out", "x", "--test-fraction", "nan"],
            "--test-fraction must be a number from 0.01 to 0.5",
        ),
        (["sample-data", "x", "--seed", "-1"], "'--seed': -1 is not in the range"),
    ],
)
def test_wrong_numbers_are_usage_errors(
    arguments: list[str],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A number outside its rule ends the command with 64 and the option's name, before anything is read or written."""
    monkeypatch.chdir(tmp_path)

    assert 64 == run(arguments)
    assert told in capsys.readouterr().err
    assert [] == list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_command_says_so(number: signal.Signals, tmp_path: Path) -> None:
    """One line, the shell's exit code for the signal, and nothing half-written."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        source = f"shoes=http://127.0.0.1:{server.getsockname()[1]}/shoes.zip"
        command = [sys.executable, "-m", "pipelines", "ingest", source, "--out", str(tmp_path / "out")]
        with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as child:
            connection, _ = server.accept()
            with connection:
                connection.recv(1)
                child.send_signal(number)
                _, said = child.communicate(timeout=60)

    expected = f"ERROR {128 + number} ingest: stopped before it was done. Run the same command again"
    assert (128 + number, expected) == (child.returncode, said.strip())
    assert not list(tmp_path.rglob("*"))
