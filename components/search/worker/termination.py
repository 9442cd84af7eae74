"""After SIGTERM the running trial is saved, and the process ends in time whatever it is doing."""

import logging
import os
import signal
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from components.errors import TerminatedError

log = logging.getLogger(__name__)


class Termination:
    """Notices SIGTERM while it is entered; does nothing outside the main thread, where Python allows no handlers.

    A thread waits on the wake-up pipe that the interpreter's own C handler writes to, so the deadline runs even while
    the main thread is deep in a training step.

    Args:
        seconds: From the signal to `os._exit(143)`, unless the process left before.
        announce: Called at once in the thread: whoever sent the signal may kill the process before its deadline. It must not
            wait for anything.
    """

    def __init__(self, seconds: float, announce: Callable[[], None]) -> None:
        self._seconds, self._announce = seconds, announce
        self._requested = threading.Event()
        self._left = threading.Event()

    def __enter__(self) -> Self:
        self._active = threading.current_thread() is threading.main_thread()
        if self._active:
            self._read_end, self._write_end = os.pipe()
            os.set_blocking(self._write_end, False)
            self._wakeup_before = signal.set_wakeup_fd(self._write_end, warn_on_full_buffer=False)
            self._handler_before = signal.signal(signal.SIGTERM, lambda *_: self._requested.set())
            self._thread = threading.Thread(target=self._watch, name="termination", daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._active:
            self._left.set()
            signal.signal(signal.SIGTERM, self._handler_before)
            signal.set_wakeup_fd(self._wakeup_before)
            os.close(self._write_end)
            self._thread.join()
            os.close(self._read_end)

    @property
    def requested(self) -> bool:
        """True once SIGTERM arrived."""
        return self._requested.is_set()

    def check(self) -> None:
        """Raise `TerminatedError` once SIGTERM arrived."""
        if self.requested:
            raise TerminatedError("worker must end now; got SIGTERM. Run again: what was finished is kept")

    def wait(self, seconds: float) -> None:
        """Sleep, but raise `TerminatedError` as soon as SIGTERM arrives."""
        self._requested.wait(seconds)
        self.check()

    def _watch(self) -> None:
        while signals := os.read(self._read_end, 64):
            if signal.SIGTERM in signals:
                self._requested.set()
                self._announce()
                if not self._left.wait(self._seconds):
                    log.error("SIGTERM: still busy after %g s, leaving now", self._seconds)
                    os._exit(TerminatedError.exit_code)
