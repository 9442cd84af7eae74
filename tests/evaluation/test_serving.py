"""A champion as a model repository: the files, the manifest, and a server of the Open Inference Protocol that answers from it."""

import csv
import importlib.metadata
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from components.data.contract import TestData
from components.errors import DataError, ParameterError
from components.evaluation.champion.records import ChampionRecords
from components.evaluation.serving import export_champion
from components.stores import open_store
from pipelines.__main__ import run
from tests.evaluation.builders import SIDE, make_evaluation, make_test_data, write_model
from tests.fakes.gcs import FakeGcs

SERVING = Path(__file__).resolve().parents[2] / "docs" / "serving"
NAME = "shop"
CLASSES = ("shirt", 'trouser, "wide"', "bag")


@pytest.fixture
def data() -> TestData:
    return make_test_data(NAME, CLASSES, num_examples=40, channels=3)


def promote(root: str, model: Path, version: int) -> str:
    """Make a model champion; return its digest."""
    records = ChampionRecords(open_store(root), NAME)
    sha256 = records.add_model(model, make_evaluation(dataset=NAME, classes=CLASSES).record)
    content = {
        "approach": "mlp",
        "sha256": sha256,
        "classes": list(CLASSES),
        "data_hash": "0" * 64,
        "decision": "first",
        "reason": "there was no champion",
        "predecessor": None,
        "created": "2026-01-01T00:00:00+00:00",
    }
    assert records.create(version, content)
    return sha256


@pytest.fixture
def model(tmp_path: Path, data: TestData) -> Path:
    return write_model(tmp_path / "model", data, num_replicates=1)


def test_the_repository_has_what_triton_looks_for(tmp_path: Path, model: Path) -> None:
    """Configuration, labels in the order of the probabilities, and a version that is the champion's; a later one joins it."""
    root, to = str(tmp_path / "store"), tmp_path / "repository"
    promote(root, model, 1)

    exported = export_champion(root, NAME, str(to))

    assert (1, "") == (exported.version, exported.storage_uri)
    assert sorted(str(path) for path in to.rglob("*") if path.is_file()) == sorted(exported.files)
    assert {"config.pbtxt", "labels.txt", "model_card.md", "1"} == {path.name for path in (to / NAME).iterdir()}
    assert (model / "model.onnx").read_bytes() == (to / NAME / "1" / "model.onnx").read_bytes()
    assert list(CLASSES) == (to / NAME / "labels.txt").read_text().splitlines()
    config = (to / NAME / "config.pbtxt").read_text()
    assert f"TYPE_UINT8 dims: [ {SIDE}, {SIDE}, 3 ]" in config
    assert "TYPE_FP32 dims: [ 3 ]" in config

    promote(root, model, 2)
    export_champion(root, NAME, str(to))

    assert {"1", "2"} == {path.name for path in (to / NAME).iterdir() if path.is_dir()}


def test_the_manifest_points_at_the_champion_in_the_bucket(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The repository lies beside the champion's records, whole, and is written once for each version."""
    root = "gs://bucket/studies"
    with FakeGcs("bucket") as fake:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", fake.url)
        sha256 = promote(root, model, 7)
        arguments = ["--study-root", root, "--to", str(tmp_path / "out"), "--service-account", "reader"]
        for _ in range(2):
            assert 0 == run(["champion", "export", NAME, *arguments])
        assert "serves gs://bucket/studies/champions/shop/serving/000007" in capsys.readouterr().err
        beside = open_store(f"{root}/champions/{NAME}/serving/000007")
        files = {key: beside.read(key) for key in beside.list()}
        assert [7] == ChampionRecords(open_store(root), NAME).versions()

    manifest = yaml.safe_load((tmp_path / "out" / "inference-service.yaml").read_text())
    assert ("serving.kserve.io/v1beta1", "InferenceService", NAME) == (
        manifest["apiVersion"],
        manifest["kind"],
        manifest["metadata"]["name"],
    )
    assert sha256 == manifest["metadata"]["annotations"]["fashion-tuning/sha256"]
    predictor = manifest["spec"]["predictor"]
    assert "reader" == predictor["serviceAccountName"]
    assert beside.uri == predictor["model"]["storageUri"]
    assert files == {
        str(path.relative_to(tmp_path / "out")): path.read_bytes() for path in (tmp_path / "out" / NAME).rglob("*.*")
    }


def test_a_repository_in_a_bucket_is_what_its_manifest_points_at(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the champion is on this machine."""
    promote(str(tmp_path / "store"), model, 1)
    with FakeGcs("bucket") as fake:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", fake.url)

        exported = export_champion(str(tmp_path / "store"), NAME, "gs://bucket/models")

        manifest = yaml.safe_load(open_store("gs://bucket/models").read("inference-service.yaml"))
    assert "gs://bucket/models" == exported.storage_uri == manifest["spec"]["predictor"]["model"]["storageUri"]


def test_what_cannot_be_exported_is_refused(tmp_path: Path, model: Path, data: TestData) -> None:
    """Without a champion, with a class of two lines, with a service account and no bucket: nothing is written."""
    root, to = str(tmp_path / "store"), str(tmp_path / "to")
    with pytest.raises(DataError, match="champion of shop must exist"):
        export_champion(root, NAME, to)
    promote(root, model, 1)
    with pytest.raises(ParameterError, match="must come with a bucket"):
        export_champion(root, NAME, to, "reader")
    record = Path(root) / "champions" / NAME / "000001.json"
    record.write_text(record.read_text().replace('"shirt"', '"shi\\nrt"'))
    with pytest.raises(DataError, match="one line of text"):
        export_champion(root, NAME, to)

    assert not (tmp_path / "to").exists()
    assert NAME == data.info.name


CONFIG = """
import sys
from google.protobuf import json_format, text_format
from tritonclient.grpc import model_config_pb2
config = text_format.Parse(open(sys.argv[1]).read(), model_config_pb2.ModelConfig())
print(json_format.MessageToJson(config, preserving_proto_field_name=True))
"""
"""Reads a `config.pbtxt` with Triton's own definition of it; that of KServe's server may not be in the same process."""

SCHEMA = """
import json, sys
import kserve
def unknown(values, kind, where):
    shape = getattr(kserve, kind, None)
    if shape is None:
        return []
    kinds = {shape.attribute_map[name]: kind for name, kind in shape.openapi_types.items()}
    found = [f"{where}.{key}" for key in values if key not in kinds]
    for key, value in values.items():
        if isinstance(value, dict):
            found += unknown(value, kinds.get(key, ""), f"{where}.{key}")
    return found
print(json.dumps(unknown(json.load(sys.stdin), "V1beta1InferenceService", "")))
"""
"""Prints the fields of a manifest that KServe's own models do not know."""


@pytest.fixture(scope="module")
def server_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment of its own: KServe wants an older pandas than the project, Triton's client an older ml-dtypes."""
    folder = tmp_path_factory.mktemp("server") / "venv"
    uv = Path(sys.executable).with_name("uv")
    same = [f"{name}=={importlib.metadata.version(name)}" for name in ("numpy", "onnxruntime")]
    packages = ["-r", SERVING / "requirements.txt", *same]
    python = folder / "bin" / "python"
    subprocess.run([uv, "venv", "-q", "--python", sys.executable, folder], check=True, timeout=60)
    subprocess.run([uv, "pip", "install", "-q", "--python", python, *packages], check=True, timeout=240)
    return python


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_server_answers_as_predict_does(
    tmp_path: Path, data: TestData, model: Path, server_python: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """KServe's server, asked over HTTP by Triton's client, gives every bit that `predict` gives; both know the files' form."""

    def told(*arguments: object, given: str = "") -> str:
        command = [str(server_python), *map(str, arguments)]
        return subprocess.run(command, input=given, capture_output=True, text=True, check=True, timeout=120).stdout

    with FakeGcs("bucket") as fake:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", fake.url)
        promote("gs://bucket/studies", model, 3)
        export_champion("gs://bucket/studies", NAME, str(tmp_path / "to"), "reader")
    manifest = yaml.safe_load((tmp_path / "to" / "inference-service.yaml").read_text())
    assert [] == json.loads(told("-c", SCHEMA, given=json.dumps(manifest)))
    manifest["spec"]["predictor"]["model"]["storageURI"] = "gs://typo"
    assert [".spec.predictor.model.storageURI"] == json.loads(told("-c", SCHEMA, given=json.dumps(manifest)))
    config = json.loads(told("-c", CONFIG, tmp_path / "to" / NAME / "config.pbtxt"))
    assert (NAME, 256, "onnxruntime") == (config["name"], config["max_batch_size"], config["backend"])
    pictures = [tmp_path / f"{number:02}.png" for number in range(len(data.images))]
    for path, image in zip(pictures, data.images, strict=True):
        Image.fromarray(image).save(path)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [server_python, SERVING / "server.py", tmp_path / "to" / NAME, str(port)]
    log = (tmp_path / "server.log").open("w")
    with log, subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | {"OMP_NUM_THREADS": "1"}) as server:
        try:
            deadline = time.monotonic() + 120
            while server.poll() is None and time.monotonic() < deadline:
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.2)
            answers = told(
                SERVING / "client.py", f"127.0.0.1:{port}", NAME, tmp_path / "to" / NAME / "labels.txt", *pictures
            )
        finally:
            server.kill()
    (model / "model.json").replace(tmp_path / "to" / NAME / "3" / "model.json")  # the test's model has no metadata
    arguments = ["--model", str(tmp_path / "to" / NAME / "3" / "model.onnx"), "--out", str(tmp_path / "out.csv")]

    assert 0 == run(["predict", NAME, *map(str, pictures), *arguments])

    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        rows = [(row["image"], row["class"], np.float32(row["probability"])) for row in csv.DictReader(file)]
    assert 40 == len(rows)
    assert rows == [
        (path, name, np.float32(probability))
        for line in answers.splitlines()
        for path, rest in [line.split(",", 1)]
        for name, probability in [rest.rsplit(",", 1)]
    ]
