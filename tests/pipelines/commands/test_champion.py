import json
from pathlib import Path

import pytest

from components.evaluation.champion.records import ChampionRecords
from components.stores import open_store
from pipelines.__main__ import run
from tests.evaluation.builders import make_evaluation, make_test_data, write_model


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A store with two champions of one dataset."""
    data = make_test_data()
    records = ChampionRecords(open_store(str(tmp_path / "store")), "fashion-mnist")
    for version, (approach, blur) in enumerate((("mlp", 0.5), ("resnet18", 0.0)), start=1):
        model = write_model(tmp_path / approach, data, approach, blur=blur, num_replicates=1)
        sha256 = records.add_model(model, make_evaluation(approach).record)
        content = {
            "approach": approach,
            "sha256": sha256,
            "classes": list(data.info.classes),
            "data_hash": data.info.content_hash,
            "figures": {"accuracy": 0.8 + version / 100},
            "decision": "first" if version == 1 else "better",
            "reason": "there was no champion" if version == 1 else "it is better\nby far",
            "predecessor": version - 1 or None,
            "created": f"2026-01-0{version}T00:00:00+00:00",
            "run": {"id": f"run-{version}"},
        }
        assert records.create(version, content)
    return tmp_path / "store"


def test_show_lists_the_champion_first(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The first line is the champion, the next the one before, each with approach, accuracy and reason on one line."""
    assert 0 == run(["champion", "show", "fashion-mnist", "--study-root", str(root)])

    lines = capsys.readouterr().out.splitlines()
    assert 2 == len(lines)
    assert lines[0].startswith("champion    2  2026-01-02T00:00:00+00:00  ResNet18  82.00 %")
    assert lines[0].endswith("better: it is better by far")
    assert lines[1].startswith("before      1  2026-01-01T00:00:00+00:00  MLP  81.00 %")


def test_show_as_json_is_for_programs(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--json` gives every record whole, newest first."""
    assert 0 == run(["champion", "show", "fashion-mnist", "--study-root", str(root), "--json"])

    assert [2, 1] == [record["version"] for record in json.loads(capsys.readouterr().out)]


def test_rollback_makes_the_earlier_model_the_next_version(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """After a rollback the champion is version 3 with the model of version 1."""
    assert 0 == run(["champion", "rollback", "fashion-mnist", "--study-root", str(root)])

    assert capsys.readouterr().out.startswith("champion    3")
    records = list(ChampionRecords(open_store(str(root)), "fashion-mnist").history())
    assert [3, 2, 1] == [record.version for record in records]
    assert records[0].sha256 == records[2].sha256


def test_an_unreadable_record_is_shown_as_such(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A damaged record has a line of its own and hides nothing."""
    (root / "champions" / "fashion-mnist" / "000003.json").write_text("{")

    assert 0 == run(["champion", "show", "fashion-mnist", "--study-root", str(root)])

    lines = capsys.readouterr().out.splitlines()
    assert 3 == len(lines)
    assert "record 3 is not readable" in lines[0]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["show", "no-such-set"], 65, "must exist"),
        (["rollback", "no-such-set"], 65, "must exist before a rollback"),
        (["show", "../escape"], 64, "dataset must be"),
    ],
)
def test_mistakes_are_one_line_and_an_exit_code(
    root: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, message: str
) -> None:
    """A dataset without champion and a name that is none end with a sysexits code and one line."""
    assert code == run(["champion", *arguments, "--study-root", str(root)])

    captured = capsys.readouterr()
    assert "" == captured.out
    assert captured.err.startswith(f"ERROR {code} champion: ")
    assert message in captured.err
    assert 1 == captured.err.count("\n")


def test_the_study_root_must_be_given(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a store there is nothing to ask: exit 64."""
    assert 64 == run(["champion", "show", "fashion-mnist"])
    assert "--study-root" in capsys.readouterr().err
