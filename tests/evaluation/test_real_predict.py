"""The MLP's graph on both published test sets: predict says what evaluate says."""

import itertools
from pathlib import Path

import numpy as np
import onnx
import pytest

from components.models.mlp.export import mlp_graph
from tests.evaluation.real_pictures import SOURCES, assert_predict_is_evaluate, ingested

pytestmark = [pytest.mark.real, pytest.mark.slow]


@pytest.mark.parametrize("name", SOURCES)
def test_predict_is_evaluate_bit_for_bit(name: str, tmp_path: Path, real_data: Path) -> None:
    """Drawn weights of the default size: their answers differ from image to image, and each is the same both ways."""
    info = ingested(name, tmp_path, real_data)
    shape = np.load(tmp_path / "test" / "images.npy", mmap_mode="r", allow_pickle=False).shape[1:]
    random = np.random.default_rng(0)
    sizes = [int(np.prod(shape)), 512, 256, len(info.classes)]
    weights = {}
    for layer, (num_in, num_out) in enumerate(itertools.pairwise(sizes), 1):
        kernel = random.normal(size=(num_in, num_out)) * 1.5 / np.sqrt(num_in)
        weights |= {
            f"dense_{layer}/kernel": kernel.astype(np.float32),
            f"dense_{layer}/bias": np.zeros(num_out, np.float32),
        }
    drawn = {"activation_1": "relu", "activation_2": "tanh", "mirror_average": True}
    mean, std = np.full(shape[2], 120.0), np.full(shape[2], 80.0)
    onnx.save(mlp_graph(weights, drawn, shape, mean, std), tmp_path / "drawn.onnx")

    assert_predict_is_evaluate(name, info, tmp_path / "drawn.onnx", "mlp", tmp_path, real_data)
