"""The notify step finds out how the run ended and tells a webhook. It never fails a run: its own errors are warnings in its log."""

import json
import logging
import os
import ssl
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import urllib3

from components.errors import FashionTuningError, one_line
from components.evaluation.kept import SUMMARY, result_key
from components.notification.event import make_event
from components.notification.templates import CONTENT_TYPES, body_of
from components.notification.webhook import WEBHOOK_VARIABLE, post, webhook_url
from components.notification.workflow import FailedNode, Workflow
from components.plan import RUN_ID_VARIABLE
from components.runtime import EVENTS_VARIABLE
from components.stores import ObjectNotFoundError, Store, open_store

log = logging.getLogger(__name__)

TOTAL_SECONDS, STORE_SECONDS, TIMEOUT = 120.0, 20.0, urllib3.Timeout(connect=5.0, read=20.0)
"""Most that the step takes; how long the store is asked again; seconds to connect to Kubernetes, and to wait for it."""
ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


def notify_step(run_id: str, study_root: str, settings: dict[str, str]) -> None:
    """Tell the webhook how a run ended, once, in bounded time.

    kfp's final status is not asked: Kubeflow 2.17 leaves its error empty, and calls a run whose pod was killed running.

    Args:
        run_id: Kubeflow's run UUID.
        study_root: Where the run's results are kept.
        settings: `format`, one of `templates.FORMATS`, and `link`, the page of a run with `{run}` for its id.
    """
    work = threading.Thread(target=_notify, args=(run_id, study_root, settings), daemon=True)
    work.start()
    work.join(TOTAL_SECONDS)
    if work.is_alive():
        log.warning("the webhook was not told how the run ended: that took more than %g s", TOTAL_SECONDS)


def _notify(run_id: str, study_root: str, settings: dict[str, str]) -> None:
    run_id = os.environ.get(RUN_ID_VARIABLE) or run_id
    summary, store, state = None, None, "ended"
    try:
        try:
            store = open_store(study_root).with_deadline(STORE_SECONDS)
            summary = _read_summary(store, run_id)
            state = "succeeded" if summary else "failed"
        except FashionTuningError as error:
            store = None
            log.warning("the run's results cannot be read: %s", one_line(error))
        failures = () if summary else _failures(run_id)
        event = make_event(
            run_id=run_id,
            study_root=study_root,
            state="failed" if failures else state,
            summary=summary,
            failures=failures,
            link=settings.get("link", "").replace("{run}", run_id),
        )
        tell(event, settings.get("format", ""), store)
    except Exception as error:  # the edge of this step, which fails nothing
        log.warning("the webhook was not told how the run ended: %s", one_line(error))


def _read_summary(store: Store, run_id: str) -> dict[str, Any] | None:
    """Return the `summary.json` that the last step of a run keeps; None where the run did not get there."""
    try:
        return json.loads(store.read(result_key(run_id, SUMMARY)))
    except ObjectNotFoundError:
        return None


def tell(event: dict[str, Any], message_format: str, store: Store | None = None) -> None:
    """Send the message, unless the store knows that it was sent: a step whose pod is lost at its end runs again.

    Args:
        event: What `make_event` returned.
        message_format: One of `templates.FORMATS`.
        store: Where it is noted that the message was sent; None to send in any case.

    Raises:
        FashionTuningError: It cannot be sent; no text has the address.
    """
    state = event["data"]["state"]
    if not (url := webhook_url()):
        log.warning("no webhook is told how the run ended: %s is not set", WEBHOOK_VARIABLE)
        return
    sent = result_key(event["subject"], f"notified-{state}.json")
    if store is not None and sent in store.list(sent):
        log.info("the message that this run %s was sent before", state)
        return
    body = json.dumps(body_of(event, message_format), ensure_ascii=False).encode()
    post(url, body, CONTENT_TYPES.get(message_format, "application/json"))
    log.info("told the webhook that the run %s", state)
    if store is not None:
        try:
            store.create(sent, json.dumps({"schema": 1, "id": event["id"], "time": event["time"]}).encode())
        except FashionTuningError as error:
            log.warning("a repetition of this step would send the message again: %s", one_line(error))


def _failures(run_id: str) -> Sequence[FailedNode]:
    """Return what made the run fail, as a local run's steps reported it or as Kubernetes has it."""
    if path := os.environ.get(EVENTS_VARIABLE):
        return failed_events(Path(path))
    try:
        return _workflow(run_id).failed_nodes()
    except (urllib3.exceptions.HTTPError, OSError, ValueError, KeyError, IndexError, TypeError) as error:
        log.warning("which step failed cannot be read from Kubernetes: %s", type(error).__name__)
        return ()


def failed_events(path: Path) -> Sequence[FailedNode]:
    """Return the steps that failed, of the file to which a local run's steps report."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else ()
    events = [json.loads(line) for line in lines]
    return [FailedNode(e["step"], f"ERROR {e['code']} {e['message']}") for e in events if e["event"] == "failed"]


def _workflow(run_id: str) -> Workflow:
    """Return the run's workflow, asked for with the pod's own service account."""
    namespace = (ACCOUNT / "namespace").read_text(encoding="utf-8").strip()
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
    # As strictly as Python before 3.13: the authorities of many clusters lack an extension that it asks for since.
    context = ssl.create_default_context(cafile=ACCOUNT / "ca.crt")
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    with urllib3.PoolManager(ssl_context=context, timeout=TIMEOUT, retries=False) as pool:
        answer = pool.request(
            "GET",
            f"https://{f'[{host}]' if ':' in host else host}:{port}/apis/argoproj.io/v1alpha1/namespaces/{namespace}/workflows",
            fields={"labelSelector": f"pipeline/runid={run_id}"},
            headers={"Authorization": f"Bearer {(ACCOUNT / 'token').read_text(encoding='utf-8').strip()}"},
        )
    if answer.status != 200:
        raise urllib3.exceptions.HTTPError(f"status {answer.status}")
    return Workflow(answer.json()["items"][0])
