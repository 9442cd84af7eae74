"""These rules hold for the single fields of a cluster profile."""

import dataclasses
import difflib
import re
from typing import Any

from components.buckets import BUCKET_STORES, example_uris
from components.notification.templates import FORMATS

_NAME = r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?"
_MEMORY, _CPU = r"[1-9][0-9]*(Ki|Mi|Gi|Ti|K|M|G|T)?", r"([0-9]*[.])?[0-9]*[1-9][0-9]*m?"
_DURATION, _VERSION = r"[1-9][0-9]*s", r"[0-9]+(\.[0-9]+){1,2}"
_STORE = rf"({'|'.join(BUCKET_STORES)})://[a-z0-9][-a-z0-9_.]{{1,61}}[a-z0-9](/[^\s/]+)*"
_PATTERNS: dict[str, tuple[str, str]] = {
    "api": (r"https?://[^\s/@]+(/[^\s@]*)?|", "an http(s) URL without credentials"),
    "kubernetes_version": (_VERSION, 'a version such as "1.29", in quotes'),
    "kfp_version": (_VERSION, 'a version such as "2.16.0", in quotes'),
    "namespace": (r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", "a DNS label of lower-case letters, digits and dashes"),
    "experiment": (r"[^\x00-\x1f]{1,128}", "a name of 1 to 128 characters"),
    "service_account": (f"({_NAME})?", "the name of a Kubernetes service account"),
    "registry": (
        r"[a-z0-9][-a-z0-9.]*(:[0-9]+)?(/[a-z0-9][-a-z0-9._]*)*",
        "a registry's host and path in lower case, without a scheme",
    ),
    "model_registry": (r"(https?://[^\s/@]+)?", "an http(s) URL without credentials and path, or empty"),
    "image_pull_policy": ("Always|IfNotPresent|Never", "Always, IfNotPresent or Never"),
    "study_root": (_STORE, f"{example_uris('BUCKET/PREFIX')} without a slash at the end"),
    "pipeline_root": (f"({_STORE})?", f"{example_uris('BUCKET/PREFIX')} without a slash at the end, or empty"),
    "accelerator": (r"([a-z0-9.-]+/[a-z0-9._-]+)?", "a resource name such as nvidia.com/gpu, or empty"),
    "queue": (f"({_NAME})?", "the name of a Kueue local queue, or empty"),
    "cpu": (_CPU, 'a CPU quantity above 0 such as "2" or "500m", in quotes'),
    "cpu_limit": (f"({_CPU})?", 'a CPU quantity such as "2" or "500m", in quotes, or empty'),
    "memory": (_MEMORY, "a memory quantity above 0 such as 4Gi"),
    "ephemeral_storage": (_MEMORY, "a storage quantity above 0 such as 10Gi"),
    "shared_memory": (f"({_MEMORY})?", "a memory quantity such as 2Gi, or empty"),
    "currency": (r"[A-Z]{3}", "three capital letters such as USD"),
    "backoff": (_DURATION, "whole seconds such as 60s"),
    "max_duration": (_DURATION, "whole seconds such as 172800s"),
    "name": (_NAME, "the name of a Kubernetes secret"),
    "secret": (_NAME, "the name of a Kubernetes secret"),
    "key": (r"[-\w.]{1,253}", "a key of the secret"),
    "format": ("|".join(FORMATS), ", ".join(FORMATS)),
    "link": (r"(https?://[^\s@]+)?", "an http(s) URL without credentials, or empty"),
    "mount_path": (r"(/[-\w.]+)*", "an absolute path, or empty"),
}
_NUMBERS = {
    "gpus": (0, 16),
    "timeout_seconds": (60, 30 * 86400),
    "number": (0, 10),
    "factor": (1, 10),
    "price_per_hour": (0, 10_000),
    "run_as_user": (1, 2**31 - 1),
    "run_as_group": (0, 2**31 - 1),
}
_TOLERATION = {
    "key": (str,),
    "operator": ("Equal", "Exists"),
    "value": (str,),
    "effect": ("NoSchedule", "NoExecute", "PreferNoSchedule"),
}


class Problems(list[str]):
    """The problems that were found so far."""

    def add(self, problem: str) -> None:
        """Note one problem once."""
        if problem not in self:
            self.append(problem)


def check(
    shape: type,
    values: Any,
    problems: Problems,
    where: str = "",
    *,
    required: tuple[str, ...] = (),
    ignored: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Check a mapping against the fields of a dataclass and return it with lists made tuples.

    Args:
        shape: The dataclass.
        values: What the file says.
        problems: Every problem is added here.
        where: What the fields are part of, for example `retries`.
        required: Fields that must be given.
        ignored: Fields that no file may give.
    """
    if not isinstance(values, dict):
        problems.add(f"{where or 'the profile'} must be a mapping; got {values!r}")
        return {}
    fields = [item.name for item in dataclasses.fields(shape) if item.name not in ignored]
    checked = {}
    for name, value in values.items():
        label = f"{where}.{name}" if where else str(name)
        if name not in fields:
            near = difflib.get_close_matches(str(name), fields, n=1)
            problems.add(f"{label} must be a known field{f' ({near[0]}?)' if near else ''}; got {name!r}")
        elif rule := _broken_rule(name, value, where):
            problems.add(f"{label} must be {rule}; got {value!r}")
        else:
            checked[name] = tuple(value) if isinstance(value, list) else value
    for name in required:
        if name not in values:
            problems.add(f"{f'{where}.{name}' if where else name} must be given; got nothing")
    return checked


def _broken_rule(name: str, value: Any, where: str) -> str:
    """Return the rule that a field's value breaks, "" for none."""
    if name in _NUMBERS:
        low, high = _NUMBERS[name]
        whole = name not in ("factor", "price_per_hour")
        kinds = int if whole else (int, float)
        good = isinstance(value, kinds) and not isinstance(value, bool) and low <= value <= high
        return "" if good else f"a {'whole number' if whole else 'number'} between {low} and {high}"
    if name in _PATTERNS:
        pattern, rule = _PATTERNS[name]
        return "" if isinstance(value, str) and re.fullmatch(pattern, value) else rule
    if name == "tolerations":
        good = isinstance(value, list) and all(_is_toleration(entry) for entry in value)
        return (
            ""
            if good
            else "a list of {key, operator: Equal|Exists, value, effect: NoSchedule|NoExecute|PreferNoSchedule}"
        )
    if name in ("node_selector", "environment"):
        return "" if _is_text_mapping(value) else "a mapping of text to text (numbers and true in quotes)"
    if name in ("keys", "image_pull_secrets") or (name == "steps" and where.startswith("secrets")):
        good = isinstance(value, list) and all(isinstance(entry, str) and entry for entry in value)
        return "" if good else "a list of names"
    if name == "secrets":
        return "" if isinstance(value, list) else "a list of secrets"
    if name in ("optional", "autoscaled"):
        return "" if isinstance(value, bool) else "true or false"
    return "" if isinstance(value, dict) else "a mapping"


def _is_text_mapping(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(text, str) and text for pair in value.items() for text in pair)


def _is_toleration(entry: Any) -> bool:
    if not isinstance(entry, dict) or set(entry) - set(_TOLERATION):
        return False
    texts = all(isinstance(value, str) for value in entry.values())
    operator, effect = entry.get("operator", "Equal"), entry.get("effect", "NoSchedule")
    fits = "value" not in entry if operator == "Exists" else {"key", "value"} <= set(entry)
    return texts and operator in _TOLERATION["operator"] and effect in _TOLERATION["effect"] and fits
