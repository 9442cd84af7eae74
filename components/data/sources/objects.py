"""Fetches objects of Cloud Storage and S3 through their stores, in ranges of one pinned version."""

from dataclasses import dataclass

from components.data.sources.progress import Progress
from components.data.sources.transfer import MAX_BYTES, Expected, Partial
from components.dataset_name import object_name
from components.errors import DataError, ParameterError
from components.stores import ObjectNotFoundError, Stat, Store, open_store

RANGE_BYTES = 16 * 2**20


@dataclass(kw_only=True)
class BucketFile:
    """An object; see `transfer.Remote`.

    Attributes:
        store: Store of the whole bucket.
        object_name: The object's name in it.
        version: The one that is fetched.
    """

    store: Store
    object_name: str
    version: str
    name: str
    expected: Expected
    is_pinned: bool = False  # its digests are those of the moment

    def __post_init__(self) -> None:
        self.key = self.label = f"{self.store.uri}/{self.object_name}"

    def fetch(self, kept: Partial, known_validator: str) -> Expected | None:
        """Bring all bytes into `kept`; see `transfer.Remote`."""
        if known_validator == self.version:
            return None
        expected, num_bytes = self.expected, self.expected.num_bytes or 0
        if num_bytes > MAX_BYTES:
            raise DataError(f"{self.label} must have at most {MAX_BYTES:,} bytes; got {num_bytes:,}")
        if kept.validator != self.version or kept.size > num_bytes:
            kept.begin(self.version)
        if not expected.digests:  # a listing tells less than the object does
            expected = Expected(num_bytes=num_bytes, digests=self._digests())
        progress = Progress(self.name, num_bytes, kept.size)
        with kept.path.open("ab") as file:
            while (start := file.tell()) < num_bytes:
                end = min(start + RANGE_BYTES, num_bytes)
                data = self._range(start, end)
                if not expected.digests and data != self._range(start, end):
                    raise DataError(
                        f"{self.label} has no digest and must arrive twice the same; got two contents. Run again"
                    )
                file.write(data)
                progress.add(end - start)
        return expected

    def _range(self, start: int, end: int) -> bytes:
        return self.store.read_range(self.object_name, start, end, self.version)

    def _digests(self) -> dict[str, str]:
        """Return the digests of the version that is fetched."""
        stat = self.store.stat(self.object_name)
        return stat.digests if stat.version == self.version else {}


def find_files(uri: str, *, most: int, deadline_seconds: float | None = None) -> list[BucketFile]:
    """Return the object that a URI names, or else those under it.

    Args:
        uri: `gs://bucket/name` or `s3://bucket/name`, percent-encoded.
        most: Objects there may be.
        deadline_seconds: How long the store is waited for; its own deadline by default.

    Raises:
        ParameterError: There is neither, or more than `most`.
        FashionTuningError: The store fails or refuses.
    """
    scheme, _, rest = uri.partition("://")
    store = open_store(f"{scheme}://{rest.partition('/')[0]}")
    asked = store if deadline_seconds is None else store.with_deadline(deadline_seconds)
    name = object_name(uri)
    if name and not name.endswith("/"):
        try:
            return [_file(store, name, name.rpartition("/")[2], asked.stat(name))]
        except ObjectNotFoundError:
            pass
    prefix = name.rstrip("/") + "/" if name.strip("/") else ""
    stats = asked.stats(prefix, most=most + 1)
    if not stats:
        raise ParameterError(f"source {uri} must exist; got no such object, and none under it. Check the URI")
    if len(stats) > most:
        raise ParameterError(f"source {uri} must hold at most {most:,} objects; got more. Upload one zip instead")
    return [_file(store, key, key[len(prefix) :], stat) for key, stat in stats.items()]


def _file(store: Store, object_name: str, name: str, stat: Stat) -> BucketFile:
    return BucketFile(
        store=store,
        object_name=object_name,
        version=stat.version,
        name=name,
        expected=Expected(num_bytes=stat.size, digests=stat.digests),
    )
