"""What there is to compare: one line per approach. Imports no framework: an approach's code is loaded where it works."""

from dataclasses import dataclass
from importlib import import_module
from typing import Any

SPACES = ("described", "wide")
"""Search spaces that every approach offers, the default first."""


@dataclass(frozen=True, kw_only=True)
class Approach:
    """One way from images to a model.

    Attributes:
        name: In studies, files, steps and parameters: lower-case letters and digits, a letter first.
        title: In texts for people.
        module: The module with the names that `components.models.contract` lists.
        sampler: Class that suggests its hyperparameters, as `module:class`.
        algorithms: What `search_<name>_algorithm` may be, the default first; a single one needs no run parameter.
        image: Target of `images/Dockerfile` that its steps run in.
        colors: Its colour in the report, on a light and on a dark page.
        pretrained: Whether it starts from `train_weights`.
    """

    name: str
    title: str
    module: str
    sampler: str
    algorithms: tuple[str, ...]
    image: str
    colors: tuple[str, str]
    pretrained: bool = False

    def sampler_class(self) -> Any:
        """Import the class of its sampler."""
        module, _, name = self.sampler.partition(":")
        return getattr(import_module(module), name)


_MODELS, _SAMPLERS = "components.models", "components.search.samplers"
_KERAS, _SKOPT = f"{_SAMPLERS}.keras:KerasSampler", f"{_SAMPLERS}.skopt:SkoptSampler"
# fmt: off
APPROACHES = {approach.name: approach for approach in (
    Approach(name="mlp", title="MLP", module=f"{_MODELS}.mlp.training", sampler=_KERAS, algorithms=("noisy-bayesian", "bayesian", "random"), image="keras", colors=("#0b62a8", "#62b2f0")),
    Approach(name="resnet18", title="ResNet18", module=f"{_MODELS}.resnet18.training", sampler=_SKOPT, algorithms=("gp", "forest", "gbrt", "random"), image="torch", colors=("#b5480a", "#f59a5b"), pretrained=True),
)}
# fmt: on
"""By name, in the order of the report."""
