"""Kubeflow's Model Registry through its own client; `TEST_MODEL_REGISTRY` names a real server to ask in place of the fake."""

import os
import sys
import uuid
from pathlib import Path

import pytest

from components.errors import ConfigurationError, DataError, PermissionDeniedError, UnavailableError
from components.evaluation.champion.records import ChampionRecords
from components.evaluation.registry import register, register_all
from components.runtime import REGISTRY_VARIABLE
from components.stores import open_store
from pipelines.__main__ import run
from tests.evaluation.builders import make_evaluation, make_test_data, write_model
from tests.fakes.gcs import FakeGcs
from tests.fakes.model_registry import FakeModelRegistry


@pytest.fixture
def name() -> str:
    """A data set that no registry has seen."""
    return f"shop-{uuid.uuid4().hex[:8]}"


def promote(root: str, name: str, folder: Path, version: int = 1, blur: float = 0.0) -> str:
    """Make a model champion; return its digest."""
    data = make_test_data(name)
    records = ChampionRecords(open_store(root), name)
    model = write_model(folder / f"model-{uuid.uuid4().hex}", data, blur=blur, num_replicates=1)
    sha256 = records.add_model(model, make_evaluation(dataset=name).record)
    content = {
        "approach": "mlp",
        "sha256": sha256,
        "classes": list(data.info.classes),
        "data_hash": data.info.content_hash,
        "figures": {"accuracy": 0.9, "macro_f1": 0.8, "num_examples": 300},
        "decision": "first",
        "reason": "there was no champion",
        "predecessor": None,
        "created": "2026-01-01T00:00:00+00:00",
        "run": {"id": "run-7"},
    }
    assert records.create(version, content)
    return sha256


def test_a_champion_is_registered_once(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Model, version and artifact with what the record says; the second time nothing happens."""
    root = str(tmp_path / "store")
    sha256 = promote(root, name, tmp_path)
    with FakeModelRegistry() as fake:
        url = os.environ.get("TEST_MODEL_REGISTRY") or fake.url
        for text in ("is registered", "was registered before"):
            assert 0 == run(["champion", "register", name, "--study-root", root, "--registry", url])
            assert f"version 1 of {name} {text} in {url}\n" == capsys.readouterr().out
        promote(root, name, tmp_path, version=2, blur=0.2)
        assert (2, True) == register(root, name, url)
    if os.environ.get("TEST_MODEL_REGISTRY"):
        return

    assert [name] == [model["name"] for model in fake.objects["registered_models"]]
    assert ["1", "2"] == [version["name"] for version in fake.objects["model_versions"]]
    first = fake.objects["model_versions"][0]["customProperties"]
    assert sha256 == first["sha256"]["string_value"]
    assert (0.9, "300") == (first["accuracy"]["double_value"], first["num_examples"]["int_value"])
    artifact = fake.objects["artifacts"][0]
    assert Path(root, "champions", name, "models", sha256, "model.onnx").as_uri() == artifact["uri"]
    assert ("onnx", "1", "run-7") == (
        artifact["modelFormatName"],
        artifact["modelFormatVersion"],
        artifact["modelSourceId"],
    )


def test_a_champion_in_a_bucket_is_registered_as_what_servers_load(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The artifact's URI is the repository that `champion export` names in its manifest, and it is there."""
    with FakeGcs("bucket") as gcs, FakeModelRegistry() as fake:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs.url)
        promote("gs://bucket/studies", name, tmp_path, version=4)

        assert (4, True) == register("gs://bucket/studies", name, fake.url)

        uri = f"gs://bucket/studies/champions/{name}/serving/000004"
        assert f"{name}/4/model.onnx" in open_store(uri).list()
    assert uri == fake.objects["artifacts"][0]["uri"]


@pytest.mark.parametrize("kind", ["registered_models", "model_versions", "artifacts"])
def test_what_was_interrupted_is_completed(name: str, tmp_path: Path, kind: str) -> None:
    """Wherever registering stopped, the next call adds what is missing and nothing twice."""
    root = str(tmp_path / "store")
    promote(root, name, tmp_path)
    with FakeModelRegistry() as fake:
        fake.failing = [kind]
        with pytest.raises(UnavailableError, match="must answer"):
            register(root, name, fake.url)

        assert [(1, True), (1, False)] == [register(root, name, fake.url) for _ in range(2)]

    assert [1, 1, 1] == [len(items) for items in fake.objects.values()]


def test_another_model_under_the_same_version_is_an_error(name: str, tmp_path: Path) -> None:
    """Two study roots that share a registry do not overwrite each other."""
    promote(str(tmp_path / "one"), name, tmp_path)
    promote(str(tmp_path / "two"), name, tmp_path, blur=0.3)
    with FakeModelRegistry() as fake:
        register(str(tmp_path / "one"), name, fake.url)

        with pytest.raises(DataError, match="must be the champion's model; got another"):
            register(str(tmp_path / "two"), name, fake.url)


def test_a_registry_that_wants_a_token_gets_it_from_a_file(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without one it is a lack of permission; no token is in the text."""
    promote(str(tmp_path), name, tmp_path)
    with FakeModelRegistry("s3cret") as fake:
        with pytest.raises(PermissionDeniedError, match="KF_PIPELINES_SA_TOKEN_PATH"):
            register(str(tmp_path), name, fake.url)
        (tmp_path / "token").write_text("s3cret")
        monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(tmp_path / "token"))

        assert (1, True) == register(str(tmp_path), name, fake.url)


@pytest.mark.parametrize(
    ("url", "code", "message"),
    [
        ("http://127.0.0.1:1", 69, "must answer"),
        ("https://127.0.0.1:1", 77, "got no token"),
        ("registry:8080", 64, "must be an http(s) URL"),
        ("http://me:s3cret@host", 64, "without credentials; got 'host'"),
    ],
)
def test_a_wrong_registry_is_one_line(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], url: str, code: int, message: str
) -> None:
    """Nobody there, no token, no URL, a password in it: the code says which, and no secret is shown."""
    promote(str(tmp_path), name, tmp_path)

    assert code == run(["champion", "register", name, "--study-root", str(tmp_path), "--registry", url])

    told = capsys.readouterr().err
    assert message in told
    assert "s3cret" not in told
    assert 1 == told.count("\n")


def test_without_its_client_the_extra_is_named(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package is no part of an ordinary installation."""
    promote(str(tmp_path), name, tmp_path)
    monkeypatch.setitem(sys.modules, "model_registry", None)

    with pytest.raises(ConfigurationError, match="extra `registry`"):
        register(str(tmp_path), name, "http://127.0.0.1:1")


def test_promoting_registers_where_a_registry_is_named(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Without the variable nothing is asked; a champion that cannot be registered is logged and fails nothing."""
    promote(str(tmp_path), name, tmp_path)
    with FakeModelRegistry() as fake:
        register_all(str(tmp_path), [name])
        assert [] == fake.objects["registered_models"]
        monkeypatch.setenv(REGISTRY_VARIABLE, fake.url)

        register_all(str(tmp_path), ["missing", name])

    assert [name] == [model["name"] for model in fake.objects["registered_models"]]
    assert "the champion of missing is not registered" in caplog.text
