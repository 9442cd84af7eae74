"""What a run's device time costs, where somebody said what an hour of a device costs."""

import os
import re
from typing import Any

PRICE_VARIABLE = "FASHION_TUNING_PRICE_PER_HOUR"
"""Environment variable of the report step, set from the cluster profile: a number and a currency, such as `0.71 USD`."""


def cost_of(device_seconds: float) -> dict[str, Any] | None:
    """Return what device time costs, as it is kept in `summary.json`; None where no price is known.

    Args:
        device_seconds: The sum of all searches and trainings of a run.
    """
    price = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ([A-Z]{3})", os.environ.get(PRICE_VARIABLE, ""))
    if not price:
        return None
    amount = round(device_seconds / 3600 * float(price[1]), 4)
    return {
        "device_seconds": round(device_seconds, 1),
        "price_per_hour": float(price[1]),
        "currency": price[2],
        "amount": amount,
    }


def cost_text(cost: dict[str, Any]) -> str:
    """Return a cost in words: `1.23 USD`; less than a cent is told as such."""
    small = 0 < cost["amount"] < 0.01
    return f"less than 0.01 {cost['currency']}" if small else f"{cost['amount']:.2f} {cost['currency']}"
