"""Reads objects of Google Cloud Storage, credentials from the environment."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from components.data.sources.bucket import PASSING_STATUS, Found, timeout, unexpected_answer
from components.data.sources.transfer import hex_of_base64
from components.errors import ConfigurationError, PermissionDeniedError
from components.secret_values import check_google_key

if TYPE_CHECKING:
    from google.cloud import storage


class GcsBucket:
    """A bucket of Google Cloud Storage, credentials from the environment."""

    def __init__(self, name: str) -> None:
        """Take a bucket's name; nothing is asked yet."""
        self.name = name
        self._client = None

    @property
    def _bucket(self):
        if self._client is None:
            from google.cloud import storage

            check_google_key()
            self._client = storage.Client()
        return self._client.bucket(self.name)

    def find(self, name: str) -> Found | None:
        """Return an object, or None."""
        blob = self._bucket.get_blob(name, timeout=timeout(), retry=None)
        return _found(blob) if blob else None

    def under(self, prefix: str, most: int) -> list[Found]:
        """Return the objects under a prefix, `most` at most."""
        blobs = self._bucket.list_blobs(prefix=prefix, max_results=most, timeout=timeout(), retry=None)
        return [_found(blob) for blob in blobs if not blob.name.endswith("/")]

    def read(self, name: str, version: str, start: int, end: int) -> bytes:
        """Return bytes `start` to `end` (exclusive) of one version of an object."""
        blob = self._bucket.blob(name)
        return blob.download_as_bytes(
            start=start,
            end=end - 1,
            raw_download=True,
            if_generation_match=int(version),
            checksum=None,  # ranges have none; the whole file is checked at the end
            timeout=timeout(),
            retry=None,
        )

    def is_passing(self, error: Exception) -> bool:
        """Tell whether a later repetition may succeed."""
        import requests
        import urllib3
        from google.api_core.exceptions import GoogleAPICallError
        from google.auth.exceptions import TransportError

        if isinstance(error, GoogleAPICallError):
            return error.code in PASSING_STATUS
        # A body that breaks off reaches us as urllib3's own error: the client reads it past requests.
        broken = (requests.exceptions.ConnectionError, requests.exceptions.Timeout, urllib3.exceptions.HTTPError)
        return isinstance(error, (*broken, requests.exceptions.ChunkedEncodingError, TransportError))

    @contextmanager
    def translated(self, what: str) -> Iterator[None]:
        """Turn the client's errors into the project's."""
        from google.api_core.exceptions import Forbidden, GoogleAPICallError, NotFound, Unauthorized
        from google.auth.exceptions import GoogleAuthError

        try:
            yield
        except (Forbidden, Unauthorized) as error:
            raise PermissionDeniedError(
                f"{what} must be readable; got {error.code}. Grant roles/storage.objectViewer on bucket {self.name}"
            ) from error
        except NotFound as error:
            raise ConfigurationError(f"bucket {self.name} of {what} must exist; got 404. Check the name") from error
        except GoogleAuthError as error:
            raise ConfigurationError(
                f"Google Cloud credentials must be there to read {what}; got {type(error).__name__}. Use Workload Identity,"
                " or run gcloud auth application-default login"
            ) from error
        except GoogleAPICallError as error:
            raise unexpected_answer(what, error.code) from error


def _found(blob: "storage.Blob") -> Found:
    digests = {"crc32c": hex_of_base64(blob.crc32c)} if blob.crc32c else {}
    if blob.md5_hash:
        digests["md5"] = hex_of_base64(blob.md5_hash)
    return Found(blob.name, blob.size, str(blob.generation), digests)
