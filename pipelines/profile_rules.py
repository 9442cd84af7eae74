"""These rules hold for single values of a cluster profile; pydantic applies them and makes a JSON schema of them."""

from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler, ValidationError, ValidatorFunctionWrapHandler
from pydantic_core import PydanticCustomError, core_schema

from components.buckets import BUCKET_STORES, example_uris
from components.notification.templates import FORMATS
from pipelines.targets import STEP_GROUPS, STEPS


@dataclass(frozen=True, eq=False)
class Rule:
    """What a value must be, for `typing.Annotated`.

    Attributes:
        says: The rule in words, as it follows "must be" in an error.
        schema: Checks the value; None for what its type asks for.
    """

    says: str
    schema: core_schema.CoreSchema | None = None

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        """Return a check of the whole value that fails with this rule's words, whatever is wrong inside."""
        schema = self.schema or handler(source)
        return core_schema.no_info_wrap_validator_function(self._check, schema)

    def _check(self, value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        try:
            return handler(value)
        except ValidationError:
            raise PydanticCustomError("rule", "{rule}", {"rule": self.says}) from None


def text(pattern: str, says: str) -> Rule:
    """Return the rule that a text matches a pattern as a whole."""
    return Rule(says, core_schema.str_schema(pattern=f"^(?:{pattern})$", strict=True))


def whole(low: int, high: int) -> Rule:
    """Return the rule that a value is a whole number from `low` to `high`."""
    schema = core_schema.int_schema(strict=True, ge=low, le=high)
    return Rule(f"a whole number between {low} and {high}", schema)


def number(low: float, high: float) -> Rule:
    """Return the rule that a value is a number from `low` to `high`."""
    schema = core_schema.float_schema(strict=True, ge=low, le=high, allow_inf_nan=False)
    return Rule(f"a number between {low:g} and {high:g}", schema)


_LABEL = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
_NAME = r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?"
_MEMORY, _CPU = r"[1-9][0-9]*(Ki|Mi|Gi|Ti|K|M|G|T)?", r"([0-9]*[.])?[0-9]*[1-9][0-9]*m?"
_STORE = rf"({'|'.join(BUCKET_STORES)})://[a-z0-9][-a-z0-9_.]{{1,61}}[a-z0-9](/[^\s/]+)*"
_STEP_NAMES = (*STEPS, *STEP_GROUPS)

FLAG = Rule("true or false", core_schema.bool_schema(strict=True))
NAMES = Rule("a list of names")
TEXTS = Rule("a mapping of text to text (numbers and true in quotes)")
API = text(r"https?://[^\s/@]+(/[^\s@]*)?|", "an http(s) URL without credentials")
VERSION = text(r"[0-9]+(\.[0-9]+){1,2}", 'a version such as "1.29", in quotes')
NAMESPACE = text(_LABEL, "a DNS label of lower-case letters, digits and dashes")
EXPERIMENT = text(r"[^\x00-\x1f]{1,128}", "a name of 1 to 128 characters")
SERVICE_ACCOUNT = text(f"({_NAME})?", "the name of a Kubernetes service account")
REGISTRY = text(
    r"[a-z0-9][-a-z0-9.]*(:[0-9]+)?(/[a-z0-9][-a-z0-9._]*)*",
    "a registry's host and path in lower case, without a scheme",
)
MODEL_REGISTRY = text(r"(https?://[^\s/@]+)?", "an http(s) URL without credentials and path, or empty")
PULL_POLICY = text("Always|IfNotPresent|Never", "Always, IfNotPresent or Never")
STUDY_ROOT = text(_STORE, f"{example_uris('BUCKET/PREFIX')} without a slash at the end")
PIPELINE_ROOT = text(f"({_STORE})?", f"{example_uris('BUCKET/PREFIX')} without a slash at the end, or empty")
ACCELERATOR = text(r"([a-z0-9.-]+/[a-z0-9._-]+)?", "a resource name such as nvidia.com/gpu, or empty")
QUEUE = text(f"({_NAME})?", "the name of a Kueue local queue, or empty")
CPU = text(_CPU, 'a CPU quantity above 0 such as "2" or "500m", in quotes')
CPU_LIMIT = text(f"({_CPU})?", 'a CPU quantity such as "2" or "500m", in quotes, or empty')
MEMORY = text(_MEMORY, "a memory quantity above 0 such as 4Gi")
STORAGE = text(_MEMORY, "a storage quantity above 0 such as 10Gi")
SHARED_MEMORY = text(f"({_MEMORY})?", "a memory quantity such as 2Gi, or empty")
CURRENCY = text(r"[A-Z]{3}", "three capital letters such as USD")
SECONDS = text(r"[1-9][0-9]*s", "whole seconds such as 60s")
SECRET = text(_NAME, "the name of a Kubernetes secret")
SECRET_KEY = text(r"[-._a-zA-Z0-9]{1,253}", "a key of the secret")
FORMAT = text("|".join(FORMATS), ", ".join(FORMATS))
LINK = text(r"(https?://[^\s@]+)?", "an http(s) URL without credentials, or empty")
MOUNT_PATH = text(r"(/[-._a-zA-Z0-9]+)*", "an absolute path, or empty")
STEP = text("|".join(_STEP_NAMES), f"one of {', '.join(_STEP_NAMES)}")
STEP_ENTRY = text("|".join(("default", *_STEP_NAMES)), f"one of {', '.join(('default', *_STEP_NAMES))}")
OPERATOR = text("Equal|Exists", "Equal or Exists")
EFFECT = text("NoSchedule|NoExecute|PreferNoSchedule", "NoSchedule, NoExecute or PreferNoSchedule")
