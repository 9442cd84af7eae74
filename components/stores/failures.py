"""This module recognises what went wrong between the program and a bucket, and decides what each failure means.

The providers list how they show each failure (`RULES` of `stores.gcs` and `stores.s3`); here stands what follows from
it. `docs/study.md` shows both as one table, and a test keeps the page equal to the code.
"""

from __future__ import annotations

import enum
import json
import ssl
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from urllib3.util.ssl_match_hostname import CertificateError as HostnameError

from components.errors import (
    ConfigurationError,
    FashionTuningError,
    PermissionDeniedError,
    StorageError,
    TryAgainError,
    UnavailableError,
)
from components.stores.contract import ObjectNotFoundError

CERTIFICATE_REASONS = ("CERTIFICATE_VERIFY_FAILED", "WRONG_VERSION_NUMBER", "TLSV1_ALERT_UNKNOWN_CA")
"""OpenSSL's reasons that no repetition mends; a handshake that is cut off has others."""


class CorruptedError(Exception):
    """What arrived does not match its checksum."""


class ForeignAnswerError(Exception):
    """The answer does not come from the store: a login page, an answer without its checksum, a listing without a name."""


class VanishedError(Exception):
    """An object that was just in the way of a create is gone."""


class CertificateError(Exception):
    """Stands in the rules for any error that was caused by a certificate; see `is_certificate`."""


class HeaderError(Exception):
    """Stands in the rules for a header that the HTTP client refuses to send; see `is_header`."""


class Failure(enum.Enum):
    """A kind of failure, with the error that ends the call; `UnavailableError` ends it only once the deadline has passed."""

    UNREACHABLE = "no connection, or it broke off", UnavailableError
    BUSY = "the store, or what gives its tokens, is busy", UnavailableError
    FOREIGN = "the answer is not the store's", UnavailableError
    CORRUPTED = "content does not match its checksum", UnavailableError
    RESTARTED = "an upload in parts was forgotten", UnavailableError
    UNTRUSTED = "a certificate is not trusted", ConfigurationError
    CREDENTIALS = "credentials are missing or refused", ConfigurationError
    SETTINGS = "a setting cannot be used", ConfigurationError
    FORBIDDEN = "a permission is missing", PermissionDeniedError
    NO_BUCKET = "no such bucket", ConfigurationError
    NO_OBJECT = "no such object", ObjectNotFoundError
    CHANGED = "another version than the one asked for", TryAgainError
    UNSUPPORTED = "the server cannot do it", ConfigurationError
    REFUSED = "any other refusal", StorageError

    def __init__(self, what: str, error: type[FashionTuningError]) -> None:
        self.what = what
        self.error = error

    @property
    def is_passing(self) -> bool:
        """Return whether a later repetition may succeed."""
        return self.error is UnavailableError


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How to recognise a failure: by an exception of the provider's client, or by an answer.

    Attributes:
        failure: What it is.
        errors: Exceptions that mean it.
        statuses: HTTP statuses that mean it.
        codes: Words of the error's own, one of which must be in the answer; empty for any answer.
        actions: The calls for which it means this; empty for all.
        sign: The exceptions in the reader's words, for the table.
    """

    failure: Failure
    errors: tuple[type[Exception], ...] = ()
    statuses: Collection[int] = ()
    codes: tuple[str, ...] = ()
    actions: tuple[str, ...] = ()
    sign: str = ""

    def matches(self, error: Exception, status: int, code: str, action: str) -> bool:
        """Return whether the rule is about this error.

        Args:
            error: What the provider's client raised.
            status: HTTP status of the answer; 0 if there was no answer.
            code: The answer's own name for the error.
            action: What was done: `creating`, `writing`, `reading`, `listing`, `looking up`, `deleting`.
        """
        if self.actions and action not in self.actions:
            return False
        if isinstance(error, self.errors):
            return True
        if self.codes and not any(word in code for word in self.codes):
            return False
        return status in self.statuses if self.statuses else bool(self.codes and status)

    def describe(self) -> str:
        """Return the rule as a cell of the table."""
        signs = [self.sign] if self.sign else []
        if self.statuses or self.codes:
            statuses = _status_ranges(self.statuses)
            codes = " or ".join(f"`{code}`" for code in self.codes)
            signs.append(" with ".join(part for part in (statuses, codes) if part))
        return ", ".join(signs) + (f" when {' or '.join(self.actions)}" if self.actions else "")


def find(rules: Sequence[Rule], error: Exception, status: int, code: str, action: str) -> Failure | None:
    """Return the failure of the first matching rule; None for an error that does not come from the provider: a defect."""
    if is_certificate(error):
        error = CertificateError()
    elif is_header(error):
        error = HeaderError()
    return next((rule.failure for rule in rules if rule.matches(error, status, code, action)), None)


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and everything that it was made from, as HTTP clients wrap it: cause, context, reason, arguments."""
    seen, waiting = set(), [error]
    while waiting:
        current = waiting.pop(0)
        if not isinstance(current, BaseException) or id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        waiting += [current.__cause__, current.__context__, getattr(current, "reason", None), *current.args]
        waiting += [value for value in getattr(current, "kwargs", {}).values() if isinstance(value, BaseException)]


def is_certificate(error: BaseException) -> bool:
    """Return whether the other side's certificate, or the lack of one, is the cause."""
    return any(
        isinstance(e, HostnameError) or (isinstance(e, ssl.SSLError) and e.reason in CERTIFICATE_REASONS)
        for e in causes(error)
    )


def is_header(error: BaseException) -> bool:
    """Return whether the HTTP client refused to send a header; its text shows the value, which may be a secret."""
    return any(
        isinstance(e, ValueError) and not isinstance(e, json.JSONDecodeError) and "header" in str(e).lower()
        for e in causes(error)
    )


def _status_ranges(statuses: Collection[int]) -> str:
    if isinstance(statuses, range) and statuses.start < 100:
        return "any other status"
    full = [hundred for hundred in range(100, 600, 100) if all(s in statuses for s in range(hundred, hundred + 100))]
    single = [str(status) for status in statuses if status // 100 * 100 not in full]
    return ", ".join(single + [f"{hundred // 100}xx" for hundred in full])
