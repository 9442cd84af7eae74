"""The in-repo Google Cloud Storage server answers the real client as the real service does."""

import google.auth.credentials
import pytest
from google.api_core.exceptions import Forbidden, NotFound, PreconditionFailed, ServiceUnavailable
from google.cloud import storage
from google.cloud.storage.exceptions import DataCorruption

from tests.fakes.gcs import FakeGcs, Fault


@pytest.fixture
def gcs():
    with FakeGcs("bucket") as server:
        yield server


@pytest.fixture
def bucket(gcs):
    client = storage.Client(
        project="test",
        credentials=google.auth.credentials.AnonymousCredentials(),
        client_options={"api_endpoint": gcs.url},
    )
    yield client.bucket("bucket")
    client.close()


def test_create_if_absent_refuses_the_second_writer(gcs, bucket):
    """Generation-match 0 lets exactly one writer through."""
    bucket.blob("a").upload_from_string(b"first", if_generation_match=0)

    with pytest.raises(PreconditionFailed):
        bucket.blob("a").upload_from_string(b"second", if_generation_match=0)

    assert b"first" == gcs.objects["bucket", "a"].data


def test_ignored_preconditions_overwrite(gcs, bucket):
    """On request the server has the defect of the popular emulator."""
    gcs.ignore_preconditions = True
    bucket.blob("a").upload_from_string(b"first", if_generation_match=0)

    bucket.blob("a").upload_from_string(b"second", if_generation_match=0)

    assert b"second" == gcs.objects["bucket", "a"].data


def test_resumable_upload_arrives_whole(gcs, bucket):
    """Content sent in chunks is visible only once all of it is there."""
    content = bytes(range(256)) * 4096

    blob = bucket.blob("big", chunk_size=256 * 1024)
    with blob.open("wb", if_generation_match=0, ignore_flush=True) as stream:
        stream.write(content[: 512 * 1024])
        seen = gcs.names()
        stream.write(content[512 * 1024 :])

    assert [] == seen
    assert content == gcs.objects["bucket", "big"].data


def test_download_resumes_a_truncated_body(gcs, bucket):
    """The client asks for the missing range and gets it."""
    content = bytes(range(256)) * 100
    gcs.put("bucket", "a", content)
    gcs.fail(Fault("truncate", method="GET"))

    assert content == bucket.blob("a").download_as_bytes()


def test_corruption_is_noticed_by_the_client(gcs, bucket):
    """The checksum header belongs to the stored content, not to what was sent."""
    gcs.put("bucket", "a", b"content")
    gcs.fail(Fault("corrupt", method="GET", times=-1))

    with pytest.raises(DataCorruption):
        bucket.blob("a").download_as_bytes()


def test_range_is_honoured(gcs, bucket):
    """A part can be read alone."""
    gcs.put("bucket", "a", b"0123456789")

    assert b"234" == bucket.blob("a").download_as_bytes(start=2, end=4)


def test_listing_pages_and_folds(gcs, bucket):
    """Prefix, delimiter and pages work together."""
    gcs.page_size = 3
    for number in range(10):
        gcs.put("bucket", f"d/{number}", b"")
    gcs.put("bucket", "e", b"")

    assert [f"d/{n}" for n in range(10)] == [blob.name for blob in bucket.list_blobs(prefix="d/")]
    folded = bucket.list_blobs(delimiter="/")
    assert ["e"] == [blob.name for blob in folded]
    assert {"d/"} == folded.prefixes


def test_stale_delete_is_refused(gcs, bucket):
    """A delete that names an old generation changes nothing."""
    stored = gcs.put("bucket", "a", b"1")
    gcs.put("bucket", "a", b"2")

    with pytest.raises(PreconditionFailed):
        bucket.blob("a").delete(if_generation_match=stored.generation)

    assert ["a"] == gcs.names()


def test_lost_answer_looks_like_a_lost_race(gcs, bucket):
    """A create whose answer is lost after the commit comes back as 412, as with the real service."""
    gcs.fail(Fault("status", status=503, when="after", method="POST"))

    with pytest.raises(PreconditionFailed):
        bucket.blob("a").upload_from_string(b"mine", if_generation_match=0)

    assert b"mine" == gcs.objects["bucket", "a"].data


def test_fault_before_the_commit_changes_nothing(gcs, bucket):
    """An error answer `before` leaves the store as it was."""
    gcs.fail(Fault("status", when="before", method="POST"))

    with pytest.raises(ServiceUnavailable):
        bucket.blob("a").upload_from_string(b"mine", if_generation_match=0, retry=None)

    assert [] == gcs.names()


def test_missing_permission_and_bucket_are_told_apart(gcs, bucket):
    """403 names the permission, 404 the bucket."""
    gcs.denied.add("storage.objects.get")

    with pytest.raises(Forbidden, match=r"storage\.objects\.get"):
        bucket.blob("a").download_as_bytes()
    with pytest.raises(NotFound, match="bucket does not exist"):
        bucket.client.bucket("other").blob("a").download_as_bytes()
