"""A CloudEvent describes how a run ended.

Source: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from components.evaluation.cost import cost_text
from components.evaluation.kept import REPORT, result_key
from components.notification.workflow import FailedNode
from components.text import clean, duration

SCHEMA = 1


def make_event(
    *,
    run_id: str,
    study_root: str,
    state: str,
    summary: dict[str, Any] | None = None,
    failures: Sequence[FailedNode] = (),
    link: str = "",
) -> dict[str, Any]:
    """Return the event that a run ended.

    Its `id` is the same whenever the same end of the same run is told, so that a receiver knows a repetition.

    Args:
        run_id: The run's id.
        study_root: Where its results are kept.
        state: `succeeded`, `failed`, or `ended` where it is not known.
        summary: `summary.json` as the promote step kept it; None where the run ended before.
        failures: What made the run fail.
        link: Page of the run; "" for none.
    """
    data: dict[str, Any] = {"schema": SCHEMA, "state": state, "run": run_id, "link": link, "study_root": study_root}
    if summary:
        data["report"] = f"{study_root}/{result_key(run_id, REPORT)}"
        data["datasets"] = {name: _dataset(part) for name, part in summary["datasets"].items()}
        data["cost"] = _cost(summary)
    if state == "failed":
        data["failures"] = [{"step": node.name, "message": node.message} for node in failures]
    return {
        "specversion": "1.0",
        "id": f"{run_id}-{state}",
        "source": quote(study_root, safe=":/"),
        "type": f"fashion-tuning.run.{state}",
        "subject": run_id,
        "time": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "datacontenttype": "application/json",
        "data": data,
    }


def title_of(event: dict[str, Any]) -> str:
    """Return what happened in one line of text."""
    return f"fashion-tuning: run {clean(event['subject'], 80)} {event['data']['state']}"


def lines_of(event: dict[str, Any]) -> list[tuple[str, str]]:
    """Return what follows the title as pairs of a label and a text, without any markup."""
    data, lines = event["data"], []
    for name, part in data.get("datasets", {}).items():
        lines.append((clean(name, 100), clean(part["verdict"])))
        lines.append(("Champion", clean(f"{part['decision']}. {part['reason']}")))
        lines += [("Data drift", clean(warning)) for warning in part["drift"]]
    for failure in data.get("failures", ()):
        lines.append((f"Failed in {clean(failure['step'], 100)}", clean(failure["message"] or "it said nothing")))
    if data["state"] == "failed" and not data["failures"]:
        lines.append(("Failed", "which step it was cannot be read from here"))
    if data["state"] == "ended":
        lines.append(("Result", "how the run ended cannot be read from here"))
    if "cost" in data:
        money = f", about {cost_text(data['cost'])}" if "amount" in data["cost"] else ""
        lines.append(("Cost", f"{duration(data['cost']['device_seconds'])} of device time{money}"))
    if "report" in data:
        lines.append(("Report", data["report"]))
    return lines


def _dataset(part: dict[str, Any]) -> dict[str, Any]:
    comparison, champion = part["comparison"], part["champion"]
    return {
        "verdict": comparison["verdict"],
        "winner": comparison["winner"],
        "accuracy": {name: figures["accuracy"] for name, figures in part["approaches"].items()},
        "decision": champion["decision"],
        "reason": champion.get("reason", ""),
        "champion_version": champion["version"],
        "drift": part["data"].get("drift", []),
    }


def _cost(summary: dict[str, Any]) -> dict[str, Any]:
    if "cost" in summary:
        return summary["cost"]
    approaches = [figures for part in summary["datasets"].values() for figures in part["approaches"].values()]
    return {"device_seconds": round(sum(sum(figures["device_seconds"].values()) for figures in approaches), 1)}
