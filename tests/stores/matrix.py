"""Every fault a bucket's store may meet, as data: what is injected, into which operations, and what must come of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from components.errors import (
    ConfigurationError,
    PermissionDeniedError,
    StorageError,
    TryAgainError,
    UnavailableError,
)
from components.stores import ObjectNotFoundError, Store
from tests.fakes.faults import Fault

SMALL = b"content " * 1000
LARGE = b"0123456789abcdef" * 600_000
"""Above the size from which Cloud Storage's client uploads in a session."""

OK = None
"""The operation does what it promises, and the content is whole."""


@dataclass(frozen=True)
class Operation:
    """One call on a store, and how to see afterwards that it did what it promises.

    Attributes:
        methods: HTTP method by scheme; `LIST` is a GET of a listing.
        run: Does it on a key that exists before, except for a create.
        is_done: Whether it took effect, looked at without faults.
    """

    methods: dict[str, str]
    run: Callable[[Store, str, bytes], bool]
    is_done: Callable[[Store, str, bytes], bool]


def _reads(store: Store, key: str, data: bytes) -> bool:
    return store.read(key) == data


OPERATIONS = {
    "create": Operation({"gs": "POST", "s3": "PUT"}, lambda s, k, d: s.create(k, d) is True, _reads),
    "write": Operation({"gs": "POST", "s3": "PUT"}, lambda s, k, d: s.write(k, d) is None, _reads),
    "read": Operation({"gs": "GET", "s3": "GET"}, _reads, _reads),
    "stat": Operation({"gs": "GET", "s3": "HEAD"}, lambda s, k, d: s.stat(k).size == len(d), _reads),
    "range": Operation(
        {"gs": "GET", "s3": "GET"},
        lambda s, k, d: s.read_range(k, 3, len(d), s.with_deadline(30).stat(k).version) == d[3:],
        _reads,
    ),
    "list": Operation({"gs": "LIST", "s3": "LIST"}, lambda s, k, _: s.list(k) == [k], _reads),
    "delete": Operation(
        {"gs": "DELETE", "s3": "DELETE"}, lambda s, k, _: s.delete(k) is None, lambda s, k, _: s.list(k) == []
    ),
}
WRITING = ("create", "write")
READING = ("read", "range")


@dataclass(frozen=True)
class Row:
    """A fault and what must come of it.

    Attributes:
        name: Of the row.
        fault: What the server does once.
        outcome: `OK` or the error of the operation.
        operations: Into which it is injected; empty for all.
        data: Content.
        schemes: Of the providers that show it.
        except_for: Other outcomes by operation.
    """

    name: str
    fault: Fault
    outcome: type[Exception] | None = OK
    operations: tuple[str, ...] = ()
    data: bytes = SMALL
    schemes: tuple[str, ...] = ("gs", "s3")
    except_for: tuple[tuple[str, type[Exception] | None], ...] = ()

    def outcome_of(self, operation: str) -> type[Exception] | None:
        """Return what must come of the operation."""
        return dict(self.except_for).get(operation, self.outcome)


def status(code: int, outcome: type[Exception] | None, **changes) -> Row:
    """Return the row of an error answer before the request took effect."""
    return replace(Row(f"{code}", Fault("status", status=code), outcome), **changes)


_ABSENT = (
    ("read", ObjectNotFoundError),
    ("stat", ObjectNotFoundError),
    ("range", TryAgainError),
)

PASSING = (408, 425, 429, 499, 500, 502, 503, 504, 507, 520, 521, 598)
REFUSED = (402, 405, 406, 411, 413, 414, 415, 417, 418, 422, 423, 424, 431, 451)

STATUSES = [
    *(status(code, OK) for code in PASSING),
    *(status(code, StorageError) for code in REFUSED),
    # A HEAD of S3 that is answered with 400 is asked again by its client, which takes the region for wrong.
    status(400, StorageError, operations=("create", "write", "read", "range", "list", "delete")),
    status(401, ConfigurationError),
    status(403, PermissionDeniedError),
    status(
        404, ConfigurationError, except_for=_ABSENT, operations=("create", "write", "read", "stat", "range", "list")
    ),
    status(
        410, ConfigurationError, except_for=_ABSENT, operations=("create", "write", "read", "stat", "range", "list")
    ),
    status(409, StorageError, schemes=("gs",)),
    status(409, OK, schemes=("s3",)),
    status(412, TryAgainError, except_for=(("create", OK),)),
    status(416, TryAgainError, operations=("range",)),
    status(501, OK, schemes=("gs",)),
    status(501, ConfigurationError, schemes=("s3",), operations=("create", "write", "read", "list")),
]

ANSWERS = [
    Row("503 after", Fault("status", when="after")),
    Row("closed before", Fault("drop")),
    Row("closed after", Fault("drop", when="after")),
    Row("reset before", Fault("reset")),
    Row("reset after", Fault("reset", when="after")),
    Row("stall before", Fault("stall", seconds=0.9)),
    Row("stall after", Fault("stall", seconds=0.9, when="after")),
    Row("page before", Fault("page"), operations=("create", "write", "read", "range", "list", "delete")),
    Row("page after", Fault("page", when="after"), operations=("create", "write", "read", "range", "list", "delete")),
    Row("truncated", Fault("truncate"), operations=(*READING, "list")),
    Row("broken", Fault("break"), operations=(*READING, "list")),
    Row("slow", Fault("slow", bytes_per_second=50_000), operations=READING),
    Row("corrupted", Fault("corrupt"), operations=("read",)),
    Row("corrupted listing", Fault("corrupt"), operations=("list",)),
    Row("without checksum", Fault("unhashed"), operations=READING),
    Row("upload reset", Fault("upload-reset"), operations=WRITING),
    Row("upload stalled", Fault("upload-stall", seconds=0.9), operations=WRITING),
    Row("upload corrupted", Fault("upload-corrupt"), operations=WRITING),
]

SESSION = {"gs": "PUT", "s3": "PUT"}
"""Method of the requests that carry a large object's content."""

LARGE_UPLOADS = [
    Row("large: 503 after", Fault("status", when="after"), operations=("create",), data=LARGE),
    Row("large: reset after", Fault("reset", when="after"), operations=("create",), data=LARGE),
    Row("large: reset in the middle", Fault("upload-reset"), operations=("create",), data=LARGE),
    Row(
        "large: stalled for good in the middle", Fault("upload-stall", seconds=2.0), operations=("create",), data=LARGE
    ),
    Row("large: corrupted", Fault("upload-corrupt"), operations=("create",), data=LARGE),
    Row("large: session forgotten, 404", Fault("status", 404), operations=WRITING, data=LARGE, schemes=("gs",)),
    Row("large: session forgotten, 410", Fault("status", 410), operations=WRITING, data=LARGE, schemes=("gs",)),
    # Longer than the time-out of a connection, with progress all the time.
    Row("large: slow", Fault("upload-slow", bytes_per_second=12e6), operations=("create",), data=LARGE),
]

FEW = ("create", "read")
LASTING = [
    *(status(code, UnavailableError, operations=FEW) for code in (503, 429, 598)),
    Row("closed for ever", Fault("drop"), UnavailableError, operations=("stat", "list")),
    Row("reset for ever", Fault("reset"), UnavailableError, operations=("write", "delete")),
    Row("stall for ever", Fault("stall", seconds=0.6), UnavailableError, operations=FEW),
    Row("page for ever", Fault("page"), UnavailableError, operations=FEW),
    Row("corrupted for ever", Fault("corrupt"), UnavailableError, operations=("read",)),
    Row("without checksum for ever", Fault("unhashed"), UnavailableError, operations=READING),
]
NO_OBJECT = status(412, StorageError, name="412 without an object", operations=("create",))
