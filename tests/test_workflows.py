import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
VENV_BIN = Path(sys.executable).parent


def load(path: Path) -> dict[str, Any]:
    """A workflow; YAML 1.1 reads the key `on` as true."""
    content = yaml.safe_load(path.read_text())
    return {"on" if key is True else key: value for key, value in content.items()}


def jobs() -> list[tuple[str, dict[str, Any]]]:
    """Every job of every workflow."""
    return [(f"{path.stem}.{name}", job) for path in WORKFLOWS for name, job in load(path)["jobs"].items()]


def steps() -> list[tuple[str, dict[str, Any]]]:
    """Every step of every job."""
    return [(name, step) for name, job in jobs() for step in job["steps"]]


def targets() -> set[str]:
    """Make targets that `make help` lists."""
    return set(re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_the_workflows_are_there() -> None:
    """Two for pull requests, without and with a cluster, and one for training on merge."""
    assert ["ci", "e2e", "train"] == [path.stem for path in WORKFLOWS]


def test_zizmor_finds_nothing() -> None:
    """The workflow auditor passes at its strictest, without the network."""
    command = [VENV_BIN / "zizmor", "--offline", "--quiet", "--no-progress", "--persona=auditor", ROOT / ".github"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)

    assert 0 == result.returncode, result.stdout + result.stderr


def test_yaml_is_clean() -> None:
    """Yamllint passes."""
    command = [VENV_BIN / "yamllint", "--strict", ROOT / ".github"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)

    assert 0 == result.returncode, result.stdout


def test_every_action_is_pinned_by_commit() -> None:
    """A tag can be moved, a commit cannot; the comment says which release it is."""
    uses = [line.strip() for path in WORKFLOWS for line in path.read_text().splitlines() if "uses:" in line]

    pinned = re.compile(r"(- )?uses: [\w./-]+@[0-9a-f]{40}  # v\d+\.\d+\.\d+")
    assert [] == [line for line in uses if not pinned.fullmatch(line)]
    assert len(uses) == sum("uses" in step for _, step in steps())


def test_one_action_has_one_version() -> None:
    """The same action is the same commit everywhere."""
    versions: dict[str, set[str]] = {}
    for _, step in steps():
        action, at, commit = step.get("uses", "").partition("@")
        if at:
            versions.setdefault(action, set()).add(commit)

    assert {} == {action: commits for action, commits in versions.items() if len(commits) > 1}


def test_workflows_call_make_only() -> None:
    """What CI does can be done by hand: every command is one call of a target that `make help` lists."""
    commands = [" ".join(step["run"].split()) for _, step in steps() if "run" in step]

    called = [re.match(r"make (?:--silent )?([a-z-]+)", command) for command in commands]
    assert [] == [command for command, found in zip(commands, called, strict=True) if not found]
    assert set() == {found[1] for found in called if found} - targets()
    assert [] == [command for command in commands if re.search(r"[;|&`]|\$\(", command)]


def test_no_expression_is_pasted_into_a_command() -> None:
    """Expressions reach commands through the environment, where a shell does not read them as code."""
    assert [] == [step["run"] for _, step in steps() if "${{" in step.get("run", "")]


def test_nobody_has_a_permission_by_default() -> None:
    """The workflow grants nothing; each job says what it needs, and only training and signing may prove who they are."""
    permissions = {name: job.get("permissions") for name, job in jobs()}

    assert [{}, {}, {}] == [load(path)["permissions"] for path in WORKFLOWS]
    assert {
        "ci.test": {"contents": "read"},
        "ci.images": {"contents": "read"},
        "e2e.kind": {"contents": "read"},
        "train.images": {"contents": "read", "id-token": "write", "attestations": "write"},
        "train.train": {"contents": "read", "id-token": "write"},
    } == permissions


def test_every_job_ends_and_none_runs_twice() -> None:
    """Jobs have a time limit, workflows a concurrency group; only tests are cancelled by newer ones."""
    assert [] == [name for name, job in jobs() if not 0 < job.get("timeout-minutes", 0) <= 360]
    assert {"ci": True, "e2e": True, "train": False} == {
        path.stem: load(path)["concurrency"]["cancel-in-progress"] for path in WORKFLOWS
    }


def test_foreign_code_never_meets_a_credential() -> None:
    """Pull requests only reach the workflow without any; training is for main, in protected environments."""
    on = {path.stem: load(path)["on"] for path in WORKFLOWS}
    text = "".join(path.read_text() for path in WORKFLOWS)

    assert {"pull_request", "push"} == set(on["ci"])
    assert {"pull_request"} == set(on["e2e"])
    assert {"push", "workflow_dispatch"} == set(on["train"])
    assert [["main"], ["main"]] == [on[name]["push"]["branches"] for name in ("ci", "train")]
    assert "choice" == on["train"]["workflow_dispatch"]["inputs"]["preset"]["type"]
    assert {"train.images": "images", "train.train": "training"} == {
        name: job["environment"] for name, job in jobs() if "environment" in job
    }
    assert load(ROOT / ".github/workflows/train.yml")["jobs"]["images"]["if"].startswith(
        "github.ref == 'refs/heads/main'"
    )
    assert [] == re.findall(r"pull_request_target|workflow_run|self-hosted|secrets\.", text)


def test_no_checkout_leaves_its_token_behind() -> None:
    """The repository's token is not kept in the checkout."""
    checkouts = [step for _, step in steps() if "actions/checkout" in step.get("uses", "")]

    assert [False] * len(jobs()) == [step["with"]["persist-credentials"] for step in checkouts]


def test_images_are_attested_and_signed_before_they_run() -> None:
    """Training waits for the job that attests the pushed digest and signs it."""
    train = load(ROOT / ".github/workflows/train.yml")["jobs"]
    done = [step.get("uses", step.get("run", "")).partition("@")[0] for step in train["images"]["steps"]]

    order = ["make push", 'make --silent digest >> "$GITHUB_OUTPUT"', "actions/attest-build-provenance", "make sign"]
    assert "images" == train["train"]["needs"]
    assert order == [name for name in done if name in order]


def test_training_reports_its_verdict() -> None:
    """The run is waited for, once per workflow run, its verdict goes to the job summary, the gate fails as configured."""
    train = load(ROOT / ".github/workflows/train.yml")["jobs"]["train"]
    (submit,) = (step for step in train["steps"] if "make submit" in step.get("run", ""))

    wanted = ("--wait", "--markdown $GITHUB_STEP_SUMMARY", "--name ci-$GITHUB_RUN_ID", "$GATE", "$CONNECT")
    assert [] == [flag for flag in wanted if flag not in submit["run"]]
    assert "--require-promotion" in submit["env"]["GATE"]


@pytest.mark.parametrize("option", ["--wait", "--markdown", "--name", "--timeout-minutes", "--preset", "--connect"])
def test_the_options_that_ci_uses_exist(option: str) -> None:
    """A flag in a workflow is a flag of the command."""
    from pipelines.commands.submit import submit_command

    assert option in {name for parameter in submit_command.params for name in parameter.opts}
