"""Stores to test: a directory, both servers on loopback, and real buckets where the environment names them."""

import os
import uuid

import pytest

from components.stores import open_store
from tests.fakes.faults import Relay
from tests.fakes.gcs import FakeGcs

SERVERS = {"gs": "TEST_GCS_SERVER", "s3": "TEST_S3_SERVER"}
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


@pytest.fixture(
    params=[
        "gs",
        "s3",
        *(
            pytest.param(f"real-{scheme}", marks=[pytest.mark.slow, pytest.mark.timeout(600)])
            for scheme, variable in SERVERS.items()
            if os.environ.get(variable)
        ),
    ]
)
def server(request, monkeypatch):
    """(scheme, faulty server) of each provider.

    `make stress` adds the real servers that `TEST_GCS_SERVER` and `TEST_S3_SERVER` name (storage-testbench; SeaweedFS,
    MinIO), each with a bucket `bucket`.
    """
    scheme = request.param.removeprefix("real-")
    if request.param == scheme:
        yield scheme, request.getfixturevalue({"gs": "gcs", "s3": "s3"}[scheme])
        return
    with Relay(os.environ[SERVERS[scheme]]) as relay:
        if scheme == "gs":
            monkeypatch.setenv("STORAGE_EMULATOR_HOST", relay.url)
        else:
            from tests.fakes.s3 import planned_error

            relay.error = planned_error
            monkeypatch.setenv("AWS_ENDPOINT_URL_S3", relay.url)
            monkeypatch.setenv("AWS_ACCESS_KEY_ID", os.environ.get("AWS_ACCESS_KEY_ID", "test"))
            monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", os.environ.get("AWS_SECRET_ACCESS_KEY", "test"))
        yield scheme, relay
