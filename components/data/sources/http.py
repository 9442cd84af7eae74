"""Fetches a file over HTTP, going on where an earlier try stopped."""

import logging
import random
import re
import time
from dataclasses import dataclass, field
from itertools import pairwise
from urllib.parse import urlsplit

import requests
import urllib3

from components.data.sources import transfer
from components.data.sources.progress import Progress
from components.data.sources.transfer import CHUNK_BYTES, MAX_BYTES, Expected, Partial, hex_of_base64
from components.dataset_name import redacted
from components.errors import (
    ConfigurationError,
    DataError,
    FashionTuningError,
    ParameterError,
    PermissionDeniedError,
    UnavailableError,
)

log = logging.getLogger(__name__)

_MAX_REDIRECTS = 5
_PASSING = (408, 425, 429, 500, 502, 503, 504)


class _PassingError(Exception):
    """A later try may succeed."""

    def __init__(self, text: str, pause_seconds: float = 0.0) -> None:
        super().__init__(text)
        self.pause_seconds = pause_seconds


@dataclass(kw_only=True)
class HttpFile:
    """A file behind a URL; see `transfer.Remote`.

    Attributes:
        url: Where it is.
        auth: Puts credentials on requests to the first host; never sent to another.
        missing: The error where the server does not know it.
        refused: The errors where the server refuses, by status.
    """

    url: str
    name: str = ""
    expected: Expected = field(default_factory=Expected)
    auth: requests.auth.AuthBase | None = None
    missing: FashionTuningError | None = None
    refused: dict[int, FashionTuningError] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.key = self.url
        self.label = redacted(self.url)
        self.name = self.name or urlsplit(self.url).path.rpartition("/")[2]

    @property
    def is_pinned(self) -> bool:
        """Return whether its digest is known beforehand."""
        return bool(self.expected.digests)

    def fetch(self, partial: Partial, known_validator: str) -> Expected | None:
        """Bring all bytes into `partial`; see `transfer.Remote`.

        Raises:
            ParameterError: There is no such file.
            PermissionDeniedError: It may not be read.
            UnavailableError: No new byte after several tries.
            DataError: It is too large.
        """
        patience = transfer.PATIENCE
        tries, pause = 0, patience.first_pause_seconds
        with requests.Session() as session:
            session.max_redirects = _MAX_REDIRECTS
            while True:
                before = partial.size
                try:
                    return self._try(session, partial, known_validator)
                except _PassingError as error:
                    if partial.size > before:
                        tries, pause = 0, patience.first_pause_seconds
                    tries += 1
                    if tries >= patience.tries:
                        raise UnavailableError(
                            f"{self.label} must answer; got {error} in {tries} tries. Try again later"
                        ) from error
                    seconds = max(error.pause_seconds, random.uniform(pause / 2, pause))  # noqa: S311 - spreads tries
                    log.warning("%s: %s, next try in %.1f s", self.name, error, seconds)
                    time.sleep(seconds)
                    pause = min(2 * pause, patience.longest_pause_seconds)

    def _try(self, session: requests.Session, partial: Partial, known_validator: str) -> Expected | None:
        headers = {"Accept-Encoding": "identity"}  # lengths and ranges must be those of the file
        start = partial.size if partial.validator else 0
        if start:
            headers |= {"Range": f"bytes={start}-", "If-Range": partial.validator}
        elif known_validator.startswith('"'):
            headers["If-None-Match"] = known_validator
        timeout = (transfer.PATIENCE.connect_seconds, transfer.PATIENCE.read_seconds)
        try:
            with session.get(self.url, headers=headers, auth=self.auth, timeout=timeout, stream=True) as response:
                return self._receive(response, partial, start, known_validator)
        except requests.exceptions.SSLError as error:
            raise ConfigurationError(
                f"{self.label} must have a certificate that this machine trusts; got {_cause(error)}"
            ) from None
        except requests.exceptions.TooManyRedirects:
            raise DataError(
                f"{self.label} must redirect at most {_MAX_REDIRECTS} times; got more. Check the URL"
            ) from None
        except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema, UnicodeError):
            raise ParameterError(f"source must be a valid URL; got {self.label}") from None
        except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError) as error:
            raise _PassingError(_cause(error)) from error

    def _receive(
        self, response: requests.Response, partial: Partial, start: int, known_validator: str
    ) -> Expected | None:
        steps = [r.url for r in (*response.history, response)]
        if any(a.startswith("https:") and b.startswith("http:") for a, b in pairwise(steps)):
            raise DataError(f"{self.label} must stay on https; got a redirect to http. Check the URL")
        status = response.status_code
        if status == 304:
            return None
        if status in (412, 416):  # what was kept belongs to no version the server has
            partial.discard()
            raise _PassingError(f"HTTP {status}")
        self._check_status(response)
        validator = _validator(response)
        if not start and validator and validator == known_validator:
            return None
        said = _said(response)
        if status == 206 and start:
            matched = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", ""))
            if not matched or int(matched[1]) != start or (validator and validator != partial.validator):
                partial.discard()
                raise _PassingError("a wrong range")
            num_bytes: int | None = int(matched[2])
        elif status == 200:
            partial.begin(validator)
            start, num_bytes = 0, said.num_bytes
        else:
            raise DataError(f"{self.label} must answer with the file; got HTTP {status}. Check the URL")
        if (num_bytes or 0) > MAX_BYTES:
            partial.discard()
            raise DataError(f"{self.label} must have at most {MAX_BYTES:,} bytes; got {num_bytes:,}")
        self._write(response, partial, start, num_bytes)
        return Expected(num_bytes=num_bytes, digests=said.digests)

    def _write(self, response: requests.Response, partial: Partial, start: int, num_bytes: int | None) -> None:
        progress = Progress(self.name, num_bytes, start)
        size = start
        with partial.path.open("ab") as file:
            # `read1` hands on what has arrived; a plain `read` would throw a part of a chunk away on a broken connection.
            while chunk := response.raw.read1(CHUNK_BYTES):
                size += len(chunk)
                if size > MAX_BYTES:
                    partial.discard()
                    raise DataError(f"{self.label} must have at most {MAX_BYTES:,} bytes; got more")
                file.write(chunk)
                progress.add(len(chunk))
        if num_bytes is not None and size < num_bytes:
            raise _PassingError(f"a connection that ended after {size:,} of {num_bytes:,} bytes")

    def _check_status(self, response: requests.Response) -> None:
        status = response.status_code
        if error := self.refused.get(status):
            raise error
        if status in _PASSING:
            wait = response.headers.get("Retry-After", "")
            raise _PassingError(f"HTTP {status}", min(float(wait), 60.0) if wait.isdecimal() else 0.0)
        if status in (401, 403, 407):
            raise PermissionDeniedError(f"{self.label} must be readable; got HTTP {status}. Ask its owner for access")
        if status in (404, 410):
            raise self.missing or ParameterError(f"source {self.label} must exist; got HTTP {status}. Check the URL")
        if status >= 400:
            raise UnavailableError(f"{self.label} must answer with the file; got HTTP {status}. Try again later")


def _validator(response: requests.Response) -> str:
    """Return what identifies this version of the file: a strong ETag, else the date with the length, else nothing."""
    etag = response.headers.get("ETag", "")
    if etag.startswith('"'):
        return etag
    return response.headers.get("Last-Modified", "")


def _said(response: requests.Response) -> Expected:
    """Return the length and digests in the headers of a whole answer."""
    length = response.headers.get("Content-Length", "")
    digests = {}
    # Cloud Storage's header; its digests are of the stored file, also in an answer to a range.
    for name, value in re.findall(r"(md5|crc32c)=([A-Za-z0-9+/]+=*)", response.headers.get("X-Goog-Hash", "")):
        digests[name] = hex_of_base64(value)
    if response.status_code == 200 and (value := response.headers.get("Content-MD5")):
        try:
            digests.setdefault("md5", hex_of_base64(value))
        except ValueError:
            log.warning("%s: a Content-MD5 that is none", redacted(response.url))
    return Expected(num_bytes=int(length) if length.isdecimal() else None, digests=digests)


def _cause(error: BaseException) -> str:
    """Return the innermost reason of a chain of exceptions as one short text."""
    text = str(error)
    while (
        inner := error.__cause__
        or error.__context__
        or next(iter(a for a in error.args if isinstance(a, BaseException)), None)
    ):
        error = inner
        text = str(error) or text
    return f"{type(error).__name__}: {text[:120]}"
