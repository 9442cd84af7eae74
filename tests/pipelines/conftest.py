"""A cluster to submit to: the fake API, a profile that points at it, and the pipeline compiled once."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.kfp_api import FakeKfpApi

PROFILE = """
api: http://127.0.0.1:9
namespace: kubeflow
service_account: runner
registry: registry.test/fashion-tuning
study_root: gs://bucket/fashion-tuning
steps: {default: {cpu: "1"}}
"""
CREDENTIALS = ("KFP_TOKEN", "KFP_TOKEN_FILE", "KFP_COOKIE", "KF_PIPELINES_IAP_OAUTH2_CLIENT_ID")


@pytest.fixture
def cluster(tmp_path: Path) -> str:
    """A profile of a cluster that exists."""
    path = tmp_path / "cluster.yaml"
    path.write_text(PROFILE)
    return str(path)


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled pipeline: compiling takes a second, and is the same for every test here."""
    from yaml import safe_load

    from pipelines.compilation import compile_pipeline
    from pipelines.profile import parse_profile

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IMAGE_TAG", "0123456789ab")
        profile = parse_profile("cluster", safe_load(PROFILE), "cluster.yaml")
        return compile_pipeline(tmp_path_factory.mktemp("compiled") / "fashion-tuning.yaml", profile)


@pytest.fixture
def kubeflow(monkeypatch: pytest.MonkeyPatch, compiled: Path) -> Iterator[FakeKfpApi]:
    """A Kubeflow to submit to, with impatient clients."""
    from pipelines.kubeflow import connection as kfp_client
    from pipelines.kubeflow import package
    from pipelines.kubeflow import runs as waiting

    for name in (*CREDENTIALS, "KF_PIPELINES_UI_ENDPOINT", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("IMAGE_TAG", "0123456789ab")
    monkeypatch.setenv("KUBECONFIG", "/nonexistent")  # workflows are read where somebody says which cluster
    monkeypatch.setenv(
        "GOOGLE_APPLICATION_CREDENTIALS", "/nonexistent"
    )  # or Google's library looks for them on the network
    monkeypatch.setattr(kfp_client, "BACKOFF_SECONDS", 0.001)
    monkeypatch.setattr(waiting, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(package, "compile_pipeline", lambda output, _: Path(shutil.copy(compiled, output)))
    with FakeKfpApi() as api:
        monkeypatch.setenv("KF_PIPELINES_ENDPOINT", api.url)
        yield api
