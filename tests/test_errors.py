"""The edge: every failure is one line and an exit code."""

import errno
import os

import pytest

from components.errors import (
    ConfigurationError,
    DataError,
    FashionTuningError,
    ParameterError,
    PermissionDeniedError,
    StorageError,
    TerminatedError,
    TryAgainError,
    UnavailableError,
    exit_code_of,
    one_line,
    reporting,
    using,
)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ParameterError("x"), 64),
        (DataError("x"), 65),
        (UnavailableError("x"), 69),
        (FashionTuningError("x"), 70),
        (StorageError("x"), 74),
        (TryAgainError("x"), 75),
        (PermissionDeniedError("x"), 77),
        (ConfigurationError("x"), 78),
        (KeyboardInterrupt(), 130),
        (TerminatedError("x"), 143),
        (OSError(28, "No space left on device"), 74),
        (PermissionError(13, "Permission denied"), 77),
        (ZeroDivisionError("division by zero"), 70),
    ],
)
def test_exit_codes_follow_sysexits(error, code):
    """Each error has its sysexits code; what is not ours is a defect or the operating system's."""
    assert code == exit_code_of(error)


def test_failure_is_one_line_without_traceback(capsys, monkeypatch):
    """Line breaks and control characters of a message cannot make a second line."""
    monkeypatch.delenv("FASHION_TUNING_DEBUG", raising=False)

    with pytest.raises(SystemExit) as ended, reporting("ingest"):
        raise DataError("bad\nname\x1b[31m must be text; got 3")

    assert 65 == ended.value.code
    assert "ERROR 65 ingest: bad name [31m must be text; got 3\n" == capsys.readouterr().err


def test_debug_adds_the_traceback(capsys, monkeypatch):
    """With debugging on, the traceback precedes the line."""
    monkeypatch.setenv("FASHION_TUNING_DEBUG", "1")

    with pytest.raises(SystemExit), reporting("plan"):
        raise DataError("broken")

    error = capsys.readouterr().err
    assert error.startswith("Traceback")
    assert error.endswith("ERROR 65 plan: broken\n")


def test_all_parameter_problems_are_in_the_line():
    """An error with several problems names them all."""
    assert "a must be 1; b must be 2" == one_line(ParameterError(["a must be 1", "b must be 2"]))


def test_defects_say_so():
    """An unexpected exception names its type and asks for a report."""
    assert "KeyError: 'x'. This is a defect; run with --debug and report the traceback" == one_line(KeyError("x"))
    assert one_line(KeyError("x")) == one_line(FashionTuningError(one_line(KeyError("x"))))


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device"),
            "what is read or written must be usable; got No space left on device. Free some space",
        ),
        (
            OSError(errno.ENAMETOOLONG, "File name too long", "/a"),
            "/a must be usable; got File name too long. Choose a shorter name",
        ),
        (
            NotADirectoryError(errno.ENOTDIR, "Not a directory", "/a/b"),
            "/a/b must be usable; got Not a directory. Name a directory, not a file",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", "/a"),
            "/a must be usable; got Permission denied. Change its owner or mode",
        ),
        (OSError(errno.EIO, "Input/output error", "/a"), "/a must be usable; got Input/output error. Check the disk"),
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"), "[Errno 111] Connection refused"),
    ],
)
def test_the_operating_systems_errors_have_a_remedy(error, line):
    """What the operating system says of a file is told with the file and what to do; of a network, as it is."""
    assert line == one_line(error)


def test_a_full_disk_is_told_with_a_place():
    """A write that fails does not name its file; what the block works on is named instead."""
    with pytest.raises(StorageError, match=r"^/out must be .* got No space left .* Free some space$"), using("/out"):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(PermissionDeniedError, match=r"^/out/a must be usable"), using("/out"):
        raise PermissionError(errno.EACCES, "Permission denied", "/out/a")


def test_no_error_no_line(capsys):
    """A block that ends well prints nothing."""
    with reporting("plan"):
        os.getpid()

    assert "" == capsys.readouterr().err
