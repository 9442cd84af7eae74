"""These are the errors that a user can meet, each with its sysexits code; `reporting` turns them into one line.

    FashionTuningError            70  a defect of this program
    ├── ParameterError            64  a run parameter is wrong
    ├── DataError                 65  the data is wrong, or no usable result came of it
    ├── UnavailableError          69  a service or store did not answer
    ├── StorageError              74  disk full, unreadable or unwritable file
    ├── TryAgainError             75  a passing condition: the same command may work later
    ├── PermissionDeniedError     77  the caller may not do that
    ├── ConfigurationError        78  a setting, secret or device is missing
    └── TerminatedError          143  SIGTERM arrived

Source: sysexits.h, https://man.openbsd.org/sysexits
"""

import errno
import logging
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from components.text import printable

log = logging.getLogger(__name__)

_DEFECT = "This is a defect; run with --debug and report the traceback"
_REMEDIES = {
    errno.EACCES: "Change its owner or mode",
    errno.EPERM: "Change its owner or mode",
    errno.ENOSPC: "Free some space",
    errno.EDQUOT: "Free some space",
    errno.ENOTDIR: "Name a directory, not a file",
    errno.EEXIST: "Name a directory, not a file",
    errno.EISDIR: "Name a file, not a directory",
    errno.ENOENT: "Check the path",
    errno.ENAMETOOLONG: "Choose a shorter name",
    errno.ELOOP: "Remove the link that leads to itself",
}


class FashionTuningError(Exception):
    """Base of every error a user can meet.

    The text reads "subject must be rule; got value. Remedy."
    """

    exit_code = 70


class ParameterError(FashionTuningError):
    """A run parameter, a flag or a name is wrong."""

    exit_code = os.EX_USAGE

    def __init__(self, problems: str | list[str]) -> None:
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("; ".join(self.problems))


class DataError(FashionTuningError):
    """The data cannot be used, or nothing usable came of it."""

    exit_code = os.EX_DATAERR


class UnavailableError(FashionTuningError):
    """A service or a store did not answer within its deadline."""

    exit_code = os.EX_UNAVAILABLE


class StorageError(FashionTuningError):
    """A file or disk could not be read or written."""

    exit_code = os.EX_IOERR


class TryAgainError(FashionTuningError):
    """A passing condition: the same command may succeed later."""

    exit_code = os.EX_TEMPFAIL


class PermissionDeniedError(FashionTuningError):
    """The caller lacks a permission."""

    exit_code = os.EX_NOPERM


class ConfigurationError(FashionTuningError):
    """A setting, a secret or a device is missing."""

    exit_code = os.EX_CONFIG


class TerminatedError(FashionTuningError):
    """SIGTERM arrived; what was finished is kept."""

    exit_code = 128 + signal.SIGTERM


def file_error(error: OSError, rule: str = "must be usable", place: object = "") -> FashionTuningError:
    """Return the operating system's error about a file as one of ours, with a remedy: 77 where a permission is missing, else 74.

    Args:
        error: What the operating system raised.
        rule: What must hold of the file.
        place: The file; empty for the one that the error names.
    """
    kind = PermissionDeniedError if isinstance(error, PermissionError) else StorageError
    remedy = _REMEDIES.get(error.errno or 0, "Check the disk")
    place = place or error.filename or "what is read or written"
    return kind(f"{place} {rule}; got {error.strerror or error}. {remedy}")


@contextmanager
def using(place: object, rule: str = "must be usable") -> Iterator[None]:
    """Turn the operating system's errors about files into `file_error`.

    Args:
        place: The file or folder in use, for errors that name none, such as a full disk.
        rule: What must hold of it.

    Raises:
        PermissionDeniedError: A permission is missing.
        StorageError: Anything else is in the way.
    """
    try:
        yield
    except OSError as error:
        raise file_error(error, rule, error.filename or place) from error


def exit_code_of(error: BaseException) -> int:
    """Return the sysexits code for any exception: our own, the operating system's, or 70."""
    if isinstance(error, FashionTuningError):
        return error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return 128 + signal.SIGINT
    if isinstance(error, PermissionError):
        return os.EX_NOPERM
    if isinstance(error, OSError):
        return os.EX_IOERR
    return 70


def one_line(error: BaseException) -> str:
    """Return the error as one line of text without control characters."""
    if isinstance(error, OSError) and error.strerror and (error.filename or error.errno in _REMEDIES):
        error = file_error(error)
    text = str(error) or type(error).__name__
    if exit_code_of(error) == 70 and _DEFECT not in text:
        text = f"{type(error).__name__}: {text.rstrip('.')}. {_DEFECT}"
    return " ".join(printable(text).split())


@contextmanager
def reporting(what: str) -> Iterator[None]:
    """Turn every exception that leaves the block into one line `ERROR <code> <what>: <text>` on stderr, and exit.

    The traceback appears only where the environment variable `FASHION_TUNING_DEBUG` is set.

    Args:
        what: The step or command, for example `ingest fashion-mnist`.

    Raises:
        SystemExit: With the sysexits code of the error.
    """
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:  # the outermost edge
        if os.environ.get("FASHION_TUNING_DEBUG"):
            traceback.print_exc()
        code = exit_code_of(error)
        print(f"ERROR {code} {what}: {one_line(error)}", file=sys.stderr, flush=True)  # noqa: T201 - the one line
        raise SystemExit(code) from None
