import contextlib
import csv
import io
import json
import os
import pty
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from components.data.sources import pictures
from components.models.facts import write_metadata
from pipelines.__main__ import program, run
from pipelines.commands import predict
from tests.evaluation.builders import make_test_data, write_model

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model of an own catalogue, with 300 images of it as an array."""
    data = make_test_data("shop", ('shirt, "blue"', "trouser", "bag"), num_examples=300)
    np.save(tmp_path / "images.npy", data.images)
    path = write_model(tmp_path / "model", data, num_replicates=1) / "model.onnx"
    write_metadata(path, {"classes": list(data.info.classes)})
    return path


def test_every_picture_has_a_row(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """CSV on stdout that any reader reads; how fast it went on stderr; the bad file named there, in its row, and in the code."""
    (tmp_path / "bad.jpg").write_bytes(b"no picture")
    paths = [str(tmp_path / "images.npy"), str(tmp_path / "bad.jpg")]

    assert 65 == run(["predict", "shop", *paths, "--model", str(model), "--top", "2"])

    told = capsys.readouterr()
    rows = list(csv.DictReader(io.StringIO(told.out)))
    assert ["image", "class", "probability", "class_2", "probability_2", "error"] == list(rows[0])
    assert {'shirt, "blue"', "trouser", "bag"} == {row["class"] for row in rows[:-1]}
    assert all(float(row["probability"]) >= float(row["probability_2"]) > 0 for row in rows[:-1])
    assert ("", "", str(tmp_path / "bad.jpg")) == (rows[-1]["class"], rows[-1]["probability"], rows[-1]["image"])
    lines = told.err.splitlines()
    assert lines[0].startswith(f"{tmp_path / 'bad.jpg'}: no image of a kind that is read")
    assert lines[1].startswith("301 of 301 pictures in ")
    assert lines[2].startswith("ERROR 65 predict: every picture must be readable; got 1 of 301")
    assert 3 == len(lines)


def test_json_and_csv_say_the_same(model: Path, tmp_path: Path) -> None:
    """The text of a probability gives the same float32 again, whatever the form; the file has all of them."""
    for form in ("csv", "json"):
        arguments = ["--model", str(model), "--format", form, "--out", str(tmp_path / form)]
        assert 0 == run(["predict", "shop", str(tmp_path / "images.npy"), *arguments])

    objects = json.loads((tmp_path / "json").read_text())
    rows = list(csv.DictReader(io.StringIO((tmp_path / "csv").read_text())))

    assert 300 == len(rows) == len(objects)
    assert [(row["image"], row["class"], np.float32(row["probability"])) for row in rows] == [
        (o["image"], o["predictions"][0]["class"], np.float32(o["predictions"][0]["probability"])) for o in objects
    ]
    assert not list(tmp_path.glob("*.partial"))


def test_csv_holds_no_formula(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture's name that a spreadsheet would run is defused in the CSV, and as it is in JSON."""
    monkeypatch.chdir(tmp_path)
    Path("images.npy").rename("=cmd.npy")
    for form in ("csv", "json"):
        assert 0 == run(["predict", "shop", "=cmd.npy", "--model", str(model), "--format", form, "--out", form])

    assert "'=cmd.npy[0]" == next(csv.DictReader(io.StringIO(Path("csv").read_text())))["image"]
    assert "=cmd.npy[0]" == json.loads(Path("json").read_text())[0]["image"]


def test_nothing_half_written_stays(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stop in the middle leaves the file of before."""
    (tmp_path / "out.csv").write_text("before")

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(predict.time, "monotonic", stopped)
    arguments = ["--model", str(model), "--out", str(tmp_path / "out.csv")]

    assert 130 == run(["predict", "shop", str(tmp_path / "images.npy"), *arguments])
    assert "before" == (tmp_path / "out.csv").read_text()
    assert [] == list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize("out", ["images.npy", "link.npy", "model/model.onnx", "pictures/a.png"])
def test_what_is_read_is_not_written(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], out: str) -> None:
    """A slip in --out costs no picture and no model."""
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(b"a picture")
    (tmp_path / "link.npy").symlink_to(tmp_path / "images.npy")
    before = (tmp_path / out).read_bytes()
    read = [str(tmp_path / "images.npy"), str(tmp_path / "pictures")]

    assert 64 == run(["predict", "shop", *read, "--model", str(model), "--out", str(tmp_path / out)])
    assert "--out must be another file than those that are read" in capsys.readouterr().err
    assert before == (tmp_path / out).read_bytes()


def test_links_pipes_and_other_peoples_files_stay(model: Path, tmp_path: Path) -> None:
    """Answers go where a link leads and into a pipe; a file that is there under a similar name is not touched."""
    (tmp_path / "real.csv").write_text("before")
    (tmp_path / "link.csv").symlink_to("real.csv")
    (tmp_path / "real.csv.partial").write_text("mine")
    os.mkfifo(tmp_path / "pipe")
    arguments = ["predict", "shop", str(tmp_path / "images.npy"), "--model", str(model), "--out"]
    piped: list[str] = []
    reader = threading.Thread(target=lambda: piped.append((tmp_path / "pipe").read_text()))
    reader.start()

    assert [0, 0] == [run([*arguments, str(tmp_path / name)]) for name in ("pipe", "link.csv")]
    reader.join(timeout=30)
    assert (tmp_path / "link.csv").is_symlink()
    assert (tmp_path / "pipe").is_fifo()
    assert "mine" == (tmp_path / "real.csv.partial").read_text()
    assert [(tmp_path / "real.csv").read_text()] == piped
    assert 301 == len(piped[0].splitlines())


def test_a_stop_is_no_unreadable_picture(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be read gets a row, and the next one is read; after SIGTERM nothing is."""

    def stopped(_path: Path) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(pictures, "open_archive", stopped)
    monkeypatch.setattr(sys, "argv", ["fashion-tuning", "predict", "shop", "many.zip", "--model", str(model)])
    monkeypatch.chdir(tmp_path)
    Path("many.zip").touch()
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert 143 == program()
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_long_job_says_how_far_it_is(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where there is no terminal, lines tell."""
    monkeypatch.setattr(predict, "SECONDS_BETWEEN_LINES", 0)

    assert 0 == run(["predict", "shop", str(tmp_path / "images.npy"), "--model", str(model)])

    assert "\n17 of 300 pictures in " in capsys.readouterr().err


@pytest.mark.timeout(60)
def test_a_terminal_shows_a_bar_and_the_answers_stay_on_stdout(model: Path, tmp_path: Path) -> None:
    """`predict ... > answers.csv` on a terminal: the bar on it, every row in the file, no control character of a name."""
    (tmp_path / "bad\x1b[2J.jpg").write_bytes(b"no picture")
    images = [str(tmp_path / "images.npy"), str(tmp_path / "bad\x1b[2J.jpg")]
    command = [sys.executable, "-m", "pipelines", "predict", "shop", *images, "--model", str(model)]
    ours, theirs = pty.openpty()
    shown: list[bytes] = []

    def watch() -> None:
        with contextlib.suppress(OSError):  # a terminal that everybody has closed
            while part := os.read(ours, 65_536):
                shown.append(part)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "200"}
    ended = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=theirs, env=environment, check=False)
    os.close(theirs)
    watcher.join(10)
    os.close(ours)

    rows = ended.stdout.decode().splitlines()
    assert 65 == ended.returncode
    assert 302 == len(rows)
    assert "image,class,probability,error" == rows[0]
    told = b"".join(shown)
    assert b"301 of 301 pictures" in told
    assert b"image,class" not in told
    assert b"bad" in told
    assert b"\x1b[2J" not in told


def test_a_reader_that_has_seen_enough_is_no_fault(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`predict ... | head -1` ends quietly."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)

        assert 0 == run(["predict", "shop", str(tmp_path / "images.npy"), "--model", str(model)])

    assert "ERROR" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 64, "as --study-root URI or as --model FILE"),
        (["--study-root", "nowhere", "--model", "model.onnx"], 64, "one of them"),
        (["--study-root", "nowhere"], 65, "champion of shop must exist"),
        (["--model", "missing.onnx"], 65, "must be a readable ONNX model"),
        (["--model", "missing.onnx", "--top", "0"], 64, "--top"),
    ],
)
def test_mistakes_are_one_line_and_an_exit_code(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    message: str,
) -> None:
    """Without a model, with two, with none that can be read: one line that says what to do."""
    monkeypatch.chdir(tmp_path)

    assert code == run(["predict", "shop", "a.jpg", *arguments])

    told = capsys.readouterr()
    assert "" == told.out
    assert message in told.err
    assert 1 == told.err.count("\n")
