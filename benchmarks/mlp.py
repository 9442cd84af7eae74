"""The MLP's training speed against the loop of Keras's own tutorial; loads TensorFlow."""

import functools
import tempfile
import time

import keras
import numpy as np
import tensorflow as tf

from benchmarks.data import ingested
from benchmarks.harness import Options, Row, interleaved, row, seconds
from benchmarks.inference import latency
from components.data.contract import TRAIN, VALIDATION, DatasetInfo, TrainData
from components.models.mlp import training as mlp
from components.models.space import Value

HYPERPARAMETERS: dict[str, Value] = {
    "units_1": 512,
    "activation_1": "relu",
    "units_2": 256,
    "activation_2": "relu",
    "learning_rate": 0.001,
    "optimizer": "Adam",
}
TARGET = 0.88
MAX_EPOCHS = 10


def measure(options: Options) -> list[Row]:
    """Return training throughput, share of peak, cost of a new network and, with real data, the time to 0.88."""
    data = _read(options.fashion_mnist) if options.fashion_mnist else _random_data(20_000)
    images, labels = data.part(TRAIN)
    trainer = mlp.Trainer(data)
    trainer.fit(HYPERPARAMETERS, epochs=1, seed=0)
    compiled = trainer._loop
    assert compiled is not None
    sampler = mlp.EpochSampler(np.ones(len(images)), compiled.batch_size, 0)
    rates = np.full(sampler.num_steps, 0.001, np.float32)
    numbers = trainer._train[sampler.epoch(1)]

    def ours() -> float:
        return numbers.size / seconds(lambda: compiled.train(trainer._examples, numbers, rates, (0, 1)))

    part = slice(0, min(len(images), 10_000))
    tutorial = _tutorial_model(data)
    scaled = images[part].astype("float32") / 255
    tutorial.fit(scaled, labels[part], batch_size=32, epochs=1, verbose=0)

    def theirs() -> float:
        return len(scaled) / seconds(lambda: tutorial.fit(scaled, labels[part], batch_size=32, epochs=1, verbose=0))

    def most() -> float:
        return _peak_flops(tf.bfloat16 if trainer._half else tf.float32)

    mine, keras_fit, peak = interleaved(options.repeats, ours, theirs, most)
    weights = sum(np.prod(shape) for shape in compiled._shapes if len(shape) > 1)
    share = [100 * 6 * weights * rate / most for rate, most in zip(mine, peak, strict=True)]
    fresh = [
        seconds(functools.partial(trainer.fit, HYPERPARAMETERS | {"units_1": 500 - n}, epochs=1, seed=0))
        for n in range(3)
    ]
    known = [seconds(lambda: trainer.fit(HYPERPARAMETERS | {"units_1": 498}, epochs=1, seed=0)) for _ in range(3)]
    compiling = [max(0.0, a - b) for a, b in zip(fresh, known, strict=True)]
    rows = [
        row(
            "MLP training", "images/s", mine, "Keras tutorial: fit, batch 32", keras_fit, f"batch {compiled.batch_size}"
        ),
        row(
            "MLP training, share of peak",
            "%",
            share,
            note=f"peak: {max(peak) / 1e9:,.0f} GFLOP/s {'bfloat16' if trainer._half else 'float32'} matrix product",
        ),
        row("MLP, compiling a new network", "s", compiling),
    ]
    with tempfile.TemporaryDirectory() as scratch:
        result = trainer.fit(HYPERPARAMETERS, epochs=1, seed=0)
        trainer.export(result, HYPERPARAMETERS, f"{scratch}/mlp.onnx", f"{scratch}/mlp.keras")
        native = keras.models.load_model(f"{scratch}/mlp.keras").predict_on_batch
        label = "Keras predict_on_batch, GPU" if mlp.has_gpu() else "Keras predict_on_batch"
        rows += latency("MLP", f"{scratch}/mlp.onnx", native, label, images.shape[1:], 10, options.repeats)
    return rows + (_time_to_target(options, data, trainer) if options.fashion_mnist else [])


def _time_to_target(options: Options, data: TrainData, trainer: mlp.Trainer) -> list[Row]:
    """Compare the time to the validation accuracy, compilation included."""
    validation = data.part(VALIDATION)
    validation = (validation[0].astype("float32") / 255, validation[1])
    images, labels = data.part(TRAIN)
    scaled = images.astype("float32") / 255

    def ours() -> float:
        trainer.free()
        started = time.perf_counter()
        result = trainer.fit(HYPERPARAMETERS, epochs=MAX_EPOCHS, seed=0, on_epoch=lambda _e, score, _s: score < TARGET)
        return time.perf_counter() - started if max(result.scores) >= TARGET else float("inf")

    def theirs() -> float:
        model = _tutorial_model(data)
        started = time.perf_counter()
        for _ in range(MAX_EPOCHS):
            model.fit(scaled, labels, batch_size=32, epochs=1, verbose=0)
            if model.evaluate(*validation, verbose=0)[1] >= TARGET:
                return time.perf_counter() - started
        return float("inf")

    mine, keras_fit = interleaved(min(options.repeats, 3), ours, theirs)
    return [row(f"MLP, time to {TARGET} validation accuracy", "s", mine, "Keras tutorial: fit, batch 32", keras_fit)]


def _tutorial_model(data: TrainData) -> keras.Model:
    model = keras.Sequential(
        [
            keras.Input(data.images.shape[1:]),
            keras.layers.Flatten(),
            keras.layers.Dense(512, activation="relu"),
            keras.layers.Dense(256, activation="relu"),
            keras.layers.Dense(len(data.info.classes), activation="softmax"),
        ]
    )
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def _peak_flops(kind: tf.DType) -> float:
    """Return what a large matrix product reaches here."""
    size = 8192 if tf.config.list_physical_devices("GPU") else 2048
    a = tf.cast(tf.random.stateless_normal([size, size], (0, 1)), kind)
    product = tf.function(lambda x: tf.matmul(x, x))
    float(product(a)[0, 0])
    return 2 * size**3 / seconds(lambda: float(product(a)[0, 0]))


def _random_data(num: int) -> TrainData:
    random = np.random.default_rng(0)
    return _train_data(random.integers(0, 256, (num, 28, 28, 1), np.uint8), random.integers(0, 10, num), num // 10)


def _read(directory: str) -> TrainData:
    with tempfile.TemporaryDirectory() as scratch:
        return TrainData.load(ingested(f"fashion-mnist={directory}", scratch) / "train")


def _train_data(images: np.ndarray, labels: np.ndarray, num_validation: int) -> TrainData:
    classes = tuple(str(k) for k in range(10))
    info = DatasetInfo(name="random", classes=classes, counts={}, source="", checksums={}, content_hash="")
    split = (np.arange(len(images)) < num_validation).astype(np.uint8)
    return TrainData(images=images, labels=labels.astype(np.int64), split=split, info=info)
