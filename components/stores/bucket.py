"""The stores in buckets share this: keys under a prefix, repetition, nonces, and the meaning of failures."""

from __future__ import annotations

import abc
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, NamedTuple, Self, TypeVar

from components.errors import FashionTuningError, StorageError, TryAgainError
from components.stores.contract import DEADLINE_SECONDS, ObjectNotFoundError, Stat, checked_key
from components.stores.failures import CorruptedError, Failure, Rule, VanishedError, find, is_header
from components.stores.retrying import retrying

SECONDS = 10.0
"""To connect, and between two bytes in either direction."""

_BUFFERED_BYTES, _SLOW_BYTES_PER_SECOND = 5 * 2**20, 100_000
CLASHES = 3
"""So often a create may be refused for an object that is not there."""

_MUST = {
    Failure.UNTRUSTED: "must meet a certificate that this machine trusts",
    Failure.CREDENTIALS: "must be authorised",
    Failure.FORBIDDEN: "must be allowed",
    Failure.SETTINGS: "must be possible",
    Failure.NO_BUCKET: "must exist",
    Failure.CHANGED: "must meet the version it asked for",
    Failure.UNSUPPORTED: "must be possible",
    Failure.REFUSED: "must succeed",
}

T = TypeVar("T")


def timeouts(left: float, num_bytes: int = 0) -> tuple[float, float]:
    """Return how long to wait for a connection and for the next bytes of the answer, seconds.

    Args:
        left: Until the deadline.
        num_bytes: That are uploaded: what lies in the system's buffers still has to go over the line when all is sent.
    """
    drain = min(num_bytes, _BUFFERED_BYTES) / _SLOW_BYTES_PER_SECOND
    return min(SECONDS, left), min(SECONDS + drain, left)


class Found(NamedTuple):
    """An object of a bucket: its `Stat`, and its writer's nonce."""

    stat: Stat
    nonce: str


class BucketStore(abc.ABC):
    """Keys are object names under a prefix of a bucket.

    Each object carries a nonce: a create whose acknowledgement was lost is refused when it is repeated, and the nonce
    tells that the object is this writer's own.

    Args:
        bucket: Name of the bucket.
        prefix: Without slashes at its ends; empty for the whole bucket.
        deadline_seconds: How long calls are repeated.
        connection: The provider's; made by default.
    """

    scheme: ClassVar[str]
    rules: ClassVar[Sequence[Rule]]
    remedies: ClassVar[dict[Failure, str]]

    def __init__(
        self,
        bucket: str,
        prefix: str = "",
        *,
        deadline_seconds: float = DEADLINE_SECONDS,
        connection: Any = None,
    ) -> None:
        self._bucket = bucket
        self._prefix = prefix
        self._deadline_seconds = deadline_seconds
        self._connection = connection or self._connect()
        self.uri = f"{self.scheme}://{bucket}/{prefix}".rstrip("/")

    def __truediv__(self, prefix: str) -> Self:
        return self._copy(self._name(checked_key(prefix)), self._deadline_seconds)

    def with_deadline(self, seconds: float) -> Self:
        """Return the same store with another deadline."""
        return self._copy(self._prefix, seconds)

    def create(self, key: str, data: bytes) -> bool:
        """Write an object if there is none of this key."""
        name, nonce, clashes = self._name(checked_key(key)), uuid.uuid4().hex, 0

        def call(left: float) -> bool:
            nonlocal clashes
            try:
                self._put(name, data, nonce, left, if_absent=True)
            except Exception as error:
                if self._failure(error, "creating") is not Failure.CHANGED:
                    raise
                entry = self._find(name, left)
                if entry is None:
                    clashes += 1
                    if clashes >= CLASHES:
                        raise StorageError(
                            f"{self.uri}/{key} must be possible to create; it is refused although there is no such"
                            f" object: {self._said(error)}. Check the bucket's policies"
                        ) from error
                    raise VanishedError(f"{name} was in the way and is gone") from error
                if entry.nonce == nonce and not self._is_whole(entry.stat, data):
                    self._remove(name, left)
                    raise CorruptedError(f"{name} arrived damaged in the bucket") from error
                return entry.nonce == nonce
            return True

        return self._run("creating", key, call)

    def read(self, key: str) -> bytes:
        """Return an object's content."""
        return self._run("reading", key, lambda left: self._get(self._name(key), left))

    def write(self, key: str, data: bytes) -> None:
        """Write an object, whether or not there was one."""
        name, nonce = self._name(checked_key(key)), uuid.uuid4().hex
        self._run("writing", key, lambda left: self._put(name, data, nonce, left, if_absent=False))

    def stat(self, key: str) -> Stat:
        """Return size, version and digests of an object."""

        def call(left: float) -> Stat:
            entry = self._find(self._name(key), left)
            if entry is None:
                raise ObjectNotFoundError(f"{self.uri}/{key}")
            return entry.stat

        return self._run("looking up", key, call)

    def read_range(self, key: str, start: int, end: int, version: str) -> bytes:
        """Return bytes `start` to `end` (exclusive) of one version of an object."""
        name = self._name(key)
        try:
            return self._run("reading", key, lambda left: self._get_range(name, start, end, version, left))
        except (ObjectNotFoundError, TryAgainError) as error:
            raise TryAgainError(
                f"{self.uri}/{key} must stay as it is while it is read; it was replaced or removed. Run again"
            ) from error

    def list(self, prefix: str = "") -> list[str]:
        """Return all keys that start with the prefix, sorted."""
        return sorted(self.stats(prefix))

    def stats(self, prefix: str = "", *, most: int | None = None) -> dict[str, Stat]:
        """Return each key with its `Stat`, for at most so many keys."""
        start = f"{self._prefix}/" if self._prefix else ""

        def call(left: float) -> dict[str, Stat]:
            stats: dict[str, Stat] = {}
            for name, stat in self._entries(start + prefix, left):
                if name.endswith("/"):  # stands for a folder
                    continue
                if most is not None and len(stats) >= most:
                    break
                stats[name[len(start) :]] = stat
            return stats

        return self._run("listing", prefix, call)

    def delete(self, key: str) -> None:
        """Remove an object; one that is absent is fine."""
        name = self._name(checked_key(key))
        try:
            self._run("deleting", key, lambda left: self._remove(name, left))
        except ObjectNotFoundError:
            return

    def sweep(self, min_age_seconds: float) -> None:  # noqa: B027 (there is nothing to do for any provider)
        """Do nothing: an unfinished upload is no object."""

    @abc.abstractmethod
    def _connect(self) -> Any:
        """Return a connection; nothing is asked yet."""

    @abc.abstractmethod
    def _put(self, name: str, data: bytes, nonce: str, left: float, *, if_absent: bool) -> None:
        """Write an object in one call."""

    @abc.abstractmethod
    def _get(self, name: str, left: float) -> bytes:
        """Return an object's content, checked; raise `CorruptedError` or `ForeignAnswerError`."""

    @abc.abstractmethod
    def _get_range(self, name: str, start: int, end: int, version: str, left: float) -> bytes:
        """Return a part of an object's version."""

    @abc.abstractmethod
    def _find(self, name: str, left: float) -> Found | None:
        """Return what is known of an object, or None."""

    @abc.abstractmethod
    def _entries(self, prefix: str, left: float) -> Iterator[tuple[str, Stat]]:
        """Yield every object under a prefix, in pages."""

    @abc.abstractmethod
    def _remove(self, name: str, left: float) -> None:
        """Remove an object."""

    @abc.abstractmethod
    def _is_whole(self, stat: Stat, data: bytes) -> bool:
        """Return whether the object's size and digest are those of the data."""

    @abc.abstractmethod
    def _answer(self, error: Exception) -> tuple[int, str, str]:
        """Return status, the answer's own name for an error, and its text; 0 and the error itself without an answer."""

    def _copy(self, prefix: str, deadline_seconds: float) -> Self:
        return type(self)(self._bucket, prefix, deadline_seconds=deadline_seconds, connection=self._connection)

    def _name(self, key: str) -> str:
        return f"{self._prefix}/{key}" if self._prefix else key

    def _failure(self, error: Exception, action: str) -> Failure | None:
        if isinstance(error, FashionTuningError):
            return None
        status, code, _ = self._answer(error)
        return find(self.rules, error, status, code, action)

    def _is_passing(self, error: Exception, action: str) -> bool:
        failure = self._failure(error, action)
        return failure is not None and failure.is_passing

    def _said(self, error: Exception) -> str:
        """Return the answer's text, or the error's, without a full stop."""
        return " ".join(self._answer(error)[2].split())[:500].rstrip(".")

    def _run(self, action: str, key: str, call: Callable[[float], T]) -> T:
        """Return what a call returns, repeated while that may help; raise the project's errors."""
        uri = f"{self.uri}/{key}"
        try:
            return retrying(
                call,
                what=f"{action} {uri}",
                is_passing=lambda error: self._is_passing(error, action),
                deadline_seconds=self._deadline_seconds,
            )
        except FashionTuningError:
            raise
        except Exception as error:
            failure = self._failure(error, action)
            if failure is None:
                raise
            raise self._translated(failure, error, action, uri) from error

    def _translated(self, failure: Failure, error: Exception, action: str, uri: str) -> FashionTuningError:
        if failure is Failure.NO_OBJECT:
            return ObjectNotFoundError(uri)
        said = "a header that cannot be sent" if is_header(error) else self._said(error)
        subject = f"bucket {self._bucket}" if failure is Failure.NO_BUCKET else f"{action} {uri}"
        return failure.error(f"{subject} {_MUST[failure]}; got {said}. {self.remedies[failure]}")
