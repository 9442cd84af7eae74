import json
import re

import pytest
from click.testing import CliRunner

from components.errors import DataError, ParameterError
from components.models.space import Parameter, Space
from components.search.study.study import Study, StudySpec
from components.search.trial import Trial
from components.stores import open_store
from components.stores.local import LocalStore
from pipelines.__main__ import run
from pipelines.commands.study import find_ledger, study_group
from tests.fakes.gcs import FakeGcs

SPACE = Space((Parameter(name="rate", low=1e-4, high=1e-1, log=True, default=1e-3),))
SPEC = StudySpec(
    approach="mlp",
    dataset="shoes",
    data_hash="0",
    space=SPACE.to_json(),
    algorithm="bayesian",
    trials=4,
    minutes=2.0,
    epochs=3,
)


def fill(root_uri, name="week-shoes-mlp"):
    """A study with a completed, a pruned, a diverged and a running trial."""
    study = Study.create_or_open(open_store(root_uri), name, SPEC)
    for status, score in (("completed", 0.81), ("pruned", 0.9), ("diverged", None), ("running", None)):
        claim = study.claim_next("worker-0", lambda number, _: ({"rate": 0.001 * (number + 1)}, ""))
        if status != "running":
            trial = Trial(
                number=claim.number,
                status=status,
                hyperparameters=claim.hyperparameters,
                score=score,
                device_seconds=1.5,
                epochs=2,
                worker="worker-0",
                error="loss became \x1b[31m[nan]" if status == "diverged" else "",
            )
            study.anticipate(trial)
            study.finish(trial)
    return study


def show(*arguments):
    return CliRunner().invoke(study_group, ["show", *arguments], catch_exceptions=False).output


def test_show_a_local_study_by_path_or_name(tmp_path):
    """An unfinished study is shown with its states, its best, its time and every trial; both ways give the same."""
    fill(str(tmp_path))
    text = show(f"{tmp_path}/week-shoes-mlp/")

    assert (
        "study week-shoes-mlp: mlp on shoes, bayesian (Keras Tuner's BayesianOptimizationOracle as published), with"
        in text
    )
    assert "3 of 4 trials done (1 completed, 1 pruned, 1 diverged, 1 running), 4.5 of 120 device-seconds" in text
    assert "best: 0.9000, trial 1, after 3.0 device-seconds" in text
    assert 4 == text.count("rate=0.00")
    assert text == show("week-shoes-mlp", "--study-root", str(tmp_path))


def test_text_from_the_store_cannot_steer_the_terminal(tmp_path):
    """Control characters are blanked and brackets are no markup."""
    fill(str(tmp_path))
    text = show(f"{tmp_path}/week-shoes-mlp")

    assert "\x1b" not in text
    assert "loss became  [31m[nan]" in text


def test_forced_colours_make_no_terminal(tmp_path, monkeypatch):
    """In notebooks and in CI `FORCE_COLOR` is set; a pipe gets the wide table there too."""
    fill(str(tmp_path))
    monkeypatch.setenv("COLUMNS", "60")
    plain = show(f"{tmp_path}/week-shoes-mlp")
    monkeypatch.setenv("FORCE_COLOR", "1")

    coloured = show(f"{tmp_path}/week-shoes-mlp")

    assert [line.split() for line in plain.splitlines()] == [
        re.sub(r"\x1b\[[0-9;]*m", "", line).split() for line in coloured.splitlines()
    ]


def test_json_says_everything(tmp_path):
    """`--json` is one JSON document with spec, states, the course of the best, and all trials."""
    fill(str(tmp_path))
    values = json.loads(show(f"{tmp_path}/week-shoes-mlp", "--json"))

    assert ("week-shoes-mlp", "mlp", 4) == (values["name"], values["spec"]["approach"], len(values["trials"]))
    assert {"completed": 1, "pruned": 1, "diverged": 1, "failed": 0, "running": 1, "waiting": 0} == values["states"]
    assert (1, 0.9) == (values["best"]["number"], values["best"]["score"])
    assert [0.81, 0.9, 0.9] == [p["best"] for p in values["best_so_far"]]


def test_plots_and_csv_are_written_on_request(tmp_path):
    """The trials go to a CSV file and the plots that there are trials enough for to PNG files."""
    fill(str(tmp_path))
    show(f"{tmp_path}/week-shoes-mlp", "--csv", str(tmp_path / "trials.csv"), "--plots", str(tmp_path / "plots"))

    assert 5 == len((tmp_path / "trials.csv").read_text().splitlines())
    assert ["convergence.png"] == [path.name for path in (tmp_path / "plots").iterdir()]


def test_show_a_ledger_file(tmp_path):
    """The study.json of a model is shown like the study itself."""
    fill(str(tmp_path)).ledger().save(tmp_path / "study.json")

    assert show(f"{tmp_path}/week-shoes-mlp") == show(str(tmp_path / "study.json"))


def test_show_a_study_in_a_bucket(monkeypatch):
    """A study in Cloud Storage is shown like a local one."""
    with FakeGcs("shop") as fake:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", fake.url)
        fill("gs://shop/studies")
        text = show("gs://shop/studies/week-shoes-mlp")

        assert "best: 0.9000, trial 1" in text
        assert text == show("week-shoes-mlp", "--study-root", "gs://shop/studies")


def test_an_unknown_study_names_those_there_are(tmp_path):
    """A mistyped name is answered with the names that exist; an empty root says so."""
    with pytest.raises(DataError, match="there is none"):
        find_ledger("week-shoes-mpl", str(tmp_path))
    fill(str(tmp_path))
    with pytest.raises(DataError, match="there are week-shoes-mlp"):
        find_ledger(f"{tmp_path}/week-shoes-mpl")


def test_the_hint_looks_no_further_than_the_folder(tmp_path, monkeypatch):
    """A folder may be that of everything: what lies deeper is neither walked through nor named."""
    fill(str(tmp_path / "deep"))
    monkeypatch.setattr(LocalStore, "list", lambda *_: pytest.fail("the whole folder is listed"))

    with pytest.raises(DataError, match="there is none"):
        find_ledger(f"{tmp_path}/week-shoes-mpl")


def test_a_study_is_found_from_inside(tmp_path, monkeypatch):
    """Its folder may be named as the present one."""
    fill(str(tmp_path))
    monkeypatch.chdir(tmp_path / "week-shoes-mlp")

    assert "week-shoes-mlp" == find_ledger(".").name


@pytest.mark.parametrize("study", ["week-shoes-mlp", "gs://shop", ""])
def test_a_name_alone_needs_a_root(study, tmp_path, monkeypatch):
    """Without a root, a bare name or bucket could be anywhere."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ParameterError, match="Add --study-root"):
        find_ledger(study)


def test_the_command_line_ends_with_one_line_and_its_code(tmp_path, capsys):
    """A missing study is bad data: exit code 65 and one line on stderr."""
    code = run(["study", "show", f"{tmp_path}/nothing"])

    assert 65 == code
    assert 1 == capsys.readouterr().err.count("\n")
