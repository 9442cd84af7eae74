"""A third approach, added as CONTRIBUTING.md says, on its way from images to the report; a process of its own runs it.

The approach is softmax regression on raw pixels in numpy: real enough to learn, small enough to read.
"""

import contextlib
import json
import sys
from pathlib import Path

import numpy as np
import onnx
import safetensors.numpy
from onnx import helper

from components.approaches import APPROACHES, Approach
from components.data.contract import TRAIN, VALIDATION
from components.models import loop
from components.models.contract import load_approach
from components.models.hardware import onnx_difference
from components.models.sampling import EpochSampler, batch_size_for
from components.models.space import Parameter, Space

APPROACH = "softmax"
NATIVE_FILE = "model.safetensors"
PACKAGES = ("numpy",)
_SPACE = Space((Parameter(name="learning_rate", low=0.001, high=1.0, log=True, default=0.1),))
SPACES = {"described": _SPACE, "wide": _SPACE}
RECIPE = {"weight_decay": 0.0001}
LARGEST_BATCH = 64


def has_gpu():
    return False


class Trainer(loop.EpochTrainer):
    recipe = RECIPE
    device_name = "cpu"

    def __init__(self, train_data, *, require_gpu=False, weights_uri=""):  # noqa: ARG002 - the contract's signature
        self.pixels = train_data.images.reshape(len(train_data.images), -1) / np.float32(255)
        self.labels, self.images = np.asarray(train_data.labels), train_data.images
        self.train, self.validation = (np.flatnonzero(train_data.split == part) for part in (TRAIN, VALIDATION))
        self.num_classes = len(train_data.info.classes)

    def begin(self, hyperparameters, epochs, seed):  # noqa: ARG002 - the learning rate does not change
        return _Training(self, hyperparameters, seed)

    def export(self, result, hyperparameters, onnx_path, native_path):  # noqa: ARG002 - likewise
        safetensors.numpy.save_file(dict(result.weights), native_path)
        shape = ["N", *self.images.shape[1:]]
        nodes = [
            helper.make_node("Cast", ["images"], ["float"], to=onnx.TensorProto.FLOAT),
            helper.make_node("Flatten", ["float"], ["flat"]),
            helper.make_node("Div", ["flat", "levels"], ["pixels"]),
            helper.make_node("MatMul", ["pixels", "kernel"], ["product"]),
            helper.make_node("Softmax", ["product"], ["probabilities"], axis=1),
        ]
        constants = {"levels": np.array(255, np.float32), **result.weights}
        graph = helper.make_graph(
            nodes,
            APPROACH,
            [helper.make_tensor_value_info("images", onnx.TensorProto.UINT8, shape)],
            [helper.make_tensor_value_info("probabilities", onnx.TensorProto.FLOAT, ["N", self.num_classes])],
            [onnx.numpy_helper.from_array(values, name) for name, values in constants.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        onnx.save(model, onnx_path)
        some = self.validation[:64]
        return onnx_difference(onnx_path, self.images[some], _softmax(self.pixels[some] @ result.weights["kernel"]))


class _Training:
    peak_memory_bytes = 0

    def __init__(self, trainer, hyperparameters, seed):
        self.trainer, self.rate = trainer, hyperparameters["learning_rate"]
        self.decay = hyperparameters["weight_decay"]
        self.kernel = np.zeros((trainer.pixels.shape[1], trainer.num_classes), np.float32)
        size = batch_size_for(len(trainer.train), LARGEST_BATCH)
        self.sampler = EpochSampler(np.ones(len(trainer.train)), size, seed)
        self.best = self.kernel

    num_parameters = property(lambda self: self.kernel.size)

    def restore(self, state):
        self.kernel, self.best = np.array(state["kernel"]), np.array(state["best"])

    def train_epoch(self, epoch):
        losses = []
        for numbers in self.trainer.train[self.sampler.epoch(epoch)]:
            pixels, labels = self.trainer.pixels[numbers], self.trainer.labels[numbers]
            error = _softmax(pixels @ self.kernel)
            losses.append(-np.log(error[np.arange(len(labels)), labels] + 1e-9).mean())
            error[np.arange(len(labels)), labels] -= 1
            self.kernel = self.kernel - self.rate * (pixels.T @ error / len(labels) + self.decay * self.kernel)
        return float(np.mean(losses))

    def averaged(self):
        return contextlib.nullcontext()

    def accuracy(self):
        numbers = self.trainer.validation
        return float(np.mean((self.trainer.pixels[numbers] @ self.kernel).argmax(1) == self.trainer.labels[numbers]))

    def keep(self):
        self.best = self.kernel.copy()

    def state(self):
        return {"kernel": self.kernel, "best": self.best}

    def best_weights(self):
        return {"kernel": self.best}


def _softmax(logits):
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


LINE = Approach(
    name=APPROACH,
    title="Softmax",
    module="tests.third_approach",
    sampler="components.search.samplers.skopt:SkoptSampler",
    algorithms=("random",),
    image="base",
    colors=("#226622", "#88cc88"),
)


def main(out: Path) -> None:
    """Take the approach through the steps; print what came of it."""
    APPROACHES[APPROACH] = LINE
    from components.data.sample.sample import write_sample
    from components.data.step import ingest_step
    from components.evaluation.evaluate import evaluate
    from components.evaluation.report.report import write_report
    from components.parameters import RunParameters
    from components.search.step import search_step
    from components.training_step import train_step
    from pipelines.presets import default_parameters, run_parameters
    from pipelines.targets import IMAGE_TARGETS, STEP_GROUPS

    write_sample(out / "sample")
    source = str(out / "sample" / "fashion-mnist")
    changes = ["search_trials=3", "search_epochs=3", "search_workers=1", "train_replicates=1", "data_limit=600"]
    values = run_parameters(default_parameters(str(out / "studies")), "full", changes, [f"fashion-mnist={source}"])
    checked = RunParameters.from_dict(values)
    train, test, ingested, model, evaluation = (
        str(out / name) for name in ("train", "test", "ingested", "model", "evaluation")
    )
    ingest_step(
        {"name": "fashion-mnist", "source": source, "version": "1"},
        checked.data.to_dict(),
        str(out / "studies"),
        train,
        test,
        ingested,
        str(out / "ingest.md"),
    )
    run = {"study_root": str(out / "studies"), "study_prefix": "run", "id": "run"}
    approach = load_approach(LINE.name)
    search_step(approach, train, run, checked.search.to_dict(), "worker-0", str(out / "search.md"))
    Path(model).mkdir()
    trained = train_step(approach, train, run, checked.train.to_dict(), model)
    evaluate(Path(model), Path(test), Path(evaluation))
    write_report(
        evaluation_dirs=[Path(evaluation)],
        ingest_report_dirs=[Path(ingested)],
        test_dirs=[Path(test)],
        parameters=checked.to_dict(),
        run=run,
        history="",
        html_path=out / "report.html",
        summary_path=out / "summary.json",
    )
    told = {"trained": trained, "targets": IMAGE_TARGETS, "groups": STEP_GROUPS}
    print(json.dumps(told))  # noqa: T201 - for the test that started it


if __name__ == "__main__":
    sys.modules["tests.third_approach"] = sys.modules["__main__"]
    main(Path(sys.argv[1]))
