"""Every store keeps every promise; one that does not is found out."""

import os
import stat
from pathlib import Path

import pytest

from components.errors import (
    ConfigurationError,
    ParameterError,
    PermissionDeniedError,
    StorageError,
    UnavailableError,
)
from components.stores import ObjectNotFoundError, bucket, check_store, open_store, retrying
from components.stores.local import TEMPORARY
from tests.fakes.gcs import Fault
from tests.stores.failure_table import rows
from tests.stores.promises import PROMISES


@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise.__name__.removeprefix("promise_"))
def test_promise(promise, store):
    """The store keeps the promise."""
    promise(store)


@pytest.mark.parametrize("kind", ["gcs", "s3"])
def test_suite_fails_where_preconditions_are_ignored(kind, request):
    """Pointed at a store that overwrites, the suite fails in each promise about creation, and in no other."""
    server = request.getfixturevalue(kind)
    server.ignore_preconditions = True
    store = open_store({"gcs": "gs", "s3": "s3"}[kind] + "://bucket/root")
    broken = set()
    for number, promise in enumerate(PROMISES):
        try:
            promise(store / str(number))
        except (AssertionError, ConfigurationError):
            broken.add(promise.__name__)

    assert broken == {
        "promise_one_winner_among_racing_creators",
        "promise_probe_accepts_the_store",
        "promise_second_creator_is_refused",
    }


@pytest.mark.parametrize("kind", ["gcs", "s3"])
def test_store_that_ignores_preconditions_is_refused(kind, request):
    """The check before a study names the reason and stops with the code for a wrong setting."""
    request.getfixturevalue(kind).ignore_preconditions = True

    with pytest.raises(ConfigurationError, match="create-if-absent"):
        check_store(open_store({"gcs": "gs", "s3": "s3"}[kind] + "://bucket/root"))


@pytest.mark.parametrize(
    "uri",
    ["", "gs://", "s3://", "gs:///prefix", "ftp://bucket/x", "gs://UPPER/x", "gs://a b/x", "gs://user:pw@bucket/x"],
)
def test_malformed_uri_is_refused(uri):
    """What is no store is refused, and a password is not repeated."""
    with pytest.raises(ParameterError, match="store must be") as caught:
        open_store(uri)

    assert "pw" not in str(caught.value)


@pytest.mark.parametrize("uri", ["file://host/root", "file://runs/studies"])
def test_a_file_uri_with_a_host_is_refused(uri):
    """It would mean another folder than it says."""
    with pytest.raises(ParameterError, match="store must have three slashes, as file:///data"):
        open_store(uri)


def test_documentation_shows_the_table_of_failures():
    """docs/study.md says of every failure what the code does; `python -m tests.stores.failure_table` prints it anew."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "study.md").read_text(encoding="utf-8")

    assert "\n".join(rows()) in page


def test_size_of_nothing(gcs):
    """An empty object is one of 0 bytes, also where the server leaves a size of 0 out."""
    gcs.omits_defaults = True
    store = open_store("gs://bucket/x", deadline_seconds=1)
    store.create("empty", b"")

    assert [0] == [stat.size for stat in store.stats().values()]
    assert 0 == store.stat("empty").size


def test_uris_are_normalised(tmp_path):
    """Trailing slashes mean nothing, and a file URI is its path."""
    assert "gs://bucket/a/b" == open_store("gs://bucket/a//b/").uri
    assert "s3://bucket" == open_store("s3://bucket/").uri
    assert f"{tmp_path}/a b" == open_store(f"file://{tmp_path}/a%20b/").uri
    assert str(tmp_path) == open_store(f"{tmp_path}/").uri


@pytest.mark.usefixtures("gcs")
class TestGcs:
    """Faults of Cloud Storage, as the real client meets them."""

    @pytest.fixture
    def store(self):
        return open_store("gs://bucket/root", deadline_seconds=5)

    @pytest.mark.parametrize(
        "fault", [Fault("status", when="after"), Fault("drop", when="after")], ids=lambda f: f.kind
    )
    def test_lost_acknowledgement_is_recognised(self, gcs, store, fault):
        """A create that was committed but not acknowledged is this writer's success."""
        gcs.fail(Fault(**{**fault.__dict__, "method": "POST"}))

        assert store.create("a", b"same content") is True
        assert store.create("a", b"same content") is False

    def test_lost_race_after_a_fault_is_a_lost_race(self, gcs, store):
        """A create that failed before its commit does not take another writer's equal object for its own."""
        gcs.fail(Fault("status", when="before", method="POST"))
        gcs.put("bucket", "root/a", b"same content")

        assert store.create("a", b"same content") is False

    @pytest.mark.parametrize(
        "fault",
        [
            Fault("status", status=429, times=2),
            Fault("status", status=503),
            Fault("drop"),
            Fault("truncate"),
            Fault("corrupt"),
        ],
        ids=lambda fault: f"{fault.kind}-{fault.status}",
    )
    def test_passing_fault_costs_a_repetition(self, gcs, store, fault):
        """Each passing fault is repeated away, and the content is whole."""
        store.create("a", b"content" * 100)
        gcs.fail(Fault(**{**fault.__dict__, "method": "GET"}))
        before = len(gcs.requests)

        assert b"content" * 100 == store.read("a")
        assert len(gcs.requests) - before <= 3

    def test_stalled_answer_is_asked_for_again(self, gcs, store, monkeypatch):
        """An answer that does not come is given up after the read timeout."""
        monkeypatch.setattr(bucket, "SECONDS", 0.2)
        store.create("a", b"content")
        gcs.fail(Fault("stall", method="GET", seconds=1.0))

        assert b"content" == store.read("a")

    def test_lasting_corruption_is_given_up(self, gcs, store, monkeypatch):
        """Content that arrives wrong three times, and for long enough, is an error that shows both checksums."""
        monkeypatch.setattr(retrying, "CORRUPTED_SECONDS", 0.0)
        store.create("a", b"content")
        gcs.fail(Fault("corrupt", method="GET", times=-1))

        with pytest.raises(UnavailableError, match=r"(?i)checksum"):
            store.read("a")
        assert 3 == sum(method == "GET" for method, _ in gcs.requests)

    def test_lasting_outage_ends_at_the_deadline(self, gcs, store):
        """503 for ever is an unavailable store once the deadline has passed."""
        gcs.fail(Fault("status", status=503, times=-1))

        with pytest.raises(UnavailableError, match=r"within 0\.5 s"):
            store.with_deadline(0.5).read("a")

    @pytest.mark.parametrize(
        ("permission", "act"),
        [
            ("storage.objects.get", lambda s: s.read("a")),
            ("storage.objects.create", lambda s: s.create("b", b"")),
            ("storage.objects.list", lambda s: s.list()),
            ("storage.objects.delete", lambda s: s.delete("a")),
        ],
    )
    def test_missing_permission_is_named(self, gcs, store, permission, act):
        """The error names principal, place and permission, and the check before a study finds it."""
        store.create("a", b"")
        gcs.denied.add(permission)

        with pytest.raises(PermissionDeniedError, match=rf"gs://bucket/root.*iam\.gserviceaccount\.com.*{permission}"):
            act(store)
        with pytest.raises(PermissionDeniedError, match=permission):
            check_store(store)

    def test_missing_bucket_is_a_wrong_setting(self):
        """An absent bucket is told from an absent object."""
        with pytest.raises(ConfigurationError, match="bucket other must exist"):
            check_store(open_store("gs://other/root"))

    def test_expired_token_is_renewed(self, gcs):
        """One 401 leads to new credentials and nothing else."""
        import google.auth.credentials
        from google.cloud import storage

        from components.stores.gcs import Connection, GcsStore

        class Credentials(google.auth.credentials.Credentials):
            num_renewals = 0

            def refresh(self, request):  # noqa: ARG002
                self.num_renewals += 1
                self.token = f"token-{self.num_renewals}"

        credentials = Credentials()
        client = storage.Client(project="test", credentials=credentials)
        store = GcsStore("bucket", "root", connection=Connection(client))
        store.create("a", b"content")
        gcs.fail(Fault("status", status=401, method="GET"))

        assert b"content" == store.read("a")
        assert 2 == credentials.num_renewals

    def test_refused_token_is_a_wrong_setting(self, gcs, store):
        """Credentials that cannot be renewed are a matter of configuration."""
        gcs.fail(Fault("status", status=401, times=-1))

        with pytest.raises(ConfigurationError, match="must be authorised"):
            store.read("a")

    def test_listing_of_ten_thousand(self, gcs, store):
        """All pages of a long listing are read."""
        gcs.page_size = 1000
        for number in range(10_000):
            gcs.put("bucket", f"root/{number:05d}", b"")

        assert [f"{number:05d}" for number in range(10_000)] == store.list()


@pytest.mark.usefixtures("s3")
class TestS3:
    """Faults of S3, as the real client meets them."""

    @pytest.fixture
    def store(self):
        return open_store("s3://bucket/root", deadline_seconds=5)

    def test_lost_acknowledgement_is_recognised(self, s3, store):
        """A create that was committed but not acknowledged is this writer's success."""
        s3.fail(Fault("status", when="after", method="PUT"))

        assert store.create("a", b"same content") is True
        assert store.create("a", b"same content") is False

    def test_conflict_is_repeated(self, s3, store):
        """409 says nothing about who won: it is asked again."""
        s3.fail(Fault("status", status=409, method="PUT", times=2))

        assert store.create("a", b"1") is True

    def test_missing_permission_is_told(self, s3, store):
        """403 is a missing permission, not a missing object."""
        s3.fail(Fault("status", status=403, method="GET"))

        with pytest.raises(PermissionDeniedError, match="AccessDenied"):
            store.read("a")

    def test_missing_bucket_is_a_wrong_setting(self):
        """An absent bucket is told from an absent object."""
        with pytest.raises(ConfigurationError, match="bucket other must exist"):
            check_store(open_store("s3://other/root"))

    def test_missing_credentials_are_named(self, monkeypatch, tmp_path):
        """Without an access key the error names the variables, not a value."""
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name)
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))

        with pytest.raises(ConfigurationError, match="AWS_ACCESS_KEY_ID"):
            open_store("s3://bucket/root").read("a")

    def test_corrupted_content_is_noticed(self, store, monkeypatch):
        """Content that does not match its own SHA-256 is not handed out."""
        monkeypatch.setattr(retrying, "CORRUPTED_SECONDS", 0.0)
        store.create("a", b"content")
        client = store._connection.client(10, 10)
        metadata = client.head_object(Bucket="bucket", Key="root/a")["Metadata"]
        client.put_object(Bucket="bucket", Key="root/a", Body=b"c0ntent", Metadata=metadata)

        with pytest.raises(UnavailableError, match="SHA-256 must be"):
            store.read("a")


class TestLocal:
    """What only a directory can suffer."""

    @pytest.fixture
    def store(self, tmp_path):
        return open_store(str(tmp_path / "store"))

    def test_temporary_files_are_invisible_and_swept(self, store, tmp_path):
        """What a killed writer left is not listed, and gone once it is old enough."""
        store.create("d/a", b"1")
        left = tmp_path / "store" / "d" / f"{TEMPORARY}left"
        left.write_bytes(b"half")

        assert ["d/a"] == store.list()
        store.sweep(60)
        assert left.exists()
        store.sweep(0)
        assert not left.exists()
        assert b"1" == store.read("d/a")

    def test_temporary_files_of_others_are_named(self, store, tmp_path, monkeypatch):
        """What this user may not remove is an error like any other of a store."""
        store.create("d/a", b"1")
        (tmp_path / "store" / "d" / f"{TEMPORARY}left").write_bytes(b"half")

        def refused(_path):
            raise PermissionError(13, os.strerror(13))

        monkeypatch.setattr(Path, "unlink", refused)

        with pytest.raises(PermissionDeniedError, match="must allow this user to delete"):
            store.sweep(0)

    def test_full_disk_is_a_storage_error(self, store, monkeypatch):
        """A write that runs out of space leaves nothing and says so."""
        store.create("a", b"")

        def full(descriptor):  # noqa: ARG001
            raise OSError(28, os.strerror(28))

        monkeypatch.setattr(os, "fsync", full)

        with pytest.raises(StorageError, match=r"No space left on device\. Free some space"):
            store.create("b", b"1")
        assert ["a"] == store.list()
        assert ["a"] == [path.name for path in (store.directory).iterdir()]

    @pytest.mark.parametrize("root", ["file", "file/below"])
    def test_file_in_place_of_a_directory_is_a_storage_error(self, tmp_path, root):
        """A root that is a file, or lies under one, holds nothing and says what it is when written to."""
        (tmp_path / "file").touch()
        store = open_store(str(tmp_path / root))

        assert [] == store.list()
        with pytest.raises(ObjectNotFoundError):
            store.read("key")
        with pytest.raises(StorageError, match="Name a directory, not a file"):
            store.create("key", b"")

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may do everything")
    def test_read_only_directory_is_a_missing_permission(self, store, tmp_path):
        """A directory of somebody else is a missing permission."""
        store.create("a", b"")
        (tmp_path / "store").chmod(stat.S_IRUSR | stat.S_IXUSR)

        with pytest.raises(PermissionDeniedError, match="must allow this user to write"):
            store.create("b", b"1")

    def test_lost_answer_of_a_link_over_nfs_is_recognised(self, store, monkeypatch):
        """A link that was made although the call reported that the name exists is this writer's own."""
        real_link = os.link

        def link_and_forget(source, target):
            real_link(source, target)
            raise FileExistsError(17, "File exists")

        monkeypatch.setattr(os, "link", link_and_forget)

        assert store.create("a", b"1") is True
