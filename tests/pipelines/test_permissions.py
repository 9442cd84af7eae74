"""A missing permission is exit code 77, wherever it is met, and the line names the file and what to do."""

import os
import re
from pathlib import Path

import pytest

from components.data.sources.presence import check_source
from components.errors import PermissionDeniedError
from components.evaluation.evaluate import Evaluation, load_model_description
from components.evaluation.inference import OnnxModel
from components.models.pretrained import read_weights
from components.search.trial import Ledger
from pipelines.__main__ import run
from pipelines.presets import read_parameters
from pipelines.profile import load_profile
from tests.data.builders import mnist_files, products, write_files
from tests.permissions import without_right_to_every_file


def forbid(path: Path) -> Path:
    """Return a file or folder that nobody may read, search or write; made where it is missing."""
    if not path.exists():
        path.write_text("x")
    path.chmod(0)
    return path


@pytest.mark.parametrize(
    "forbidden",
    [
        "mnist",
        "mnist/train-images-idx3-ubyte.gz",
        "mnist/more",
        "mnist/SHA256SUMS",
        "products.zip",
        "zips/products.zip",
        "mnist/..",
    ],
)
def test_sources(forbidden, tmp_path, capsys):
    """A source, a file or folder inside it, an archive, and what lies below a folder that may not be searched."""
    root = tmp_path / "root"
    write_files(root / "mnist", mnist_files())
    (root / "mnist/more").mkdir()
    (root / "zips").mkdir()
    products(root / "products.zip")
    products(root / "zips/products.zip")
    name = "fashion-mnist" if forbidden.startswith("mnist") else "fashion-products"
    source = root / forbidden.split("/")[0]
    place = forbid(root / forbidden)

    try:
        with without_right_to_every_file():
            code = run(["ingest", f"{name}={source}", "--out", str(tmp_path / "out")])
    finally:
        place.chmod(0o700)

    assert 77 == code
    (line,) = capsys.readouterr().err.splitlines()
    place = re.escape(str(place.resolve()))
    assert re.fullmatch(
        rf"ERROR 77 ingest: {place}(/\S+)? must be readable; got Permission denied\. Change its owner or mode", line
    )


def test_a_source_below_a_folder_is_checked_before_the_run(tmp_path):
    """The plan says it as ingest does."""
    folder = tmp_path / "folder"
    folder.mkdir()
    forbid(folder)

    with without_right_to_every_file(), pytest.raises(PermissionDeniedError, match="Change its owner or mode"):
        check_source("shop", str(folder / "shop.zip"))


@pytest.mark.parametrize(
    "read",
    [
        Ledger.load,
        OnnxModel,
        lambda path: read_weights(str(path), suffixes=(".yaml",)),
        lambda path: load_profile(str(path)),
        read_parameters,
        lambda path: load_model_description(path.parent),
        lambda path: Evaluation.load(path.parent),
    ],
    ids=["ledger", "model", "weights", "profile", "parameters", "description", "evaluation"],
)
def test_files(read, tmp_path):
    """What a command or step reads is not called damaged where it may only not be read."""
    for name in ("model.json", "evaluation.json"):
        forbid(tmp_path / name)

    with without_right_to_every_file(), pytest.raises((PermissionDeniedError, PermissionError)):
        read(forbid(tmp_path / "file.yaml"))


def test_outputs(tmp_path, monkeypatch, capsys):
    """A file that may not be written is found before the work."""
    monkeypatch.setattr(os, "access", lambda *_: False)

    assert 77 == run(["runs", "list", "--study-root", str(tmp_path), "--csv", str(tmp_path / "runs.csv")])
    assert f"{tmp_path} may not be written. Change its owner or mode" in capsys.readouterr().err
