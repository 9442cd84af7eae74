"""Secrets from the environment or from files are trimmed where that is safe and refused where they cannot be right.

`kubectl create secret --from-file` and `echo` leave a line break at a value's end; a pasted value may have one inside. HTTP
clients put such a value into the text of their errors, so it must not reach them. No text made here contains a value.
"""

import json
import os
from pathlib import Path

from components.errors import ConfigurationError

GOOGLE_KEY = "GOOGLE_APPLICATION_CREDENTIALS"


def secret_variable(name: str) -> str:
    """Return an environment variable's value without white space around it; "" where it is not set.

    Raises:
        ConfigurationError: The value cannot be sent; names the variable.
    """
    return checked_secret(os.environ.get(name, ""), name)


def secret_file(path: Path, name: str) -> str:
    """Return a secret file's text without white space around it; UTF-8 and UTF-16, with or without a byte order mark.

    Args:
        path: The file.
        name: What names it in errors, for example the variable with the path, whose value may be a secret by mistake.

    Raises:
        FileNotFoundError: There is no such file.
        NotADirectoryError: A part of the path is a file.
        ConfigurationError: It cannot be read, or is no text.
    """
    try:
        data = path.read_bytes()
        return data.decode(json.detect_encoding(data)).strip().removeprefix("\ufeff")
    except (FileNotFoundError, NotADirectoryError):
        raise
    except OSError as error:
        raise ConfigurationError(f"{name} must be a readable file; got {error.strerror}. Write it") from None
    except ValueError:
        raise ConfigurationError(f"{name} must be a text file; got something else. Write it anew") from None


def checked_secret(value: str, name: str) -> str:
    """Return a secret without white space around it.

    Args:
        value: The secret.
        name: What names it in errors, for example its environment variable.

    Raises:
        ConfigurationError: It is not one line of printable ASCII characters, which is all that a request can carry.
    """
    value = value.strip()
    if not (value.isascii() and value.isprintable()):
        got = "a line break inside" if any(c in value for c in "\r\n") else "another character"
        raise ConfigurationError(f"{name} must be one line of printable ASCII characters; got {got}. Set it anew")
    return value


def check_google_key() -> None:
    """Check that the key file that Google's libraries are told to read is there: they would repeat the variable's value.

    Raises:
        ConfigurationError: There is no such file; names the variable.
    """
    if os.environ.get("STORAGE_EMULATOR_HOST"):
        return  # an emulator asks for no key
    if (path := os.environ.get(GOOGLE_KEY)) and not Path(path).is_file():
        raise ConfigurationError(
            f"{GOOGLE_KEY} must be the path of a file with credentials; got one that is not there. Correct it, or unset it"
        )
