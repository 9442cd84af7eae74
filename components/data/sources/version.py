"""When did a source change? A cheap answer, so that a cached ingest is reused exactly as long as its data is the same."""

import hashlib
import logging
import os
from pathlib import Path
from urllib.parse import urlsplit

from components.dataset_name import FASHION_MNIST, local_path, object_name

log = logging.getLogger(__name__)

UNKNOWN = ""
"""The source cannot tell; the caller must then take the data as changed."""


def source_version(name: str, source: str) -> str:
    """Return a text that differs whenever the source's data does, or `UNKNOWN`.

    Args:
        name: As `parse_dataset` returned it.
        source: Likewise. Files are judged by name, size and modification time, objects by generation or ETag.
    """
    if not source:
        return "published" if name == FASHION_MNIST else UNKNOWN
    path = local_path(source)
    if path is not None:
        return _of_files(path)
    if urlsplit(source).scheme in ("http", "https"):
        return _of_url(source)
    if urlsplit(source).scheme == "gs":
        return _of_objects(source)
    return UNKNOWN


def _of_files(path: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        status = file.stat() if file.exists() else file.lstat()  # a link may lead to nothing
        digest.update(os.fsencode(file.name) + f"\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


def _of_url(url: str) -> str:
    import requests

    try:
        answer = requests.head(url, timeout=10, allow_redirects=True)
        return answer.headers.get("ETag") or answer.headers.get("Last-Modified") or UNKNOWN if answer.ok else UNKNOWN
    except requests.RequestException as error:
        log.info("version of %s is unknown: %s", urlsplit(url).hostname, type(error).__name__)
        return UNKNOWN


def _of_objects(uri: str) -> str:
    from google.api_core.exceptions import GoogleAPIError
    from google.auth.exceptions import GoogleAuthError
    from google.cloud import storage

    parts = urlsplit(uri)
    digest, found = hashlib.sha256(), False
    try:
        for blob in storage.Client().list_blobs(parts.netloc, prefix=object_name(uri), timeout=20):
            digest.update(f"{blob.name}\0{blob.generation}\n".encode())
            found = True
    except (GoogleAPIError, GoogleAuthError, OSError) as error:
        log.info("version of gs://%s is unknown: %s", parts.netloc, type(error).__name__)
        return UNKNOWN
    return digest.hexdigest()[:16] if found else UNKNOWN
