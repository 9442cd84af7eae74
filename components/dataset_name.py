"""A run names a dataset as `NAME` or `NAME=SOURCE`; this module checks the name without opening anything big."""

import os
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from components.buckets import BUCKET_STORES
from components.errors import ParameterError

FASHION_MNIST, FASHION_PRODUCTS = "fashion-mnist", "fashion-products"
KNOWN = (FASHION_MNIST, FASHION_PRODUCTS)
"""Datasets that need no source: their publishers are known."""

KAGGLE = "kaggle"
SCHEMES = ("file", "http", "https", *BUCKET_STORES)

_NAME = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*")
_MAX_NAME = 40  # study names and Kubernetes labels are made of it
_MAX_SOURCE = 2000
_PIN = re.compile(r"sha256=[0-9a-f]{64}")


def parse_dataset(dataset: object) -> tuple[str, str]:
    """Take `NAME` or `NAME=SOURCE` apart and check its form.

    Args:
        dataset: For example `fashion-mnist` or `shoes=gs://bucket/shoes.zip`.

    Returns:
        Name and source; the source is empty where the dataset's publisher is meant.

    Raises:
        ParameterError: Lists every problem.
    """
    if not isinstance(dataset, str):
        raise ParameterError(f"dataset must be text such as fashion-mnist=DIR; got a {type(dataset).__name__}")
    name, equals, source = dataset.partition("=")
    problems = []
    if not _NAME.fullmatch(name) or len(name) > _MAX_NAME:
        problems.append(
            f"dataset name must be lower-case letters, digits and single hyphens, at most {_MAX_NAME}; got {quoted(name)}"
        )
    elif not equals and name not in KNOWN:
        problems.append(
            f"dataset {name} must come with a source, as {name}=SOURCE; only {' and '.join(KNOWN)} have one of their own"
        )
    elif equals:
        problems += _source_problems(name, source)
    if problems:
        raise ParameterError(problems)
    return name, source


def local_path(source: str) -> Path | None:
    """Return the path a source means on this machine, or None where it is remote."""
    parts = urlsplit(source)
    if source == KAGGLE or (parts.scheme in SCHEMES and parts.scheme != "file"):
        return None
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    return Path(os.path.expanduser(source))  # noqa: PTH111 - keeps an unknown ~name


def object_name(uri: str) -> str:
    """Return the name of the object or prefix that a `gs://` or `s3://` URI means, its percent-encoding undone."""
    return unquote(urlsplit(uri).path).lstrip("/")


def pinned_digest(source: str) -> str:
    """Return the SHA-256 that a URI ends in as `#sha256=...`, or nothing."""
    fragment = urlsplit(source).fragment if "://" in source else ""
    return fragment.removeprefix("sha256=") if _PIN.fullmatch(fragment) else ""


def redacted(source: str) -> str:
    """Return the source without user, password, query or fragment: what reports and logs may show."""
    parts = urlsplit(source)
    if parts.scheme not in SCHEMES:
        return source
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}"


def quoted(value: str) -> str:
    """Return a name or source as messages may show it: quoted, short, and without user, password and query."""
    value = re.sub(r"//[^/]*@", "//***@", value)
    if "://" in value:
        value = re.sub(r"\?.*", "?***", value, flags=re.DOTALL)
    text = value if len(value) <= 80 else value[:77] + "..."
    return repr(text)


def redacted_dataset(dataset: str) -> str:
    """Return `NAME` or `NAME=SOURCE` with the source redacted: what everything but the fetching step may know."""
    name, equals, source = dataset.partition("=")
    return f"{name}={redacted(source)}" if equals else name


def _source_problems(name: str, source: str) -> list[str]:
    if not source.strip():
        return [f"source of {name} must not be empty; leave the = out to mean the publisher"]
    if len(source) > _MAX_SOURCE or not source.isprintable():
        return [f"source of {name} must be at most {_MAX_SOURCE} printable characters; got {quoted(source)}"]
    if source == KAGGLE:
        return [] if name in KNOWN else [f"source kaggle must be used with {' or '.join(KNOWN)}; got {name}"]
    try:
        parts = urlsplit(source)
    except ValueError:
        return [f"source of {name} must be a path or URL; got {quoted(source)}"]
    if "://" not in source:
        return []
    if "\\" in source or " " in source:
        return [
            f"source of {name} must be a URL without spaces and backslashes; got {quoted(source)}. Write a space as %20"
        ]
    if parts.scheme not in SCHEMES:
        return [
            f"source of {name} must be a path or start with {', '.join(f'{s}://' for s in SCHEMES)}; got {quoted(source)}"
        ]
    problems = []
    if parts.scheme == "file" and parts.netloc not in ("", "localhost"):
        problems.append(f"source of {name} must have three slashes, as file:///data; got {quoted(source)}")
    if parts.scheme != "file" and not parts.netloc:
        problems.append(
            f"source of {name} must name a {'host' if 'http' in parts.scheme else 'bucket'}; got {quoted(source)}"
        )
    if "@" in parts.netloc:
        problems.append(
            f"source of {name} must not carry a user or password; got {quoted(redacted(source))}. Mount a secret"
        )
    if parts.fragment and not _PIN.fullmatch(parts.fragment):
        problems.append(
            f"source of {name} must end in #sha256= and 64 hex digits, or have no #; got #{quoted(parts.fragment)}. Write a #"
            " in a name as %23"
        )
    if parts.scheme in BUCKET_STORES:
        if "?" in source.partition("#")[0]:
            problems.append(f"source of {name} must have no query; got {quoted(source)}. Write a ? in a name as %3F")
        try:
            usable = unquote(parts.path, errors="strict").isprintable()
        except UnicodeDecodeError:
            usable = False
        if not usable:
            problems.append(
                f"source of {name} must be a percent-encoded name in UTF-8; got {quoted(source)}. Correct it"
            )
    return problems
