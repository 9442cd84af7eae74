"""A template gives the message the form that its receiver reads: the CloudEvent itself, Slack's or Microsoft Teams'.

Source: https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks,
https://learn.microsoft.com/microsoftteams/platform/webhooks-and-connectors/how-to/connectors-using
"""

from typing import Any

from components.notification.event import lines_of, title_of

FORMATS = ("cloudevents", "slack", "teams")
CONTENT_TYPES = {"cloudevents": "application/cloudevents+json"}
"""By format; any other is plain JSON."""


def body_of(event: dict[str, Any], message_format: str) -> dict[str, Any]:
    """Return the message's body.

    Args:
        event: What `make_event` returned.
        message_format: One of `FORMATS`.
    """
    return {"slack": _slack, "teams": _teams}.get(message_format, lambda whole: whole)(event)


def _slack(event: dict[str, Any]) -> dict[str, Any]:
    def escaped(text: str) -> str:
        # Slack's three control characters; with `mrkdwn` no other sign of a text means anything to it.
        return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")

    link = event["data"]["link"]
    lines = [title_of(event), *(f"{label}: {text}" for label, text in lines_of(event)), *([link] if link else ())]
    return {"text": escaped("\n".join(lines)), "mrkdwn": False}


def _teams(event: dict[str, Any]) -> dict[str, Any]:
    link = event["data"]["link"]
    color = "Good" if event["data"]["state"] == "succeeded" else "Attention"
    card = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "body": [
            {"type": "TextBlock", "text": title_of(event), "weight": "Bolder", "color": color, "wrap": True},
            {"type": "FactSet", "facts": [{"title": label, "value": text} for label, text in lines_of(event)]},
        ],
        **({"actions": [{"type": "Action.OpenUrl", "title": "Open the run", "url": link}]} if link else {}),
    }
    attachment = {"contentType": "application/vnd.microsoft.card.adaptive", "contentUrl": None, "content": card}
    return {"type": "message", "attachments": [attachment]}
