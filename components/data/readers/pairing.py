"""Joins a table with the images it names."""

import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from components.data.examples import Members, RawDataset
from components.data.findings import Findings
from components.data.readers.labels import Table
from components.data.readers.packing import decode_members
from components.data.readers.subset import stratified_subset
from components.errors import DataError
from components.text import escaped

MAX_ATTRIBUTE_VALUES = 1000
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif")

_NUM_SPLITS = 3
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:(?!\\)|//")
_ABSOLUTE = re.compile(r"/|[A-Za-z]:")


class ElsewhereError(Exception):
    """A path leads to a place outside the source; the text says which kind of path it is."""


class ImageNames:
    """Finds a source's files by the paths that tables hold.

    A path counts from the folder of the description, or from the top. Backslashes, a leading `./` or `/`, another Unicode
    form and, where only one file fits, another case (`.JPG`) make no difference.
    """

    def __init__(self, members: Members, root: str) -> None:
        """Take a source's names and the folder (with its slash) that paths count from."""
        self._names, self._root = set(members.names), root
        path = getattr(members, "path", None)
        self._base = f"{path.as_posix()}/" if path is not None else ""
        self._folded: dict[str, str] = {}

    def find(self, text: str) -> str | None:
        """Return the file that a path means, or None where there is none.

        Raises:
            ElsewhereError: It is a URL, or an absolute path to another place.
        """
        path = unicodedata.normalize("NFC", text).strip().replace("\\", "/")
        if not path:
            return None
        if file := self._look_up(path.removeprefix(self._base) if self._base else path):
            return file
        if _URL.match(text.strip()) and not re.match(r"[A-Za-z]:", text.strip()):
            raise ElsewhereError("image is a URL, not a file of the source")
        if _ABSOLUTE.match(path):
            raise ElsewhereError("image is an absolute path, not a file of the source")
        return None

    def _look_up(self, path: str) -> str | None:
        while path.startswith("./"):
            path = path[2:]
        tries = [self._root + path, path]
        if path.startswith("/"):
            tries += [self._root + path.lstrip("/"), path.lstrip("/")]
        for name in tries:
            if name in self._names:
                return name
        if not self._folded:
            for name in self._names:
                key = name.casefold()
                self._folded[key] = "" if key in self._folded else name
        return next((file for name in tries if (file := self._folded.get(name.casefold()))), None)


def stray_files(members: Members, used: Iterable[str]) -> list[str]:
    """Return the files of a source that are not used, in order."""
    used_names = set(used)
    return sorted(name for name in members.names if name not in used_names)


def pair(
    members: Members,
    table: Table,
    images: dict[str, str],
    size: tuple[int, int],
    findings: Findings,
    scratch: Path,
    *,
    limit: int,
) -> RawDataset:
    """Join a table with its images and decode them.

    Args:
        members: Holds the images.
        table: Ids and labels.
        images: Member name of each id's image.
        size: Height and width of the result, pixels.
        findings: What was found so far; receives the rest.
        scratch: Folder for the packed images.
        limit: Examples to decode at most, stratified by class; 0 decodes all.

    Raises:
        DataError: Too many rows have no image, or the other way round, too many images are unusable, or an attribute
            has too many values.
    """
    order = sorted((n for n, i in enumerate(table.ids) if i in images), key=lambda n: id_order(table.ids[n]))
    if limit:
        chosen = stratified_subset(
            [table.labels[n] for n in order], [table.ids[n] for n in order], limit, least=_NUM_SPLITS
        )
        order = [order[n] for n in chosen]
    names = [images[table.ids[n]] for n in order]
    num_quarantined = len(findings.quarantined)
    pixels, usable, digests = decode_members(members, names, size, findings, scratch)
    try:
        unusable = findings.quarantined[num_quarantined:]
        findings.check_fraction("unusable images", len(unusable), len(names), first=unusable)
        kept = [order[n] for n in np.flatnonzero(usable)]
        labels, classes = _numbered([table.labels[n] for n in kept])
        attributes = {name: _numbered([values[n] for n in kept]) for name, values in sorted(table.attributes.items())}
        for name, (_, values) in attributes.items():
            if len(values) > MAX_ATTRIBUTE_VALUES:
                raise DataError(
                    f"attribute {escaped(name)} must have at most {MAX_ATTRIBUTE_VALUES:,} values; got {len(values):,}. "
                    "Name a column of kinds rather than of names"
                )
    except BaseException:
        pixels.close()
        raise
    rows = np.flatnonzero(usable)
    return RawDataset(
        images=pixels,
        rows=rows,
        labels=labels,
        classes=classes,
        ids=np.array([table.ids[n] for n in kept], object),
        digests=digests[rows],
        official_test=None,
        checksums={},
        findings=findings,
        attributes=np.stack([numbers for numbers, _ in attributes.values()], axis=1) if attributes else None,
        attribute_values={name: values for name, (_, values) in attributes.items()},
    )


def id_order(key: str) -> tuple[int, str]:
    """Sort ids as numbers where they are numbers."""
    return (int(key) if key.isdecimal() else 10**9, key)


def _numbered(names: list[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return each name's number (N,) int64 and the names in that order; an empty name has no number and gives -1."""
    values = tuple(sorted(set(names) - {""}))
    number = {name: k for k, name in enumerate(values)} | {"": -1}
    return np.array([number[name] for name in names], np.int64), values
