"""Ctrl-C and SIGTERM end a command in the same way, once; nothing interrupts what it must still do."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from components.errors import TerminatedError

ENDING = (signal.SIGINT, signal.SIGTERM)


class StoppedError(TerminatedError):
    """A signal asked the command to stop."""

    def __init__(self, number: int, message: str) -> None:
        self.exit_code = 128 + number
        super().__init__(message)


@contextmanager
def interrupted_once(error: Callable[[int], BaseException]) -> Iterator[None]:
    """Raise an error where the first signal arrives, and ignore all further ones: the process is about to end.

    Args:
        error: Makes it of the signal's number.
    """
    interrupted = False

    def interrupt(number: int, _frame: Any) -> None:
        nonlocal interrupted
        interrupted = True
        for other in ENDING:
            signal.signal(other, signal.SIG_IGN)
        raise error(number)

    before = {number: signal.signal(number, interrupt) for number in ENDING}
    try:
        yield
    finally:
        if not interrupted:
            for number, handler in before.items():
                signal.signal(number, handler)
