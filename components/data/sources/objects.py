"""Fetches objects from buckets, in ranges of one pinned version."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from components.data.sources.bucket import Bucket, Found
from components.data.sources.progress import Progress
from components.data.sources.transfer import MAX_BYTES, Expected, Partial
from components.errors import DataError, ParameterError
from components.stores.retrying import retrying

RANGE_BYTES = 16 * 2**20
DEADLINE_SECONDS = 120.0


@dataclass(kw_only=True)
class BucketFile:
    """An object; see `transfer.Remote`."""

    bucket: Bucket
    key: str
    shown: str
    name: str
    object_name: str
    version: str
    expected: Expected
    is_pinned: bool = False  # its digests are those of the moment

    def fetch(self, kept: Partial, known_validator: str) -> Expected | None:
        """Bring all bytes into `kept`; see `transfer.Remote`."""
        if known_validator == self.version:
            return None
        num_bytes = self.expected.num_bytes or 0
        if num_bytes > MAX_BYTES:
            raise DataError(f"{self.shown} must have at most {MAX_BYTES:,} bytes; got {num_bytes:,}")
        if kept.validator != self.version or kept.size > num_bytes:
            kept.begin(self.version)
        progress = Progress(self.name, num_bytes, kept.size)
        with kept.path.open("ab") as file:
            while (start := file.tell()) < num_bytes:
                end = min(start + RANGE_BYTES, num_bytes)
                read = partial(self.bucket.read, self.object_name, self.version, start, end)
                data = repeated(self.bucket, self.shown, read)
                if not data:
                    raise DataError(
                        f"{self.shown} must have all its bytes; expected {num_bytes:,} bytes, got {start:,}. Run again"
                    )
                file.write(data)
                progress.add(len(data))
        return self.expected


def open_bucket(scheme: str, name: str) -> Bucket:
    """Return the bucket of `gs://` or `s3://`; nothing is asked of it yet."""
    if scheme == "gs":
        from components.data.sources.gcs_bucket import GcsBucket

        return GcsBucket(name)
    from components.data.sources.s3_bucket import S3Bucket

    return S3Bucket(name)


def repeated(bucket: Bucket, what: str, call: Callable):
    """Return what a call returns, repeated while it fails in passing, errors as the project's own."""
    with bucket.translated(what):
        return retrying(call, what=what, is_passing=bucket.is_passing, deadline_seconds=DEADLINE_SECONDS)


def find_files(uri: str, scheme: str, bucket_name: str, path: str, *, most: int) -> list[BucketFile]:
    """Return the object a URI names, or else those under it.

    Raises:
        ParameterError: There is neither, or more than `most`.
    """
    bucket = open_bucket(scheme, bucket_name)
    name = path.lstrip("/")
    if name and not name.endswith("/"):
        found = repeated(bucket, uri, lambda: bucket.find(name))
        if found:
            return [_file(bucket, f"{scheme}://{bucket_name}", found, name.rpartition("/")[2])]
    prefix = name.rstrip("/") + "/" if name.strip("/") else ""
    objects = repeated(bucket, uri, lambda: bucket.under(prefix, most + 1))
    if not objects:
        raise ParameterError(f"source {uri} must exist; got no such object, and none under it. Check the URI")
    if len(objects) > most:
        raise ParameterError(f"source {uri} must hold at most {most:,} objects; got more. Upload one zip instead")
    return [_file(bucket, f"{scheme}://{bucket_name}", found, found.name[len(prefix) :]) for found in objects]


def _file(bucket: Bucket, root: str, found: Found, name: str) -> BucketFile:
    shown = f"{root}/{found.name}"
    return BucketFile(
        bucket=bucket,
        key=shown,
        shown=shown,
        name=name,
        object_name=found.name,
        version=found.version,
        expected=Expected(num_bytes=found.num_bytes, digests=found.digests),
    )
