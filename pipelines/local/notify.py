"""A local run reports its end to a webhook, where its command asks for that."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from components.errors import ConfigurationError, FashionTuningError, one_line
from components.notification.event import make_event
from components.notification.step import failed_events, tell
from components.notification.webhook import WEBHOOK_VARIABLE, webhook_url
from components.notification.workflow import FailedNode

log = logging.getLogger(__name__)


@contextmanager
def notifying(out: Path, run_id: str, study_root: str, message_format: str) -> Iterator[None]:
    """Tell the webhook how the run inside the block ended; a failure to do so is a warning.

    Here and not in the graph: a step that fails ends a local run at once, before a last step could start.

    Args:
        out: The run's folder, with `events.jsonl` and at last `summary.json`.
        run_id: Names the run.
        study_root: Where its studies are.
        message_format: One of `templates.FORMATS`.

    Raises:
        ConfigurationError: There is no address to send to.
    """
    if not webhook_url():
        raise ConfigurationError(
            f"--notify needs the webhook's URL; got no {WEBHOOK_VARIABLE}. Set it, or leave --notify out"
        )
    try:
        yield
    except FashionTuningError as error:
        failures = failed_events(out / "events.jsonl") or [FailedNode("run", one_line(error))]
        _tell(message_format, run_id=run_id, study_root=study_root, state="failed", failures=failures)
        raise
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    _tell(message_format, run_id=run_id, study_root=study_root, state="succeeded", summary=summary)


def _tell(message_format: str, **what: Any) -> None:
    try:
        tell(make_event(**what), message_format)
    except FashionTuningError as error:
        log.warning("the webhook was not told how the run ended: %s", one_line(error))
