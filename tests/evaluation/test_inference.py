import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from components.evaluation import inference
from components.evaluation.inference import BATCH_SIZE, PART_SIZE, OnnxModel
from components.models.mlp.export import mlp_graph

SHAPE, NUM_CLASSES = (14, 12, 3), 7


def mlp(random):
    """The exported MLP with random weights."""
    sizes = (14 * 12 * 3, 96, 64, NUM_CLASSES)
    weights = {}
    for layer in (1, 2, 3):
        weights[f"dense_{layer}/kernel"] = random.normal(size=sizes[layer - 1 : layer + 1]).astype(np.float32) / 9
        weights[f"dense_{layer}/bias"] = random.normal(size=sizes[layer]).astype(np.float32)
    given = {"activation_1": "relu", "activation_2": "tanh", "mirror_average": True}
    return mlp_graph(weights, given, SHAPE, np.float32([90, 100, 110]), np.float32([50, 60, 70]))


def convolutions(random):
    """Two convolutions and what ResNet18 ends with."""
    tensors = {
        "first": random.normal(size=(32, 3, 3, 3)) / 500,
        "second": random.normal(size=(64, 32, 3, 3)) / 9,
        "last": random.normal(size=(64, NUM_CLASSES)),
    }
    nodes = [
        helper.make_node("Transpose", ["images"], ["turned"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["turned"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Conv", ["float", "first"], ["maps_1"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["maps_1"], ["relu_1"]),
        helper.make_node("Conv", ["relu_1", "second"], ["maps_2"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Relu", ["maps_2"], ["relu_2"]),
        helper.make_node("GlobalAveragePool", ["relu_2"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["features"]),
        helper.make_node("Gemm", ["features", "last"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"]),
    ]
    graph = helper.make_graph(
        nodes,
        "convolutions",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", *SHAPE])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", NUM_CLASSES])],
        [numpy_helper.from_array(values.astype(np.float32), name) for name, values in tensors.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


@pytest.mark.parametrize("build", [mlp, convolutions])
def test_answers_depend_on_neither_batch_nor_threads(monkeypatch, build):
    """An image gets the same bits alone, in a part, in a batch, and with any number of threads."""
    random = np.random.default_rng(2)
    model = build(random).SerializeToString()
    images = random.integers(0, 256, (BATCH_SIZE + PART_SIZE + 5, *SHAPE), dtype=np.uint8)
    expected = OnnxModel(model).predict(images, NUM_CLASSES)

    for num_threads in (1, 2, 3):
        monkeypatch.setattr(inference, "num_threads", lambda number=num_threads: number)
        found = OnnxModel(model)
        assert np.array_equal(expected, found.predict(images, NUM_CLASSES))
        for start, stop in ((0, 1), (3, 5), (30, 30 + PART_SIZE), (40, 41 + PART_SIZE), (250, 261)):
            assert np.array_equal(expected[start:stop], found.predict(images[start:stop], NUM_CLASSES))


def test_whatever_a_model_gives_is_checked():
    """A graph that gives one number for all images is refused like any that gives another shape."""
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["images"], ["float"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMax", ["float"], ["probabilities"], keepdims=0),
        ],
        "one number",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", *SHAPE])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [])],
    )
    model = OnnxModel(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8).SerializeToString()
    )

    for num in (1, PART_SIZE + 1):
        with pytest.raises(inference.DataError, match="must give 7 probabilities per image"):
            model.predict(np.zeros((num, *SHAPE), np.uint8), NUM_CLASSES)
