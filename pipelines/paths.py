"""These types check paths on the command line."""

import errno
import os
from pathlib import Path
from typing import Any

import click

from components.errors import PermissionDeniedError, StorageError, using


class UserPath(click.Path):
    """A path as `pathlib.Path`; a leading `~` is the home directory also where the shell leaves it, as in `--out=~/x`.

    Whether it may be read shows when it is read: click would call a missing permission a wrong option.
    """

    def __init__(self, **rules: Any) -> None:
        super().__init__(path_type=Path, readable=False, **rules)

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> Any:
        """Expand, then check as click does."""
        return super().convert(os.path.expanduser(value), parameter, context)  # noqa: PTH111 - keeps an unknown ~name


class OutputFile(UserPath):
    """A file to write at the end of a command, checked at its beginning: it must not fail after hours of work."""

    def __init__(self) -> None:
        super().__init__(dir_okay=False)

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> Any:
        """Check that it can be written."""
        path: Path = super().convert(value, parameter, context)
        name = parameter.opts[0] if parameter else "the output"
        rule = f"{name} must be a file that can be written; got {path}"
        with using(path):
            place = path if path.exists() else path.parent
            if not place.exists():
                raise StorageError(f"{rule}: there is no folder {place}. Correct the path")
            if not os.access(place, os.W_OK):
                if os.statvfs(place).f_flag & os.ST_RDONLY:
                    raise StorageError(f"{rule}: {os.strerror(errno.EROFS)}. Check the disk")
                raise PermissionDeniedError(f"{rule}: {place} may not be written. Change its owner or mode")
        return path
