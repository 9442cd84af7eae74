"""A test kills the process at these named points, so that it hits each stage of the protocol exactly."""

import os
import signal

_passed: dict[str, int] = {}


def failpoint(name: str) -> None:
    """Kill this process with SIGKILL at the n-th passing of the point that `FAIL_AT=<name>:<n>` names; else count it.

    Without the variable, which no image and no profile sets, this does nothing more.
    """
    _passed[name] = _passed.get(name, 0) + 1
    if os.environ.get("FAIL_AT") == f"{name}:{_passed[name]}":
        os.kill(os.getpid(), signal.SIGKILL)


def passed() -> dict[str, int]:
    """Return how often each point was passed in this process."""
    return dict(_passed)
