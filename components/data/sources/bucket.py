"""What fetching needs of a bucket, the same for Cloud Storage and for S3 and its kin."""

from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

from components.data.sources import transfer
from components.errors import FashionTuningError, TryAgainError, UnavailableError

PASSING_STATUS = (408, 429, 500, 502, 503, 504)


class Found(NamedTuple):
    """An object as it is at the moment.

    Attributes:
        name: Its name in the bucket.
        num_bytes: Length.
        version: Changes with every write: generation or ETag.
        digests: Hexadecimal digest by algorithm, as far as the store knows them.
    """

    name: str
    num_bytes: int
    version: str
    digests: dict[str, str]


class Bucket(Protocol):
    """Three calls, each of one request that the caller repeats, and what their errors mean."""

    def find(self, name: str) -> Found | None:
        """Return an object, or None."""

    def under(self, prefix: str, most: int) -> list[Found]:
        """Return the objects under a prefix, `most` at most; those that stand for folders are left out."""

    def read(self, name: str, version: str, start: int, end: int) -> bytes:
        """Return bytes `start` to `end` (exclusive) of one version of an object."""

    def is_passing(self, error: Exception) -> bool:
        """Tell whether a later repetition may succeed."""

    def translated(self, what: str) -> AbstractContextManager[None]:
        """Turn the client's errors into the project's."""


def timeout() -> tuple[float, float]:
    """Return how long to wait for a connection and for the next bytes, seconds."""
    return transfer.PATIENCE.connect_seconds, transfer.PATIENCE.read_seconds


def unexpected_answer(what: str, status: int | None) -> FashionTuningError:
    """Return the error for an answer that is none of the known ones."""
    if status == 412:
        return TryAgainError(f"{what} must stay as it is while it is read; it was replaced. Run again")
    return UnavailableError(f"{what} must be readable; got HTTP {status}. Run again")
