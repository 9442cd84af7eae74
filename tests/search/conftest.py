"""Places for a study on which toy workers of several processes meet."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest

from components.search.study.study import Study
from components.stores import open_store
from tests.fakes.gcs import FakeGcs


class LocalPlace:
    """A directory."""

    environment: dict = {}  # noqa: RUF012

    def __init__(self, directory: Path) -> None:
        self.uri = str(directory)

    def collect(self) -> None:
        """Let the study remove what killed writers left, without waiting for its age."""
        Study.open(open_store(self.uri), "toy").collect(0)

    def results(self) -> list[Path]:
        """The files of the results."""
        return sorted(Path(self.uri).rglob("result.json"))

    def put(self, key: str, data: bytes) -> None:
        """Put an object under the study as somebody else would."""
        path = Path(self.uri) / "toy" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def objects(self) -> dict[str, bytes]:
        """Content by key of everything under the study, temporary files included."""
        root = Path(self.uri) / "toy"
        return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


class ServerPlace:
    """What the servers' places have in common: a killed upload leaves nothing."""

    def collect(self) -> None:
        """Do nothing."""


class GcsPlace(ServerPlace):
    """A prefix of the Cloud Storage server's bucket."""

    def __init__(self, server: FakeGcs, prefix: str) -> None:
        self.server = server
        self.prefix = prefix
        self.uri = f"gs://bucket/{prefix}"
        self.environment = {"STORAGE_EMULATOR_HOST": server.url}

    def put(self, key: str, data: bytes) -> None:
        """Put an object under the study as somebody else would."""
        self.server.put("bucket", f"{self.prefix}/toy/{key}", data)

    def objects(self) -> dict[str, bytes]:
        """Content by key of everything under the study."""
        start = f"{self.prefix}/toy/"
        with self.server.lock:
            return {n[len(start) :]: o.data for (_, n), o in self.server.objects.items() if n.startswith(start)}


class S3Place(ServerPlace):
    """A prefix of the S3 server's bucket."""

    def __init__(self, server, prefix: str) -> None:
        self.server = server
        self.prefix = prefix
        self.uri = f"s3://bucket/{prefix}"
        self.environment = {
            "AWS_ENDPOINT_URL_S3": server.url,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
        }

    def put(self, key: str, data: bytes) -> None:
        """Put an object under the study as somebody else would."""
        open_store(self.uri).write(f"toy/{key}", data)

    def objects(self) -> dict[str, bytes]:
        """Content by key of everything under the study."""
        start = f"{self.prefix}/toy/"
        return {key[len(start) :]: data for key, data in self.server.objects().items() if key.startswith(start)}


@pytest.fixture(scope="session")
def gcs_server():
    """One server for all tests; each takes a prefix of its own."""
    with FakeGcs("bucket") as server:
        yield server


@pytest.fixture(scope="session")
def s3_server():
    """One server for all tests; each takes a prefix of its own."""
    from tests.fakes.s3 import FakeS3

    with FakeS3("bucket") as server:
        yield server


@pytest.fixture
def memory_dir():
    """A directory in memory where the system has one: thousands of synced writes need no disk to prove a protocol."""
    memory = "/dev/shm"
    directory = tempfile.mkdtemp(dir=memory if os.access(memory, os.W_OK) else None)
    yield Path(directory)
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def make_place(request, memory_dir):
    """Makes an empty place of a kind: `local`, `gcs` or `s3`."""
    count = 0

    def make(kind):
        nonlocal count
        count += 1
        prefix = f"{request.node.nodeid.replace('/', '.').replace('::', '.')}-{count}"
        prefix = "".join(c if c.isalnum() or c in ".-" else "-" for c in prefix)
        if kind == "local":
            return LocalPlace(memory_dir / f"place-{count}")
        server = request.getfixturevalue(f"{kind}_server")
        return (GcsPlace if kind == "gcs" else S3Place)(server, prefix)

    return make
