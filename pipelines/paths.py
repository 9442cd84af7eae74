"""Paths on the command line."""

from pathlib import Path
from typing import Any

import click


class UserPath(click.Path):
    """A path as `pathlib.Path`; a leading `~` is the home directory also where the shell leaves it, as in `--out=~/x`."""

    def __init__(self, **rules: Any) -> None:
        super().__init__(path_type=Path, **rules)

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> Any:
        """Expand, then check as click does."""
        try:
            return super().convert(Path(value).expanduser(), parameter, context)
        except RuntimeError:  # there is no such user
            return super().convert(value, parameter, context)
