"""What S3 clients read from the environment is checked first: boto3 prints values that it cannot send."""

import os
import re
from urllib.parse import urlsplit

from components.errors import ConfigurationError
from components.secret_values import checked_secret

ENDPOINTS = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3")
REGIONS = ("AWS_DEFAULT_REGION", "AWS_REGION")


def check_aws_environment() -> None:
    """Trim every AWS variable in place, and check those whose mistakes the client would not name.

    Raises:
        ConfigurationError: A variable cannot be used; names it, never a credential's value.
    """
    for name in sorted(os.environ):
        if name.startswith("AWS_"):
            os.environ[name] = checked_secret(os.environ[name], name)
    for name in ENDPOINTS:
        if value := os.environ.get(name):
            check_endpoint(name, value)
    for name in REGIONS:
        if (value := os.environ.get(name)) and not re.fullmatch(
            r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?", value
        ):
            raise ConfigurationError(f"{name} must be a region such as us-east-1; got something else. Correct it")


def check_endpoint(name: str, value: str) -> None:
    """Check the address of an S3 server.

    Args:
        name: Variable or field that gives it.
        value: The address.

    Raises:
        ConfigurationError: It is no http(s) URL, or carries a user or password.
    """
    try:
        parts = urlsplit(value)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or "@" in value:
        display_value = "one with a user or password" if "@" in value else repr(value)
        raise ConfigurationError(
            f"{name} must be a URL such as https://store.example.com:8333; got {display_value}. Correct it"
        )
