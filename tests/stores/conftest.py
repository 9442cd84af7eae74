"""Stores to test: a directory, both servers on loopback, and real buckets where the environment names them."""

import os
import uuid

import pytest

from components.stores import open_store
from tests.fakes.gcs import FakeGcs

REAL = {"real-gcs": ("gs", "TEST_GCS_BUCKET"), "real-s3": ("s3", "TEST_S3_BUCKET")}
STORES = ["local", "gcs", "s3", *(kind for kind, (_, variable) in REAL.items() if os.environ.get(variable))]


@pytest.fixture
def gcs(monkeypatch):
    """A Cloud Storage server that `gs://` leads to."""
    with FakeGcs("bucket", page_size=5) as server:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
        yield server


@pytest.fixture
def s3(monkeypatch):
    """An S3 server that `s3://` leads to."""
    from tests.fakes.s3 import FakeS3

    with FakeS3("bucket") as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", server.url)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        yield server


@pytest.fixture(params=STORES)
def store(request, tmp_path):
    """An empty store of each kind."""
    kind = request.param
    if kind == "local":
        yield open_store(str(tmp_path / "store"))
    elif kind in ("gcs", "s3"):
        request.getfixturevalue(kind)
        yield open_store(f"{'gs' if kind == 'gcs' else 's3'}://bucket/study-root", deadline_seconds=20)
    else:
        scheme, variable = REAL[kind]
        real = open_store(f"{scheme}://{os.environ[variable]}/test-{uuid.uuid4().hex}", deadline_seconds=60)
        yield real
        for key in real.list():
            real.delete(key)
