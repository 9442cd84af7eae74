"""A presigned URL's query: the step that fetches gets it, and nothing else that is printed, kept or reported."""

import dataclasses
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from components.errors import ParameterError
from components.parameters import RunParameters
from components.plan import make_plan
from pipelines.__main__ import run
from pipelines.local.redaction import Redacted, secrets_of
from pipelines.presets import default_parameters
from tests.fakes.files import FileServer

ROOT = Path(__file__).resolve().parents[3]
SIGNATURE = "9f8e7d6c5b4a"
QUERY = f"X-Amz-Signature={SIGNATURE}&X-Amz-Expires=600"


@pytest.fixture
def presigned():
    """A source behind a signed URL, which turns out to be no archive; yields server and dataset."""
    with FileServer({f"/shoes.zip?{QUERY}": b"this is no archive"}) as server:
        yield server, f"fashion-products={server.url}/shoes.zip?{QUERY}"


def test_plan_hands_the_query_to_ingest_alone(presigned, tmp_path):
    """The dataset's own struct has the whole URL; what report, studies and champions get, and the overview, do not."""
    _, dataset = presigned
    parameters = default_parameters(str(tmp_path / "studies")) | {"data_datasets": [dataset]}

    plan = make_plan("run", parameters, str(tmp_path / "overview.md"))

    assert QUERY in plan.datasets[0]["source"]
    others = {name: value for name, value in dataclasses.asdict(plan).items() if name != "datasets"}
    assert SIGNATURE not in json.dumps(others)
    assert plan.parameters["data_datasets"][0].endswith("/shoes.zip")
    written = [path.read_text(errors="replace") for path in tmp_path.rglob("*") if path.is_file()]
    assert written
    assert SIGNATURE not in "".join(written)


def test_local_run_leaves_it_nowhere(presigned, tmp_path):
    """Neither the terminal nor any file of the run shows it, but for the inputs that the run goes on with."""
    server, dataset = presigned
    out = tmp_path / "out"
    command = [sys.executable, "-m", "pipelines", "run", "--dataset", dataset, "--out", str(out)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False)

    files = [path for path in out.rglob("*") if path.is_file()]
    found = [str(path.relative_to(out)) for path in files if SIGNATURE.encode() in path.read_bytes()]
    assert 65 == ended.returncode, ended.stderr
    assert QUERY in "".join(path for path, _ in server.requests)
    assert SIGNATURE not in ended.stdout + ended.stderr
    assert ["parameters.json"] == found
    assert 0o600 == (out / "parameters.json").stat().st_mode & 0o777
    assert "shoes.zip?***" in (out / "run.log").read_text()


def test_submit_prints_it_nowhere(kubeflow, cluster, capfd):
    """The server gets the whole URL as the run's parameter; the terminal and JSON do not."""
    dataset = f"shoes=https://store.test/shoes.zip?{QUERY}"
    arguments = ["submit", "--cluster", cluster, "--dataset", dataset]
    codes = [run([*arguments, "--dry-run"]), run([*arguments, "--json"])]
    schedule = ["schedule", "--cluster", cluster, "--cron", "@daily", "--dataset"]
    codes += [run([*schedule, dataset]), run([*schedule, f"{dataset}0"])]

    said = "".join(capfd.readouterr())
    (started,) = kubeflow.runs.values()
    assert [0, 0, 0, 0] == codes
    assert [dataset] == started["runtime_config"]["parameters"]["data_datasets"]
    assert SIGNATURE not in said
    assert "shoes.zip?***" in said


@pytest.mark.parametrize(
    "changes",
    [
        {"data_datasets": [f"SHOES=https://store.test/a.zip?{QUERY}"]},
        {"data_datasets": [f"shoes=https://store.test/a b.zip?{QUERY}"]},
        {"data_datasets": [f"shoes=ftp://store.test/a.zip?{QUERY}"]},
        {"data_datasets": f"shoes=https://store.test/a.zip?{QUERY}"},
        {"data_datasets": [f"fashion-mnist=https://s.test/a?{QUERY}"], "search_trials": 0},
        {"train_weights": f"https://store.test/w.safetensors?{QUERY}"},
    ],
)
def test_refused_parameters_do_not_show_it(changes):
    """What is said of wrong parameters has no query either."""
    with pytest.raises(ParameterError) as caught:
        RunParameters.from_dict(default_parameters("gs://bucket/root") | changes)

    assert SIGNATURE not in str(caught.value)


def test_redacted_lines():
    """Texts in pieces are struck out as well; a query inside of another goes first."""
    secrets = secrets_of({"data_datasets": ["a=https://s.test/a?x=1", "b=https://s.test/b?x=1&y=2", "fashion-mnist"]})
    target = io.StringIO()
    stream = Redacted(target, secrets)
    for piece in ("see https://s.test/b?x=", "1&y=2 and", " https://s.test/a?x=1\nrest", "\n"):
        stream.write(piece)

    assert ["x=1&y=2", "x=1"] == secrets
    assert "see https://s.test/b?*** and https://s.test/a?***\nrest\n" == target.getvalue()
