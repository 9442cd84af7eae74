"""A source's files are read by name; this module decides which names are offered and how much may be read."""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from components.data.examples import Members
from components.errors import DataError
from components.text import escaped

_COMPANIONS = {".ds_store", "thumbs.db", "desktop.ini"}
_UNSAFE = re.compile(r"(?:^|/)\.\.(?:/|$)|^/|^[A-Za-z]:|[\x00-\x1f]")
_SURROGATE = re.compile("[\ud800-\udfff]")
MAX_NAME_LENGTH = 1_000


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of a source's size; the values are those of the project's threat model.

    Attributes:
        num_members: Files in it.
        member_bytes: Unpacked size of one file.
        total_bytes: Unpacked size of all files of an archive.
        ratio: Unpacked to packed size of a file of more than `free_bytes`.
        free_bytes: Up to here a file may be packed as tightly as it likes: pictures of one colour are.
    """

    num_members: int = 5_000_000
    member_bytes: int = 512 * 2**20
    total_bytes: int = 2**42
    ratio: int = 200
    free_bytes: int = 2**22


class Names:
    """Collects the names of a source's files, each in one form: composed (NFC), with `/`, without a leading `./`.

    Attributes:
        offered: What a reader may ask for, in the source's order.
        num_companions: Files that systems leave beside the data, such as `.DS_Store`; reports do not list them.
        refused: Reason by name, for files that no reader gets.
    """

    def __init__(self) -> None:
        self.offered: dict[str, None] = {}
        self.num_companions = 0
        self.refused: dict[str, str] = {}

    def add(self, raw: str) -> str | None:
        """Add a file's raw name; return the name under which it is offered, or None if it is refused."""
        name = unicodedata.normalize("NFC", raw).replace("\\", "/")
        while name.startswith("./"):
            name = name[2:]
        parts = name.split("/")
        if parts[-1].startswith("._") or parts[-1].lower() in _COMPANIONS or "__MACOSX" in parts:
            self.num_companions += 1
        elif _SURROGATE.search(name):
            self.refuse(raw, "its name is no UTF-8")
        elif _UNSAFE.search(name) or len(name) > MAX_NAME_LENGTH:
            self.refuse(raw, "its name leads out of the source or holds control characters")
        elif name in self.offered:
            self.refuse(raw, "another file has the same name")
            return name
        else:
            self.offered[name] = None
            return name
        return None

    def refuse(self, raw: str, reason: str) -> None:
        """Record a file that is not offered to readers."""
        self.refused[raw.encode("utf-8", "backslashreplace").decode()] = reason


def find_root(names: Iterable[str], wanted: str) -> str | None:
    """Return the folder (with its slash) that holds a file: the source itself, else the only one with it below the top.

    Raises:
        DataError: Several folders of the same depth hold it.
    """
    candidates = [name for name in names if name == wanted or (name.endswith("/" + wanted) and name.count("/") <= 2)]
    depth = min((name.count("/") for name in candidates), default=0)
    roots = sorted(name.removesuffix(wanted) for name in candidates if name.count("/") == depth)
    if len(roots) > 1:
        raise DataError(
            f"the source must hold {wanted} once; got it in {escaped(roots[0])} and {escaped(roots[1])}. Point at one of them"
        )
    return roots[0] if roots else None


class JoinedMembers:
    """Several sources as one; see `Members`."""

    def __init__(self, parts: Sequence[Members]) -> None:
        """Take sources over; they are closed with this one."""
        self._parts = parts
        names = Names()
        self._of: dict[str, Members] = {}
        for part in parts:
            for name in part.names:
                if names.add(name) is not None and name not in self._of:
                    self._of[name] = part
        self.names = list(self._of)
        self.num_companions = sum(part.num_companions for part in parts)
        self.refused = {name: reason for part in parts for name, reason in part.refused.items()} | names.refused

    @property
    def digests(self) -> dict[str, bytes]:
        """SHA-256 of the files that were read outside of archives."""
        return {name: digest for part in self._parts for name, digest in part.digests.items()}

    def read(self, name: str) -> bytes:
        """Return a file; see `Members`."""
        return self._of[name].read(name)

    def close(self) -> None:
        """Close all of them."""
        for part in self._parts:
            part.close()
