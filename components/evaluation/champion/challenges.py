"""This module records the challenges of a dataset and fixes the chance of an error that each of them may spend.

    champions/<dataset>/challenges/000017.json      create-only; one for each pair of models and each set of images they met on

A test with error rate 0.05 that is repeated every week on the same images is wrong some time in a year with probability 0.33.
So the error rate of 0.05 is for all challenges of 365 days together, and each spends a part of it: after n challenges in the
last 365 days the next one may spend `next_alpha(n)`. Its values fall with n and their sum over all n is 0.05, so any 365 days
spend less, however many challenges they see and however these depend on each other.

Source: alpha spending as in Foster and Stine (2008), https://doi.org/10.1111/j.1467-9868.2007.00643.x, without earning any back.
"""

import json
import logging
import random
import re
import time
import uuid
from datetime import datetime, timedelta
from typing import Any

from components.data.digests import digest_all
from components.errors import DataError, TryAgainError
from components.stores import ObjectNotFoundError, Store

log = logging.getLogger(__name__)

ERROR_RATE = 0.05
"""Probability that any 365 days see a champion replaced by a model that is not better, at most."""

PACE = 52
"""Challenges in a year for which the spending is planned; half of the error rate is for the first 52."""

WINDOW = timedelta(days=365)
MAX_SECONDS = 900.0


def next_alpha(num_before: int) -> float:
    """Return the p-value that the next challenge must not exceed.

    Args:
        num_before: Challenges of the last 365 days.
    """
    return ERROR_RATE * PACE / ((num_before + PACE) * (num_before + PACE + 1))


class Challenges:
    """Reads and adds to the challenges of one dataset."""

    def __init__(self, store: Store) -> None:
        self._store = store / "challenges"
        self._known: dict[int, dict[str, Any]] = {}

    def open(self, pair: tuple[bytes, ...], described: dict[str, Any], now: datetime) -> dict[str, Any]:
        """Return the record of a challenge: a new one, or that of the same challenge in the last 365 days.

        A promotion that runs again, or the same two models on the same images after a rollback, spend nothing more.

        Args:
            pair: What makes a challenge the same one: both models and the images with their labels.
            described: What else the record says.
            now: The present time, with its time zone.

        Returns:
            `alpha`, `num_before`, `created` and what was described.

        Raises:
            TryAgainError: Others kept adding challenges.
        """
        key = digest_all(pair)
        deadline = time.monotonic() + MAX_SECONDS
        while time.monotonic() < deadline:
            numbers, recent = self._recent(now)
            for record in recent:
                if record.get("pair") == key:
                    return record
            number, num_before = max(numbers, default=0) + 1, len(recent)
            record = {
                **described,
                "schema": 1,
                "pair": key,
                "num_before": num_before,
                "alpha": next_alpha(num_before),
                "created": now.isoformat(timespec="seconds"),
                "nonce": uuid.uuid4().hex,
            }
            if self._store.create(_key(number), json.dumps(record, indent=1, sort_keys=True).encode()):
                return record
            time.sleep(random.uniform(0, 0.1))  # noqa: S311 (spreads writers, keeps no secret)
        raise TryAgainError(f"challenges under {self._store.uri} must hold still; they kept changing. Run again")

    def _recent(self, now: datetime) -> tuple[list[int], list[dict[str, Any]]]:
        """Return all numbers, and the records of the last 365 days, newest first; an unreadable one counts as recent."""
        numbers = sorted(int(m[1]) for key in self._store.list() if (m := re.fullmatch(r"(\d{1,12})\.json", key)))
        recent = []
        for number in reversed(numbers):
            if number not in self._known:
                self._known[number] = self._read(number)
            record = self._known[number]
            if "alpha" in record and now - datetime.fromisoformat(record["created"]) > WINDOW:
                break
            recent.append(record)
        return numbers, recent

    def _read(self, number: int) -> dict[str, Any]:
        try:
            record = json.loads(self._store.read(_key(number)))
            if datetime.fromisoformat(record["created"]).tzinfo is None:
                raise ValueError("created has no time zone")
            if not 0 < float(record["alpha"]) < 1:
                raise ValueError("alpha is none")
            return record
        except (ValueError, TypeError, KeyError, DataError, ObjectNotFoundError) as error:
            log.warning("challenge %s is damaged and counts as one of this year: %s", _key(number), error)
            return {}


def _key(number: int) -> str:
    return f"{number:06d}.json"
