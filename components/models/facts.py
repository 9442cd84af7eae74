"""What an exported model says of itself: declared here once, for the ONNX's metadata, `model.json` and the model card.

Nothing in it changes from run to run, so that an equal training still gives equal bytes.
"""

import importlib.metadata
import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.data.contract import TrainData
from components.data.pictures import PictureRule, licence_of
from components.errors import DataError
from components.models.contract import ApproachModule
from components.models.space import Value


def model_facts(approach: ApproachModule, data: TrainData, hyperparameters: dict[str, Value]) -> dict[str, Any]:
    """Return the facts of a model as JSON values.

    Args:
        approach: The module that trained it.
        data: What it was trained on.
        hyperparameters: The values it was trained with.
    """
    rule = PictureRule.of(data.info.name, data.images.shape[1:])
    return {
        "approach": approach.APPROACH,
        "dataset": data.info.name,
        "data_hash": data.info.content_hash,
        "data_licence": licence_of(data.info.name).text,
        "classes": list(data.info.classes),
        "image": rule.image(),
        "picture_rule": rule.sentence(),
        "hyperparameters": hyperparameters,
        "fixed": {name: value for name, value in approach.RECIPE.items() if name not in hyperparameters},
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in (*approach.PACKAGES, "onnx", "onnxruntime", "numpy")},
        },
    }


def write_metadata(path: Path | str, facts: dict[str, Any]) -> None:
    """Write facts into an ONNX's `metadata_props`: text as it is, everything else as JSON.

    Args:
        path: The file; its graph stays what it is.
        facts: What `model_facts` returned.
    """
    import onnx

    model = onnx.load(path)
    texts = {name: value if isinstance(value, str) else _json(value) for name, value in sorted(facts.items())}
    onnx.helper.set_model_props(model, texts)
    onnx.save(model, path)


def read_metadata(metadata: Mapping[str, str]) -> dict[str, Any]:
    """Return the facts that an ONNX's metadata hold; nothing where it was exported before models had any.

    Raises:
        DataError: They are not as `write_metadata` wrote them.
    """
    names = ("classes", "image", "hyperparameters", "fixed", "versions", "seed")
    try:
        return {name: json.loads(text) if name in names else text for name, text in metadata.items()}
    except ValueError as error:
        raise DataError(f"the model's metadata must be JSON; got {error}. Export it again") from error


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)
