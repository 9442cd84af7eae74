import numpy as np
import onnxruntime
import pytest

from components.models.mlp.export import mlp_graph

SHAPE = (4, 3, 2)


def _weights(random: np.random.Generator) -> dict[str, np.ndarray]:
    sizes = (24, 5, 4, 3)
    weights = {}
    for layer in (1, 2, 3):
        weights[f"dense_{layer}/kernel"] = random.normal(size=sizes[layer - 1 : layer + 1]).astype(np.float32)
        weights[f"dense_{layer}/bias"] = random.normal(size=sizes[layer]).astype(np.float32)
    return weights


def _expected(images: np.ndarray, w: dict[str, np.ndarray], mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    values = ((images - mean) / std).reshape(len(images), -1)
    values = np.maximum(values @ w["dense_1/kernel"] + w["dense_1/bias"], 0)
    values = np.tanh(values @ w["dense_2/kernel"] + w["dense_2/bias"])
    logits = values @ w["dense_3/kernel"] + w["dense_3/bias"]
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("num", [1, 5])
def test_graph_computes_the_network(num, mirror):
    """Raw pixels in, probabilities out, for any number of images, with and without the mirrored view."""
    random = np.random.default_rng(0)
    weights, mean, std = _weights(random), np.float32([100, 120]), np.float32([50, 60])
    images = random.integers(0, 256, (num, *SHAPE), dtype=np.uint8)
    given = {"activation_1": "relu", "activation_2": "tanh", "mirror_average": mirror}
    model = mlp_graph(weights, given, SHAPE, mean, std)

    session = onnxruntime.InferenceSession(model.SerializeToString())
    (probabilities,) = session.run(["probabilities"], {"images": images})

    views = [images, images[:, :, ::-1]] if mirror else [images]
    expected = np.mean([_expected(view.astype(np.float32), weights, mean, std) for view in views], axis=0)
    assert expected == pytest.approx(probabilities, abs=1e-5)


def test_images_that_hardly_differ_lose_no_digits():
    """The first layer divides by the deviation, but the mean is taken from the pixels: both in the weights would round."""
    random = np.random.default_rng(1)
    sizes = (24 * 24, 64, 64, 10)
    weights = {}
    for layer in (1, 2, 3):
        weights[f"dense_{layer}/kernel"] = random.normal(size=sizes[layer - 1 : layer + 1]).astype(np.float32) / 8
        weights[f"dense_{layer}/bias"] = random.normal(size=sizes[layer]).astype(np.float32)
    mean, std = np.float32([230.3]), np.float32([1])
    images = random.integers(229, 232, (64, 24, 24, 1), dtype=np.uint8)
    model = mlp_graph(
        weights, {"activation_1": "relu", "activation_2": "tanh", "mirror_average": False}, (24, 24, 1), mean, std
    )

    session = onnxruntime.InferenceSession(model.SerializeToString())
    (probabilities,) = session.run(["probabilities"], {"images": images})

    expected = _expected(images.astype(np.float64), weights, mean.astype(np.float64), std)
    assert expected == pytest.approx(probabilities, abs=2e-6)
    assert ["Flatten", "Cast", "Sub", "Gemm"] == [node.op_type for node in model.graph.node][:4]
