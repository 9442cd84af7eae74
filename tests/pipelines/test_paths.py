"""Paths on the command line: `~` wherever a path may stand, outputs checked before the work."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import click
import pytest

from components.stores import open_store
from pipelines.__main__ import main, run
from pipelines.paths import UserPath
from pipelines.profile import load_profile
from tests.data.builders import products
from tests.pipelines.conftest import PROFILE

ROOT = Path(__file__).resolve().parents[2]


def commands(group: click.Group, context: click.Context) -> list[click.Command]:
    """Every command below a group."""
    found: list[click.Command] = []
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        found += [command, *(commands(command, context) if isinstance(command, click.Group) else [])]
    return found


def test_every_path_expands_the_home_directory():
    """No command has a path of click's own kind, which takes `~` for a folder of that name."""
    plain = [
        f"{command.name} {parameter.name}"
        for command in commands(main, click.Context(main))
        for parameter in command.params
        if isinstance(parameter.type, click.Path) and not isinstance(parameter.type, UserPath)
    ]

    assert [] == plain


def test_home_in_paths_that_are_no_options(tmp_path, monkeypatch):
    """Stores, profiles and sources take `~` as well."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "cluster.yaml").write_text(PROFILE)
    open_store("~/studies").create("a", b"1")

    assert ["studies"] == [path.name for path in tmp_path.iterdir() if path.is_dir()]
    assert "cluster" == load_profile("~/cluster.yaml").name
    assert 0 == run(["sample-data", "~/sample"])
    assert 0 == run(["ingest", "fashion-mnist=~/sample/fashion-mnist", "--out=~/out"])
    assert (tmp_path / "out" / "train_data" / "dataset.json").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["ingest", "shop=~nobody-here/x", "--out", "out"], 64, "source of shop must exist; got ~nobody-here/x"),
        (["compile", "--cluster", "~nobody-here/x.yaml"], 64, "got '~nobody-here/x.yaml'"),
        (["preflight", "--cluster", "{cluster}"], 78, "a kubeconfig must name"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_an_unknown_user_is_a_name_like_any_other(arguments, code, text, cluster, tmp_path, monkeypatch, capsys):
    """`~name` of nobody is taken as it stands, wherever a home directory is expanded."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KUBECONFIG", "~nobody-here/config")

    assert code == run([argument.format(cluster=cluster) for argument in arguments])
    told = capsys.readouterr()
    assert text in told.out + told.err


@pytest.mark.parametrize("path", ["/missing/x.md", "/proc/nothing/x.md", "."])
def test_outputs_are_checked_before_the_work(path, kubeflow, cluster, capsys):
    """A result that cannot be written ends the command before the server is asked."""
    assert run(["submit", "--cluster", cluster, "--wait", "--markdown", path]) in (64, 74)
    (line,) = capsys.readouterr().err.splitlines()
    assert "--markdown" in line
    assert [] == kubeflow.requests


def test_a_read_only_disk_is_no_missing_permission(tmp_path, monkeypatch, capsys):
    """An output on a read-only file system is 74, as where a command meets it later: no change of mode helps."""
    monkeypatch.setattr(os, "access", lambda *_: False)
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_flag=os.ST_RDONLY | os.ST_NOSUID))

    assert 74 == run(["runs", "list", "--study-root", str(tmp_path), "--csv", str(tmp_path / "runs.csv")])
    assert "Read-only file system. Check the disk" in capsys.readouterr().err


@pytest.mark.parametrize("times", [1, 2, 5])
def test_ctrl_c_says_how_to_go_on(times, kubeflow, cluster, monkeypatch):
    """However often somebody presses it, `submit --wait` ends with 130, one line, and what to do next."""
    kubeflow.script = [("RUNNING", {})]
    command = [sys.executable, "-m", "pipelines", "submit", "--cluster", cluster, "--wait"]
    monkeypatch.setenv("IMAGE_TAG", "0123456789ab")
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as child:
        deadline = time.monotonic() + 60
        while not kubeflow.runs and time.monotonic() < deadline:
            time.sleep(0.1)
        time.sleep(0.5)
        for _ in range(times):
            child.send_signal(signal.SIGINT)
            time.sleep(0.02)
        _, said = child.communicate(timeout=30)

    assert 130 == child.returncode, said
    errors = [line for line in said.splitlines() if "Traceback" in line or line.startswith("ERROR")]
    assert 1 == len(errors)
    assert "The same command finds it again" in errors[0]


@pytest.mark.parametrize(
    ("arguments", "problem", "remedy"),
    [
        (
            ["ingest", "fashion-products={catalogue}", "--out", "{file}/x"],
            "Not a directory",
            "Name a directory, not a file",
        ),
        (
            ["ingest", "fashion-products={catalogue}", "--out", "{root}/" + 300 * "x"],
            "File name too long",
            "Choose a shorter name",
        ),
        (["ingest", "fashion-products={catalogue}", "--out", "/proc/x"], "No such file or directory", "Check the path"),
        (["sample-data", "/proc/x"], "No such file or directory", "Check the path"),
        (["sample-data", "{root}/" + 300 * "x"], "File name too long", "Choose a shorter name"),
        (["compile", "--cluster", "kind", "--output", "{file}/x/y.yaml"], "Not a directory", "Name a directory, not"),
        (["compile", "--cluster", "kind", "--output", "/dev/full"], "No space left on device", "Free some space"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_places_that_cannot_be_written(arguments, problem, remedy, tmp_path, monkeypatch, capsys):
    """The one line names the place and says what to do, whatever the operating system has against it."""
    monkeypatch.setenv("IMAGE_TAG", "0123456789ab")
    catalogue = products(tmp_path / "products.zip")
    named = {"catalogue": catalogue, "file": catalogue, "root": tmp_path}

    assert 74 == run([argument.format(**named) for argument in arguments])
    (line,) = capsys.readouterr().err.splitlines()[-1:]
    assert re.fullmatch(rf"ERROR 74 {arguments[0]}: /\S+ must be usable; got {problem}\. {remedy}.*", line), line
