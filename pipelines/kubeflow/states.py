"""What a run's state means: the server's words, and what it does not say outright."""

from typing import Any

FINISHED = ("SUCCEEDED", "FAILED", "SKIPPED", "CANCELED")
"""States that a run never leaves, unless somebody repeats it. The SDK's own wait does not know CANCELED."""
_UNKNOWN = (None, "", "RUNTIME_STATE_UNSPECIFIED")


def is_cancelled(run: Any) -> bool:
    """Return whether somebody cancelled a run: the server ends it as FAILED, with CANCELING as the state before.

    A run that was cancelled and then repeated has an older CANCELING.
    """
    if run.state != "FAILED":
        return run.state == "CANCELED"
    before = [status.state for status in run.state_history or [] if status.state not in (*_UNKNOWN, "FAILED")]
    return bool(before) and before[-1] == "CANCELING"


def is_archived(resource: Any) -> bool:
    """Return whether somebody archived a run or an experiment."""
    return resource.storage_state == "ARCHIVED"


def state_of(run: Any) -> str:
    """Return a run's state in one word; a run that nothing has looked at yet has none, and is pending."""
    return "canceled" if is_cancelled(run) else "pending" if run.state in _UNKNOWN else run.state.lower()


def can_be_taken_up(run: Any, *, finished_too: bool) -> bool:
    """Return whether `submit` may go on with a run instead of starting another one.

    Args:
        run: The run.
        finished_too: Whether one that has succeeded will do.
    """
    works = run.state not in (*FINISHED, "CANCELING")
    return not is_archived(run) and (works or (finished_too and run.state == "SUCCEEDED"))
