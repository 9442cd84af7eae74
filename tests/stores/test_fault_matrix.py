"""Every store under every fault, from the tables of `tests.stores.matrix`: the outcome that must come of it, and no other.

The deadlines and time-outs are scaled down, the logic is not. `make stress` also runs the tables before real servers; see
the fixture `server`.
"""

import dataclasses
import errno
import os
import time

import pytest

from components.errors import PermissionDeniedError, StorageError
from components.stores import ObjectNotFoundError, open_store, retrying
from components.stores import bucket as bucket_module
from tests.stores import matrix
from tests.stores.matrix import OK, OPERATIONS

SECONDS = 0.4


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """A twenty-fifth of the real time-outs, and pauses to match."""
    monkeypatch.setattr(bucket_module, "SECONDS", SECONDS)
    monkeypatch.setattr(retrying, "FIRST_SECONDS", 0.005)
    monkeypatch.setattr(retrying, "LONGEST_SECONDS", 0.1)
    monkeypatch.setattr(retrying, "LEAST_SECONDS", SECONDS)
    monkeypatch.setattr("components.stores.s3._STEPS", (SECONDS, 1.0, 60.0))


def seen(scheme, server, patient, row, operation, *, times=1, deadline_seconds=30.0):
    """Return what came of an operation under a fault: `OK`, an exception's class, or a text."""
    key = f"{operation}/{row.name}-{time.monotonic_ns()}".replace(" ", "-").replace(":", "").replace(",", "")
    store = patient.with_deadline(deadline_seconds)
    call = OPERATIONS[operation]
    if operation != "create":
        patient.write(key, row.data if operation != "write" else b"old")
    is_large = row.data is matrix.LARGE
    server.fail(
        dataclasses.replace(
            row.fault,
            method=matrix.SESSION[scheme] if is_large else call.methods[scheme],
            contains=""
            if is_large and scheme == "gs"
            else key
            + ("?alt=media" if call.methods[scheme] == "GET" and operation != "stat" and scheme == "gs" else ""),
            times=times,
        )
    )
    try:
        outcome = OK if call.run(store, key, row.data) else "answered wrongly"
    except Exception as error:
        outcome = type(error)
    was_hit = server.faults[-1].times != times
    server.heal()
    if not was_hit:
        return "the fault was never met"
    if outcome is OK and not call.is_done(patient, key, row.data):
        return "not done"
    return outcome


def differences(server, rows, **options):
    """Return where the outcome of a row is not the one that the table expects."""
    scheme, fake = server
    store, found = open_store(f"{scheme}://bucket/matrix"), []
    for row in rows:
        for operation in row.operations or OPERATIONS:
            if scheme in row.schemes:
                # What ends a call must do so however often it is asked: on a busy machine an answer may come too late.
                times = 1 if row.outcome_of(operation) is OK else -1
                came = seen(scheme, fake, store, row, operation, **{"times": times, **options})
                if came != row.outcome_of(operation):
                    found.append(f"{scheme} {operation}, {row.name}: {came}, must be {row.outcome_of(operation)}")
    return found


def test_statuses(server):
    """An error answer is repeated, told or explained, each status as the table of failures says."""
    assert [] == differences(server, matrix.STATUSES)


def test_answers(server):
    """Connections that break, answers that are lost, late, cut, damaged or another's, change no outcome."""
    assert [] == differences(server, matrix.ANSWERS)


def test_large_uploads(server):
    """An upload in parts survives lost answers, resets, stalls and a slow link, and begins anew where it was forgotten."""
    assert [] == differences(server, matrix.LARGE_UPLOADS)


def test_lasting(server, monkeypatch):
    """What does not pass ends at the deadline."""
    monkeypatch.setattr(retrying, "CORRUPTED_SECONDS", 0.1)
    assert [] == differences(server, matrix.LASTING, times=-1, deadline_seconds=0.3)


def test_refused_for_no_object(server):
    """A create that is refused as if the object existed, although it does not, is an error, not a lost race."""
    assert [] == differences(server, [matrix.NO_OBJECT], times=-1)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_status(server):
    """Each status from 300 to 599 is repeated or ends the call with one of the project's errors."""
    from components.errors import FashionTuningError

    scheme, fake = server
    store, odd = open_store(f"{scheme}://bucket/matrix"), []
    for code in range(300, 600):
        came = seen(scheme, fake, store, matrix.status(code, OK), "read")
        is_repeated = code < 400 or code in matrix.PASSING or code >= 500 or (scheme == "s3" and code == 409)
        if code == 501 and scheme == "s3":
            is_repeated = False
        if (came is OK) != is_repeated or (
            came is not OK and not (isinstance(came, type) and issubclass(came, FashionTuningError))
        ):
            odd.append((code, came))

    assert [] == odd


@pytest.mark.parametrize("state", ["refuse", "silent", "hang up"])
def test_outages(server, state):
    """A store that refuses or ignores connections is waited for until the deadline, and found again when it is back."""
    import threading

    from components.errors import UnavailableError

    scheme, fake = server
    store = open_store(f"{scheme}://bucket/outage-{state.replace(' ', '-')}-{time.monotonic_ns()}", deadline_seconds=60)
    store.create("a", b"1")
    fake.go(state)
    timer = threading.Timer(1.0, fake.go, ["on"])
    start = time.monotonic()
    with pytest.raises(UnavailableError, match=r"within 0\.3 s"):
        store.with_deadline(0.3).read("a")
    timer.start()

    assert store.create("b", b"2")
    assert time.monotonic() - start > 1.0
    assert ["a", "b"] == store.list()


@pytest.mark.parametrize(
    ("number", "expected", "remedy"),
    [
        (errno.ENOSPC, StorageError, "Free some space"),
        (errno.EDQUOT, StorageError, "Free some space"),
        (errno.EROFS, StorageError, "Check the disk"),
        (errno.EIO, StorageError, "Check the disk"),
        (errno.EACCES, PermissionDeniedError, "Change its owner or mode"),
        (errno.EPERM, PermissionDeniedError, "Change its owner or mode"),
    ],
)
def test_directory(tmp_path, monkeypatch, number, expected, remedy):
    """What the operating system refuses, in each call of each operation, ends with its reason and nothing half-written."""
    store = open_store(str(tmp_path))
    store.create("d/a", b"1")

    def refuse(*arguments, **options):  # noqa: ARG001
        raise OSError(number, os.strerror(number))

    calls = {
        "open": [lambda: store.create("d/b", b"2"), lambda: store.write("d/a", b"2")],
        "fsync": [lambda: store.create("d/b", b"2")],
        "link": [lambda: store.create("d/b", b"2")],
        "unlink": [],
    }
    for name, operations in calls.items():
        for operation in operations:
            with monkeypatch.context() as patch:
                patch.setattr(os, name, refuse)
                with pytest.raises(expected, match=remedy):
                    operation()
            assert ["d/a"] == store.list()
            assert b"1" == store.read("d/a")
    with monkeypatch.context() as patch:
        patch.setattr("components.stores.local.Path.read_bytes", refuse)
        with pytest.raises(expected, match=remedy):
            store.read("d/a")
    with pytest.raises(ObjectNotFoundError):
        store.stat("d/none")
