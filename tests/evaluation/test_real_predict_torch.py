"""ResNet18 on both published test sets: predict says what evaluate says."""

from pathlib import Path

import pytest
import torch

from components.data.contract import TrainData
from components.models.contract import FitResult
from components.models.resnet18 import training as resnet18
from tests.evaluation.real_pictures import SOURCES, assert_predict_is_evaluate, ingested

pytestmark = [pytest.mark.real, pytest.mark.slow]


@pytest.mark.parametrize("name", SOURCES)
def test_predict_is_evaluate_bit_for_bit(name: str, tmp_path: Path, real_data: Path) -> None:
    """A network without training, exported as after one: each of its answers is the same both ways."""
    info = ingested(name, tmp_path, real_data)
    trainer = resnet18.Trainer(TrainData.load(tmp_path / "train"))
    torch.manual_seed(0)
    model = trainer.build(resnet18.RECIPE)
    weights = {key: values.detach().numpy() for key, values in model.state_dict().items()}
    drawn = FitResult(scores=(0.5,), device_seconds=0, peak_memory_bytes=0, num_parameters=0, weights=weights)
    trainer.export(drawn, {}, str(tmp_path / "drawn.onnx"), str(tmp_path / "drawn.safetensors"))

    assert_predict_is_evaluate(name, info, tmp_path / "drawn.onnx", "resnet18", tmp_path, real_data)
