"""Fetching from Cloud Storage and S3: one pinned version in ranges, checksums verified, errors named."""

import functools
import hashlib
import os
from urllib.parse import quote

import pytest

from components.data.sources import objects as bucket_source
from components.data.sources.cache import RawCache
from components.data.sources.objects import find_files
from components.data.sources.version import source_version
from components.dataset_name import parse_dataset
from components.errors import (
    ConfigurationError,
    DataError,
    ParameterError,
    PermissionDeniedError,
    TryAgainError,
    UnavailableError,
)
from components.stores import bucket, open_store, retrying
from components.stores.gcs import GcsStore
from tests.data.builders import mnist_files, products, run_ingest, tree
from tests.fakes.gcs import FakeGcs, Fault

DATA = os.urandom(200_000)


@pytest.fixture(autouse=True)
def _quick_stores(monkeypatch):
    """Give up soon; read in ranges of 64 kB."""
    monkeypatch.setattr(bucket_source, "RANGE_BYTES", 65_536)
    monkeypatch.setattr(bucket_source, "open_store", functools.partial(open_store, deadline_seconds=20.0))
    monkeypatch.setattr(bucket, "SECONDS", 0.4)
    monkeypatch.setattr(retrying, "FIRST_SECONDS", 0.01)


@pytest.fixture
def gcs(monkeypatch):
    """An empty bucket `bucket`."""
    with FakeGcs("bucket") as fake:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", fake.url)
        yield fake


def fetch(cache, uri="gs://bucket/data/a.zip"):
    """Fetch one object and return its bytes."""
    with RawCache(str(cache)) as raw_cache:
        (file,) = find_files(uri, most=10)
        return raw_cache.get(file).path.read_bytes()


def downloads(gcs):
    """Return how many requests asked for content."""
    return sum("alt=media" in path for _, path in gcs.requests)


def test_fetches_once(gcs, tmp_path):
    """An object is read in ranges, and again only after it changed."""
    gcs.put("bucket", "data/a.zip", DATA)
    assert DATA == fetch(tmp_path)
    assert 4 == downloads(gcs)
    assert DATA == fetch(tmp_path)
    assert 4 == downloads(gcs)
    gcs.put("bucket", "data/a.zip", DATA[::-1])

    assert DATA[::-1] == fetch(tmp_path)


@pytest.mark.parametrize(
    "fault",
    [
        Fault("status", 503, times=2),
        Fault("status", 429, times=2),
        Fault("status", 503, when="after"),
        Fault("drop"),
        Fault("truncate"),
        Fault("stall", seconds=0.6),
    ],
    ids=lambda f: f"{f.kind}-{f.when}-{f.status}",
)
def test_passing_failures(gcs, tmp_path, fault):
    """What passes is repeated, and the file is whole."""
    gcs.put("bucket", "data/a.zip", DATA)
    fault.contains = "alt=media"
    gcs.fail(fault)

    assert DATA == fetch(tmp_path)


def test_corrupted_once(gcs, tmp_path):
    """A range that arrives damaged is noticed by the object's checksum, and the object fetched again."""
    gcs.put("bucket", "data/a.zip", DATA)
    gcs.fail(Fault("corrupt", contains="alt=media"))

    assert DATA == fetch(tmp_path)


def test_corrupted_for_ever(gcs, tmp_path):
    """Lasting damage ends with both checksums, and nothing is kept."""
    gcs.put("bucket", "data/a.zip", DATA)
    gcs.fail(Fault("corrupt", contains="alt=media", times=-1))

    with pytest.raises(DataError, match=r"must have (MD5|CRC32C) \w+; got \w+"):
        fetch(tmp_path)

    assert [] == [p for folder in ("sha256", "partial") for p in (tmp_path / folder).iterdir()]


def test_resumes_in_the_next_run(gcs, tmp_path, monkeypatch):
    """Ranges that arrived before the store went away are not fetched again."""
    monkeypatch.setattr(bucket_source, "open_store", functools.partial(open_store, deadline_seconds=1.0))
    gcs.put("bucket", "data/a.zip", DATA)
    gcs.fail(Fault("status", 503, contains="alt=media", skip=2, times=-1))
    with pytest.raises(UnavailableError, match="within 1 s"):
        fetch(tmp_path)
    gcs.heal()
    before = downloads(gcs)

    assert DATA == fetch(tmp_path)
    assert 2 == downloads(gcs) - before


def test_replaced_meanwhile(gcs, tmp_path, monkeypatch):
    """An object that is replaced while it is read is not mixed with its successor."""
    gcs.put("bucket", "data/a.zip", DATA)
    read = GcsStore.read_range

    def read_and_replace(self, *arguments):
        data = read(self, *arguments)
        gcs.put("bucket", "data/a.zip", DATA[::-1])
        return data

    monkeypatch.setattr(GcsStore, "read_range", read_and_replace)
    with pytest.raises(TryAgainError, match="replaced"):
        fetch(tmp_path)
    monkeypatch.setattr(GcsStore, "read_range", read)

    assert DATA[::-1] == fetch(tmp_path)


def test_removed_meanwhile(gcs, tmp_path, monkeypatch):
    """An object that is removed between two ranges is not blamed on its bucket: the same command may work later."""
    gcs.put("bucket", "data/a.zip", DATA)
    read = GcsStore.read_range

    def read_and_remove(self, *arguments):
        data = read(self, *arguments)
        gcs.objects.clear()
        return data

    monkeypatch.setattr(GcsStore, "read_range", read_and_remove)
    with pytest.raises(TryAgainError, match="removed"):
        fetch(tmp_path)


@pytest.mark.parametrize("scheme", ["gs", "s3"])
def test_prefix_with_folder_markers(request, scheme):
    """Objects that stand for folders, as consoles and file systems make them, take no other object's place."""
    if scheme == "gs":
        server = request.getfixturevalue("gcs")
        put = functools.partial(server.put, "bucket")
    else:
        client = request.getfixturevalue("s3")

        def put(name, data):
            client.put_object(Bucket="bucket", Key=name, Body=data)

    for folder in range(5):
        put(f"raw/{folder}/", b"")
        for number in range(4):
            put(f"raw/{folder}/{number}.jpg", b"x")

    assert 20 == len(find_files(f"{scheme}://bucket/raw", most=20))
    assert [f"{f}/{n}.jpg" for f in range(5) for n in range(4)] == open_store(f"{scheme}://bucket/raw").list()
    with pytest.raises(ParameterError, match="at most 19 objects"):
        find_files(f"{scheme}://bucket/raw", most=19)


@pytest.mark.parametrize("scheme", ["gs", "s3"])
def test_version_of_objects(request, scheme):
    """A source in a bucket has a version that changes with any of its objects, so that its ingest is cached."""
    if scheme == "gs":
        server = request.getfixturevalue("gcs")
        put = functools.partial(server.put, "bucket")
    else:
        client = request.getfixturevalue("s3")

        def put(name, data):
            client.put_object(Bucket="bucket", Key=name, Body=data)

    put("data/a.zip", b"1")
    put("data/b.zip", b"1")
    put("database/c.zip", b"1")
    uri = f"{scheme}://bucket/data"
    one, all_of_them = source_version("fashion-products", f"{uri}/a.zip"), source_version("fashion-products", uri)
    put("data/b.zip", b"2")
    put("database/c.zip", b"2")

    assert one
    assert one == source_version("fashion-products", f"{uri}/a.zip")
    assert one != all_of_them != source_version("fashion-products", uri)
    with pytest.raises(ParameterError, match=f"source {scheme}://bucket/absent must exist"):
        source_version("fashion-products", f"{scheme}://bucket/absent")


def test_lasting_failures(gcs, tmp_path):
    """Absent objects, absent buckets and missing permissions have their own exit codes."""
    with pytest.raises(ParameterError, match="must exist"):
        fetch(tmp_path)
    with pytest.raises(ConfigurationError, match="bucket nowhere"):
        fetch(tmp_path, "gs://nowhere/a.zip")
    gcs.put("bucket", "data/a.zip", DATA)
    gcs.denied.add("storage.objects.get")
    with pytest.raises(PermissionDeniedError, match=r"storage\.objects\.get"):
        fetch(tmp_path)


def test_no_credentials(tmp_path, monkeypatch):
    """Without credentials the remedy is named."""
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "absent.json"))

    with pytest.raises(ConfigurationError, match="credentials"):
        fetch(tmp_path)


def test_ingests_prefix(gcs, tmp_path):
    """A prefix means the dataset's files under it; others are not fetched, listed sums are checked."""
    files = mnist_files()
    sums = "".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in files.items())
    for name, data in (files | {"SHA256SUMS": sums.encode(), "big.bin": DATA}).items():
        gcs.put("bucket", f"raw/fashion-mnist/{name}", data)

    info = run_ingest("fashion-mnist=gs://bucket/raw/fashion-mnist", tmp_path / "out", cache=tmp_path / "c")
    gcs.put("bucket", "raw/fashion-mnist/SHA256SUMS", sums.replace(sums[:64], "0" * 64).encode())

    assert "gs://bucket/raw/fashion-mnist" == info.source
    assert not any("big.bin" in path for _, path in gcs.requests if "alt=media" in path)
    with pytest.raises(DataError, match="must have SHA256"):
        run_ingest("fashion-mnist=gs://bucket/raw/fashion-mnist", tmp_path / "out", cache=tmp_path / "c")


def test_prefix_with_too_many_objects(gcs, tmp_path, monkeypatch):
    """Thousands of objects are refused: they belong into one archive."""
    from components.data.sources import source as sources

    monkeypatch.setattr(sources, "MAX_OBJECTS", 3)
    for i in range(5):
        gcs.put("bucket", f"raw/images/{i}.jpg", b"x")

    with pytest.raises(ParameterError, match="at most 3 objects"):
        run_ingest("fashion-products=gs://bucket/raw", tmp_path / "out", cache=tmp_path / "c")


def test_shared_cache(gcs, tmp_path):
    """A cache in a bucket serves the next machine: the raw file is fetched from its source once."""
    gcs.put("bucket", "p.zip", products(tmp_path / "p.zip").read_bytes())
    cache = "gs://bucket/cache"

    run_ingest("fashion-products=gs://bucket/p.zip", tmp_path / "a", cache=cache)
    before = [path for _, path in gcs.requests if "alt=media" in path and "p.zip" in path]
    run_ingest("fashion-products=gs://bucket/p.zip", tmp_path / "b", cache=cache)

    after = [path for _, path in gcs.requests if "alt=media" in path and "p.zip" in path]
    digest = hashlib.sha256((tmp_path / "p.zip").read_bytes()).hexdigest()
    assert [f"cache/sha256/{digest}/0000", f"cache/sha256/{digest}/parts.json"] == gcs.names(prefix="cache/sha256")
    assert len(before) == len(after)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_damaged_shared_cache(gcs, tmp_path):
    """A damaged copy in the shared cache is thrown away and replaced."""
    archive = products(tmp_path / "p.zip").read_bytes()
    gcs.put("bucket", "p.zip", archive)
    run_ingest("fashion-products=gs://bucket/p.zip", tmp_path / "a", cache="gs://bucket/cache")
    (part,) = (name for name in gcs.names(prefix="cache/sha256") if name.endswith("0000"))
    gcs.put("bucket", part, archive[:-1])

    run_ingest("fashion-products=gs://bucket/p.zip", tmp_path / "b", cache="gs://bucket/cache")

    assert archive == gcs.objects["bucket", part].data
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


@pytest.fixture
def s3(monkeypatch):
    """A client of an S3 server in this process, with a bucket `bucket`."""
    moto = pytest.importorskip("moto.server")
    import boto3

    server = moto.ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    client = boto3.client("s3")
    client.create_bucket(Bucket="bucket")
    yield client
    server.stop()


def test_s3(s3, tmp_path, monkeypatch):
    """S3 and its kin serve objects and prefixes alike, and tell what is missing."""
    s3.put_object(Bucket="bucket", Key="data/a.zip", Body=DATA)
    for name, data in mnist_files().items():
        s3.put_object(Bucket="bucket", Key=f"raw/{name}", Body=data)

    assert DATA == fetch(tmp_path / "c", "s3://bucket/data/a.zip")
    assert DATA == fetch(tmp_path / "c", "s3://bucket/data/a.zip")
    s3.put_object(Bucket="bucket", Key="data/a.zip", Body=b"new")
    assert b"new" == fetch(tmp_path / "c", "s3://bucket/data/a.zip")
    info = run_ingest("fashion-mnist=s3://bucket/raw/", tmp_path / "out", cache=tmp_path / "c")
    assert 80 == sum(info.counts.values())
    with pytest.raises(ParameterError, match="must exist"):
        fetch(tmp_path / "c", "s3://bucket/absent")
    with pytest.raises(ConfigurationError, match="bucket nowhere"):
        fetch(tmp_path / "c", "s3://nowhere/a")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(ConfigurationError, match="AWS_ACCESS_KEY_ID"):
        fetch(tmp_path / "c", "s3://bucket/data/a.zip")


PART_BYTES = 5 * 2**20
UPLOADS = {
    "whole": {},
    "with a key": {"ServerSideEncryption": "aws:kms", "ChecksumAlgorithm": "SHA1"},
    "with a key, no checksum": {"ServerSideEncryption": "aws:kms"},
}


@pytest.mark.parametrize("kind", ["parts", "parts of a server that hides their size", *UPLOADS])
def test_no_unchecked_byte(kind, tmp_path, monkeypatch):
    """However somebody uploaded an S3 object, a byte that is damaged on the way is found, in ranges and in one piece."""
    import boto3
    from botocore.config import Config

    from tests.fakes.s3 import FakeS3

    monkeypatch.setattr(bucket_source, "RANGE_BYTES", PART_BYTES)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with FakeS3("bucket") as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        config = Config(request_checksum_calculation="when_required")
        client = boto3.client("s3", region_name="us-east-1", config=config)
        data = DATA
        if kind in UPLOADS:
            client.put_object(Bucket="bucket", Key="a.zip", Body=data, **UPLOADS[kind])
        else:
            data = DATA * 60  # three parts
            started = client.create_multipart_upload(Bucket="bucket", Key="a.zip")
            place = {"Bucket": "bucket", "Key": "a.zip", "UploadId": started["UploadId"]}
            parts = []
            for number, start in enumerate(range(0, len(data), PART_BYTES), 1):
                body = data[start : start + PART_BYTES]
                etag = client.upload_part(**place, PartNumber=number, Body=body)["ETag"]
                parts.append({"ETag": etag, "PartNumber": number})
            client.complete_multipart_upload(**place, MultipartUpload={"Parts": parts})
        if "hides" in kind:
            server.ignore_part_numbers = True
        for place in ("s3://bucket/a.zip", "s3://bucket/"):
            assert data == fetch(tmp_path / place.replace("/", "-"), place)
        assert data == open_store("s3://bucket", deadline_seconds=20).read("a.zip")
        # What arrived damaged is fetched again.
        server.fail(Fault("corrupt", method="GET", contains="/a.zip"))
        assert data == fetch(tmp_path / "damaged", "s3://bucket/a.zip")
        server.fail(Fault("corrupt", method="GET", contains="/a.zip"))
        assert data == open_store("s3://bucket", deadline_seconds=20).read("a.zip")
        assert [0, 0] == [fault.times for fault in server.faults]


@pytest.mark.parametrize("name", ["my shoes", "a#1", "what?", "100%", "a+b&c=d", "schön/é", "%41"])
def test_names_that_a_uri_must_encode(s3, gcs, tmp_path, name):
    """An object of any name is found by its percent-encoded URI, on S3 and on Cloud Storage."""
    archive = products(tmp_path / "p.zip").read_bytes()
    s3.put_object(Bucket="bucket", Key=f"{name}/{name}.zip", Body=archive)
    gcs.put("bucket", f"{name}/{name}.zip", archive)
    encoded = quote(f"{name}/{name}.zip")

    for scheme in ("s3", "gs"):
        info = run_ingest(f"fashion-products={scheme}://bucket/{encoded}", tmp_path / scheme, cache=tmp_path / "c")
        assert f"{scheme}://bucket/{encoded}" == info.source


@pytest.mark.parametrize(
    ("source", "remedy"),
    [("my shoes.zip", "%20"), ("what?.zip", "%3F"), ("a#1.zip", "%23"), ("%ff.zip", "UTF-8"), ("%0a.zip", "UTF-8")],
)
def test_names_that_are_not_encoded(source, remedy):
    """A character that a URI cannot have is refused with the way to write it."""
    for scheme in ("s3", "gs"):
        with pytest.raises(ParameterError, match=remedy):
            parse_dataset(f"shoes={scheme}://bucket/{source}")
