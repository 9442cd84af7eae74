"""Pretrained weights from a file, a directory or a store; imports neither TensorFlow nor torch."""

import os
from pathlib import Path

from components.errors import ConfigurationError, FashionTuningError, PermissionDeniedError, exit_code_of
from components.stores import open_store


def read_weights(uri: str, *, suffixes: tuple[str, ...]) -> tuple[str, bytes]:
    """Return name and content of a weights file.

    Args:
        uri: A file, a directory that holds exactly one such file, or an object or prefix of a store (`gs://`, `s3://`).
        suffixes: Accepted endings, the first one preferred.

    Raises:
        PermissionDeniedError: It may not be read.
        ConfigurationError: There is no such file, or it cannot be read.
    """
    path = uri.removeprefix("file://")
    try:
        if "://" not in path:
            found = Path(path)
            if found.is_dir():
                found = found / _choose(uri, [p.name for p in found.iterdir()], suffixes)
            return found.name, found.read_bytes()
        parent, _, name = path.rstrip("/").rpartition("/")
        if not name.endswith(suffixes):
            parent, name = path, _choose(uri, open_store(path).list(), suffixes)
        return name, open_store(parent).read(name)
    except ConfigurationError:
        raise
    except (OSError, KeyError, FashionTuningError) as error:
        kind = PermissionDeniedError if exit_code_of(error) == os.EX_NOPERM else ConfigurationError
        raise kind(
            f"train_weights must name weights that can be read; got {uri!r}: {error}. "
            "Correct the URI, or leave train_weights empty to train from scratch"
        ) from error


def _choose(uri: str, names: list[str], suffixes: tuple[str, ...]) -> str:
    for suffix in suffixes:
        matching = sorted(name for name in names if name.endswith(suffix))
        if len(matching) == 1:
            return matching[0]
    raise ConfigurationError(
        f"train_weights must hold exactly one file ending in {', '.join(suffixes)}; got {uri!r} with "
        f"{len(names)} files. Name the file itself, or leave train_weights empty to train from scratch"
    )
