import dataclasses
import types

import numpy as np
import onnxruntime
import pytest
import safetensors.torch
import torch
import torchvision

from components.errors import ConfigurationError
from components.models.contract import TrialDivergedError, TrialOutOfMemoryError
from components.models.loop import complete
from components.models.resnet18 import examples as resnet18_data
from components.models.resnet18 import network as resnet18_network
from components.models.resnet18 import training as resnet18
from tests.models.examples import make_train_data

DESCRIBED = {"learning_rate": 0.02, "momentum": 0.9, "weight_decay": 0.0005, "optimizer": "NAG"}
WIDE = DESCRIBED | {
    "batch_size": 16,
    "label_smoothing": 0.1,
    "dropout": 0.1,
    "augmentation": "flip_shift_erase",
    "rare_class_share": 0.1,
    "learn_attributes": True,
    "data_pruning": 0.5,
    "mirror_average": True,
    "low_resolution_fraction": 0.6,
    "stem": "small",
}


@pytest.fixture(scope="module")
def trainer():
    return resnet18.Trainer(with_attributes(make_train_data(30, (12, 10, 3))))


def with_attributes(data):
    """Return the data with three attributes: one of two values and some unknown, one of a single value, one of three."""
    known = {"edge": ("left", "right"), "maker": ("us",), "size": ("l", "m", "s")}
    numbers = np.arange(len(data.labels))
    attributes = np.stack([numbers % 3 - 1, numbers * 0, numbers % 3], axis=1)
    info = dataclasses.replace(data.info, attributes=known)
    return dataclasses.replace(data, info=info, attributes=attributes)


@pytest.mark.parametrize("name", ["described", "wide"])
def test_the_default_of_each_space_fits_it(name):
    """The first suggestion of a study is a valid one."""
    space = resnet18.SPACES[name]

    assert [] == space.problems(space.defaults)


def test_learns_and_exports_raw_pixels_to_probabilities(tmp_path):
    """A short training on grey images is right about most of the validation images, and its ONNX agrees with torch."""
    trainer = resnet18.Trainer(with_attributes(make_train_data(120, (12, 10, 1))))
    given = WIDE | {"augmentation": "none", "low_resolution_fraction": 0.0}
    result = trainer.fit(given, epochs=4, seed=0)

    difference = trainer.export(result, given, str(tmp_path / "model.onnx"), str(tmp_path / resnet18.NATIVE_FILE))

    assert max(result.scores) > 0.6
    assert difference <= 1e-4
    assert set(result.weights) == set(safetensors.torch.load_file(tmp_path / resnet18.NATIVE_FILE))
    assert (3, 512) == result.weights["network.fc.1.weight"].shape
    assert sum(p.numel() for p in torchvision.models.resnet18(num_classes=3).parameters()) == result.num_parameters
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    for num in (1, 5):
        (probabilities,) = session.run(["probabilities"], {"images": np.zeros((num, 12, 10, 1), np.uint8)})
        assert ((num, 3), np.float32) == (probabilities.shape, probabilities.dtype)
        assert np.ones(num) == pytest.approx(probabilities.sum(axis=1), abs=1e-5)


@pytest.mark.parametrize("optimizer", ["SGD", "Adam", "RMSprop", "NAG"])
def test_resumed_equals_uninterrupted(trainer, optimizer):
    """Going on from the state after an epoch gives the same state, bit for bit, as never having stopped."""
    given = WIDE | {"optimizer": optimizer, "learning_rate": 0.001}
    states, resumed_states = [], []

    whole = trainer.fit(given, epochs=3, seed=5, on_epoch=lambda _e, _s, state: states.append(state()) or True)
    resumed = trainer.fit(
        given, epochs=3, seed=5, resume=states[0], on_epoch=lambda _e, _s, state: resumed_states.append(state()) or True
    )

    assert whole.scores == resumed.scores
    assert all(np.array_equal(states[-1][name], resumed_states[-1][name]) for name in states[-1])


@pytest.mark.parametrize(("major", "expected"), [(7, torch.float16), (8, torch.bfloat16)])
def test_an_emulated_type_is_not_taken_for_the_devices_own(monkeypatch, major, expected):
    """A T4 (compute capability 7.5) multiplies in float16: torch would emulate bfloat16 there, and says so only if asked."""
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: types.SimpleNamespace(major=major))
    monkeypatch.setattr(torch.cuda, "_check_bf16_tensor_supported", lambda _: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)

    assert torch.cuda.is_bf16_supported()
    assert expected is resnet18.product_dtype(torch.device("cuda"))


@pytest.mark.parametrize(("optimizer", "rate"), [("SGD", 0.02), ("Adam", 0.002)])
def test_float16_learns_and_resumes_exactly(monkeypatch, optimizer, rate):
    """In float16 gradients are scaled, and the scale is part of the state."""
    trainer = resnet18.Trainer(make_train_data(120, (12, 10, 3)))
    monkeypatch.setattr(trainer, "_dtype", torch.float16)
    given = DESCRIBED | {"optimizer": optimizer, "learning_rate": rate, "batch_size": 16, "stem": "small"}
    states, resumed = [], []

    whole = trainer.fit(given, epochs=4, seed=1, on_epoch=lambda _e, _s, state: states.append(state()) or True)
    trainer.fit(
        given, epochs=4, seed=1, resume=states[1], on_epoch=lambda _e, _s, state: resumed.append(state()) or True
    )

    assert max(whole.scores) > 0.6
    assert states[0]["scaler/scale"] > 1
    assert all(np.array_equal(states[-1][name], resumed[-1][name]) for name in states[-1])


def test_images_that_do_not_fit_give_the_same_training(tmp_path):
    """Images that are read from a file batch by batch, by another thread, change no weight."""
    data = make_train_data(60, (12, 10, 3))
    np.save(tmp_path / "images.npy", data.images)
    mapped = dataclasses.replace(data, images=np.load(tmp_path / "images.npy", mmap_mode="r"))

    trainer = resnet18.Trainer(mapped)
    assert trainer._images._tensor is None
    expected, found = (t.fit(WIDE, epochs=2, seed=2) for t in (resnet18.Trainer(data), trainer))

    assert expected.scores == found.scores
    assert all(np.array_equal(expected.weights[name], found.weights[name]) for name in expected.weights)


def test_attributes_change_the_training_only_where_there_are_any(trainer):
    """Outputs for attributes teach features as well; without attributes, or with the option off, there are none."""
    given, plain = DESCRIBED | {"learn_attributes": True}, resnet18.Trainer(make_train_data(30, (12, 10, 3)))

    def weights(trainer, given):
        return trainer.fit(given, epochs=1, seed=3).weights

    without = weights(plain, DESCRIBED)
    for other in (weights(plain, given), weights(trainer, DESCRIBED)):
        assert all(np.array_equal(without[name], other[name]) for name in without)
    assert not np.array_equal(without["network.conv1.weight"], weights(trainer, given)["network.conv1.weight"])


def test_an_unknown_attribute_adds_nothing_to_the_loss():
    """The loss is the sum of the known attributes' cross entropies."""
    attributes = resnet18_data.Attributes(with_attributes(make_train_data(6)), torch.device("cpu"))
    logits = torch.randn(3, 3 + 2 + 3)

    loss = attributes.loss(logits, torch.tensor([0, 1, 2]), 0.0)

    edge, size = -logits[:, 3:5].log_softmax(1), -logits[:, 5:].log_softmax(1)
    expected = [size[0, 0], edge[1, 0] + size[1, 1], edge[2, 1] + size[2, 2]]
    assert 5 == attributes.num_outputs
    assert torch.stack(expected).tolist() == pytest.approx(loss.tolist(), abs=1e-5)


def test_goes_on_from_a_checkpoint_from_before_data_pruning(trainer):
    """A training of the described space that an earlier version began is not lost."""
    states = []
    whole = trainer.fit(DESCRIBED, epochs=2, seed=5, on_epoch=lambda _e, _s, state: states.append(state()) or True)
    del states[0]["losses"]

    assert whole.scores == trainer.fit(DESCRIBED, epochs=2, seed=5, resume=states[0]).scores


def test_an_epoch_is_scored_by_the_mean_of_its_weights(trainer):
    """Every fourth step counts, the last one included, running statistics as well; training goes on from where it was."""
    seen = []
    training = resnet18._Training(trainer, complete(WIDE | {"batch_size": 4}, resnet18.RECIPE), 1, 3)
    training._sampler.num_steps = 5
    step = training._optimizer.step
    training._optimizer.step = lambda: (step(), seen.append([tensor.clone() for tensor in training._live]))

    training.train_epoch(1)
    with training.averaged():
        mean = [tensor.clone() for tensor in training._live]

    for first, last, found, now in zip(seen[0], seen[-1], mean, training._live, strict=True):
        torch.testing.assert_close(found, (first + last) / 2)
        assert torch.equal(last, now)


def test_normalisation_counts_its_steps_as_torch_does(trainer):
    """A checkpoint holds the number of steps, though no step counts itself."""
    states = []
    trainer.fit(DESCRIBED | {"batch_size": 8}, epochs=2, seed=0, on_epoch=lambda _e, _s, s: states.append(s()) or True)
    counters = [
        [v for name, v in state.items() if name.startswith("model/") and "num_batches" in name] for state in states
    ]

    assert [3] * 20 == counters[0]
    assert [6] * 20 == counters[1]


def test_divergence_ends_the_trial_within_an_epoch(trainer):
    """NaN or infinity is an error of the trial; the trainer goes on."""
    with pytest.raises(TrialDivergedError):
        trainer.fit(DESCRIBED | {"learning_rate": 1e30}, epochs=4, seed=0)

    assert 1 == len(trainer.fit(DESCRIBED, epochs=1, seed=0).scores)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError("no memory")])
def test_out_of_memory_ends_the_trial_only(trainer, monkeypatch, error):
    """The device's own error becomes the contract's; any other error stays what it is."""

    def exhausted(*_):
        raise error

    monkeypatch.setattr(resnet18._Training, "train_epoch", exhausted)
    with pytest.raises(TrialOutOfMemoryError, match="memory"):
        trainer.fit(DESCRIBED, epochs=1, seed=0)


def test_other_errors_are_not_taken_for_exhausted_memory(trainer, monkeypatch):
    """A defect does not hide as a lost trial."""

    def broken(*_):
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(resnet18._Training, "train_epoch", broken)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        trainer.fit(DESCRIBED, epochs=1, seed=0)


@pytest.mark.parametrize(
    ("num", "shape", "num_classes"), [(10, (28, 28, 1), 2), (46, (20, 15, 3), 45), (2, (9, 7, 2), 2)]
)
def test_any_shape_and_number_of_classes(num, shape, num_classes):
    """Tiny data, single examples, many classes and odd channel counts train without an error."""
    trainer = resnet18.Trainer(make_train_data(num, shape, num_classes))

    result = trainer.fit(DESCRIBED, epochs=1, seed=0)

    assert 1 == len(result.scores)
    assert num_classes == len(result.weights["network.fc.1.bias"])


def test_momentum_means_what_the_description_says():
    """Momentum is Adam's beta1 and RMSprop's momentum, and NAG is SGD with Nesterov's."""
    model, kind = torch.nn.Linear(2, 2), (torch.float32, torch.device("cpu"))

    made = {name: resnet18._optimizer(model, DESCRIBED | {"optimizer": name, "momentum": 0.3}, *kind).param_groups[0]
            for name in ("SGD", "Adam", "RMSprop", "NAG")}  # fmt: skip

    assert (0.3, False) == (made["SGD"]["momentum"], made["SGD"]["nesterov"])
    assert (0.3, True) == (made["NAG"]["momentum"], made["NAG"]["nesterov"])
    assert 0.3 == made["Adam"]["betas"][0]
    assert 0.3 == made["RMSprop"]["momentum"]


def test_augmentation_moves_pixels_and_makes_none_up():
    """Shifted and mirrored images hold values of the original, each image moved on its own."""
    torch.manual_seed(0)
    pixels = torch.arange(2 * 3 * 25 * 20, dtype=torch.float32).view(2, 3, 25, 20)

    moved = resnet18_network.augment(pixels, "flip_shift")

    assert pixels.shape == moved.shape
    assert all(set(m.unique().tolist()) <= set(p.unique().tolist()) for m, p in zip(moved, pixels, strict=True))
    assert not torch.equal(moved, pixels)
    assert pixels is resnet18_network.augment(pixels, "none")


@pytest.mark.parametrize("shape", [(3, 2), (1, 1), (2, 1)])
@pytest.mark.parametrize(("size", "stride"), [(3, 1), (3, 2), (1, 2)])
def test_a_small_map_is_convolved_alike_as_a_matrix_product(monkeypatch, size, stride, shape):
    """Output and both gradients are those of `nn.Conv2d`, whose way is left to larger maps and to inference."""
    given = {"kernel_size": size, "stride": stride, "padding": size // 2, "bias": False, "dtype": torch.float64}
    usual, small = torch.nn.Conv2d(5, 7, **given), resnet18_network.SmallMapConv2d(5, 7, **given)
    small.load_state_dict(usual.state_dict())
    monkeypatch.setattr(small, "_conv_forward", None)
    images = torch.randn(4, 5, *shape, dtype=torch.float64)

    found = []
    for convolution in (usual, small):
        pixels = images.clone().requires_grad_()
        output = convolution(pixels)
        output.square().sum().backward()
        found.append((output, pixels.grad, convolution.weight.grad))

    for expected, got in zip(*found, strict=True):
        torch.testing.assert_close(got, expected)
    for convolution, pixels in ((small, torch.randn(4, 5, 9, 9)), (small.eval(), images)):
        with pytest.raises(TypeError, match="not callable"):
            convolution(pixels)


def test_pretrained_weights_are_taken_in_both_formats(tmp_path):
    """A torch state dict and safetensors give the same start, whose first layer is the file's."""
    torch.manual_seed(1)
    state = torchvision.models.resnet18().state_dict()
    torch.save(state, tmp_path / "resnet18.pth")
    safetensors.torch.save_file(state, tmp_path / "resnet18.safetensors")

    for name in ("resnet18.pth", "resnet18.safetensors"):
        trainer = resnet18.Trainer(make_train_data(10, (12, 10, 3)), weights_uri=str(tmp_path / name))
        model = trainer.build(resnet18.RECIPE)

        assert torch.equal(state["conv1.weight"], model.network.conv1.weight)
        assert (3, 512) == tuple(model.network.fc[1].weight.shape)


def test_weights_of_something_else_are_refused(tmp_path):
    """A file that is no ResNet18, and a pickle that would run code, end with exit code 78."""
    torch.save({"layer": torch.zeros(1)}, tmp_path / "other.pth")
    (tmp_path / "code.pth").write_bytes(b"cos\nsystem\n(S'true'\ntR.")

    for name in ("other.pth", "code.pth", "absent.pth"):
        with pytest.raises(ConfigurationError) as caught:
            resnet18.Trainer(make_train_data(10), weights_uri=str(tmp_path / name))
        assert 78 == caught.value.exit_code


def test_a_missing_gpu_is_noticed_at_once():
    """A step that was promised a GPU does not train for days without one."""
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")

    with pytest.raises(ConfigurationError, match="must have a GPU"):
        resnet18.Trainer(make_train_data(10), require_gpu=True)


@pytest.mark.parametrize("can_capture", [True, False])
def test_steps_are_captured_once_a_resolution_and_never_again_where_that_fails(monkeypatch, can_capture):
    """The first step at a resolution runs kernel by kernel; the training is the same whatever takes the others.

    `tests/gpu` captures real steps. Here a plain call stands in for the replay.
    """
    trainer = resnet18.Trainer(make_train_data(120, (12, 10, 3)))
    asked, replayed = [], []

    def capture(step, *inputs):
        asked.append(inputs)

        def replay(*given):
            replayed.append(given)
            return step(*given)

        return replay if can_capture else None

    def trained(captures):
        training = resnet18._Training(trainer, complete(WIDE, resnet18.RECIPE), 2, 3)
        training._captures = captures
        return [training.train_epoch(epoch) for epoch in (1, 2)], training._live

    losses, weights = trained(captures=False)
    monkeypatch.setattr(resnet18, "capture", capture)
    found, found_weights = trained(captures=True)

    assert losses == found
    assert all(torch.equal(a, b) for a, b in zip(weights, found_weights, strict=True))
    assert (2 if can_capture else 1) == len(asked)
    assert can_capture == (len(replayed) > 0)
