"""This module sends a message to a webhook, whose address is a secret: no text, log or error made here contains it."""

import logging
import time
from urllib.parse import urlsplit

import requests

from components.errors import ConfigurationError, UnavailableError
from components.secret_values import secret_variable

WEBHOOK_VARIABLE = "FASHION_TUNING_WEBHOOK_URL"
"""Environment variable with the address."""
TRIES, PAUSE_SECONDS, TIMEOUT = 3, 2.0, (5.0, 10.0)
"""The second pause is twice the first; seconds to connect, and to wait for an answer."""
_PASSING = (408, 425, 429, 500, 502, 503, 504)


def webhook_url() -> str:
    """Return the webhook's address; "" where there is none.

    Raises:
        ConfigurationError: It cannot be an address; names the variable.
    """
    url = secret_variable(WEBHOOK_VARIABLE)
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and " " not in url
    except ValueError:
        good = False
    if url and not good:
        raise ConfigurationError(f"{WEBHOOK_VARIABLE} must be an http(s) URL; got something else. Correct the secret")
    return url


def post(url: str, body: bytes, content_type: str) -> None:
    """Send a message, again where that may help; redirections are not followed.

    Args:
        url: What `webhook_url` returned.
        body: What to send.
        content_type: Content type of the body.

    Raises:
        UnavailableError: It was not taken.
    """
    # urllib3 tells its log the path of every request.
    logging.getLogger("urllib3.connectionpool").setLevel(logging.CRITICAL)
    said = ""
    for attempt in range(TRIES):
        if attempt:
            time.sleep(PAUSE_SECONDS * attempt)
        try:
            said = _post(url, body, content_type)
        except (requests.RequestException, OSError, ValueError) as error:
            said = type(error).__name__  # its text has the address
        else:
            if not said.startswith(tuple(map(str, _PASSING))):
                break
    if said:
        raise UnavailableError(f"the webhook must take the message; got {said}. Check the receiver and the secret")


def _post(url: str, body: bytes, content_type: str) -> str:
    """Return the status where the message was refused, "" where it was taken."""
    headers = {"Content-Type": content_type}
    # What it says is not read: it may be long, and slow to come.
    with requests.post(url, data=body, headers=headers, timeout=TIMEOUT, allow_redirects=False, stream=True) as answer:
        return "" if 200 <= answer.status_code < 300 else f"{answer.status_code}"
