"""The MLP's ONNX graph, written node by node; imports neither TensorFlow nor torch."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from components.models.space import Value

OPSET, IR_VERSION = 18, 8
"""Old enough for any ONNX Runtime of the last years."""


def mlp_graph(
    weights: dict[str, np.ndarray],
    hyperparameters: dict[str, Value],
    shape: tuple[int, ...],
    mean: np.ndarray,
    std: np.ndarray,
) -> onnx.ModelProto:
    """Return cast, centring, three Gemm and softmax, and the mean with the mirrored image where that is asked for.

    The first Gemm divides by the deviation as well: dividing the pixels themselves takes longer than all three products.
    Its weights do not take the mean, because sums of raw pixels would lose digits where the deviation is small.

    Args:
        weights: `dense_1/kernel` (inputs, units) float32, `dense_1/bias` (units,), ... up to `dense_3/bias`.
        hyperparameters: `activation_1`, `activation_2`, `mirror_average`.
        shape: (H, W, C) of the images.
        mean: (C,) float32, 0-255.
        std: (C,) float32, 0-255.

    Returns:
        A model from `images` uint8 (N, H, W, C) to `probabilities` float32 (N, K).
    """
    num_classes = len(weights["dense_3/bias"])
    num_pixels = shape[0] * shape[1]
    tensors: dict[str, np.ndarray] = {
        **weights,
        # One value for each input: the runtime is slow where a row of three repeats.
        "mean": np.tile(np.asarray(mean, np.float32), num_pixels),
        "dense_1/kernel": weights["dense_1/kernel"] / np.tile(np.asarray(std, np.float32), num_pixels)[:, None],
    }
    nodes = []
    activations = {"relu": "Relu", "tanh": "Tanh"}

    def branch(given: str, prefix: str) -> str:
        nodes.append(helper.make_node("Flatten", [given], [f"{prefix}/bytes"], axis=1))
        nodes.append(helper.make_node("Cast", [f"{prefix}/bytes"], [f"{prefix}/float"], to=TensorProto.FLOAT))
        nodes.append(helper.make_node("Sub", [f"{prefix}/float", "mean"], [f"{prefix}/0"]))
        for layer in (1, 2, 3):
            inputs = [f"{prefix}/{layer - 1}", f"dense_{layer}/kernel", f"dense_{layer}/bias"]
            nodes.append(helper.make_node("Gemm", inputs, [f"{prefix}/gemm_{layer}"]))
            kind = "Softmax" if layer == 3 else activations[str(hyperparameters[f"activation_{layer}"])]
            nodes.append(helper.make_node(kind, [f"{prefix}/gemm_{layer}"], [f"{prefix}/{layer}"]))
        return f"{prefix}/3"

    outputs = [branch("images", "plain")]
    if hyperparameters["mirror_average"]:
        tensors |= {"-1": np.array([-1]), "end": np.array([-(2**31)]), "width_axis": np.array([2])}
        nodes.append(helper.make_node("Slice", ["images", "-1", "end", "width_axis", "-1"], ["flipped"]))
        outputs.append(branch("flipped", "mirrored"))
    nodes.append(helper.make_node("Mean", outputs, ["probabilities"]))
    graph = helper.make_graph(
        nodes,
        "mlp",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", *shape])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", num_classes])],
        [numpy_helper.from_array(values, name) for name, values in tensors.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
