import dataclasses
import gc
import weakref

import numpy as np
import pytest
import torch

from components.models.contract import TrialOutOfMemoryError
from components.models.loop import complete
from components.models.resnet18 import training as resnet18
from tests.gpu import promises
from tests.models.examples import make_train_data

DESCRIBED = {"learning_rate": 0.02, "momentum": 0.9, "weight_decay": 0.0005, "optimizer": "NAG"}
WIDE = DESCRIBED | {
    "batch_size": 16,
    "label_smoothing": 0.1,
    "dropout": 0.1,
    "augmentation": "flip_shift_erase",
    "rare_class_share": 0.1,
    "data_pruning": 0.5,
    "mirror_average": True,
    "low_resolution_fraction": 0.6,
    "stem": "small",
}


@pytest.mark.parametrize("optimizer", ["SGD", "Adam", "RMSprop", "NAG"])
def test_weights_images_and_optimizer_are_on_the_device(on_gpu, optimizer):
    """Nothing that a step on a GPU uses waits for the host, and the GPU's memory is reported."""
    trainer = resnet18.Trainer(make_train_data(30, (12, 10, 3)), require_gpu=on_gpu)
    training = resnet18._Training(trainer, complete(DESCRIBED | {"optimizer": optimizer}, resnet18.RECIPE), 1, 0)
    training.train_epoch(1)
    slots = [v for kept in training._optimizer.state.values() for v in kept.values() if torch.is_tensor(v) and v.ndim]
    tensors = [
        *(trainer._images._tensor, trainer._labels),
        *training._model.state_dict().values(),
        *training._means,
        *slots,
    ]

    assert slots
    # The resolution is a fact about the weights and not part of the computation.
    kind = "cuda" if on_gpu else "cpu"
    assert [] == [t.device for t in tensors if t.device.type != kind and t.numel() != 2]
    assert on_gpu == (training.peak_memory_bytes > trainer._images._tensor.nbytes)
    assert on_gpu == (trainer.device_name != "cpu")


@pytest.mark.gpu
def test_export_agrees(tmp_path):
    """Parity, whatever type the device multiplies in; `tests/models` has the CPU's."""
    promises.promise_export_agrees(resnet18, WIDE, tmp_path)


def test_resuming_goes_on(on_gpu):
    """The state is restored bit for bit."""
    promises.promise_resuming_goes_on(resnet18, WIDE | {"learning_rate": 0.005}, on_gpu)


def test_out_of_memory_costs_one_trial(monkeypatch):
    """The allocator of torch itself refuses."""
    trainer = resnet18.Trainer(make_train_data(30, (12, 10, 3)))
    promises.promise_out_of_memory_costs_one_trial(
        trainer,
        DESCRIBED,
        monkeypatch,
        lambda: torch.empty(2**50, dtype=torch.uint8, device=trainer._device),
    )


def test_a_training_that_failed_leaves_nothing_behind(monkeypatch):
    """Its tensors go at once and not with the next collection, which an allocation on a GPU does not wait for."""
    trainer = resnet18.Trainer(make_train_data(30, (12, 10, 3)))
    step, left = resnet18._Training._step, []

    def exhausted(training, *given):
        step(training, *given)
        left.extend(weakref.ref(tensor) for tensor in training._live)
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(resnet18._Training, "_step", exhausted)
    gc.disable()
    try:
        with pytest.raises(TrialOutOfMemoryError):
            trainer.fit(DESCRIBED, epochs=1, seed=0)
        alive = [reference for reference in left if reference() is not None]
    finally:
        gc.enable()

    assert left
    assert [] == alive


@pytest.mark.gpu
def test_a_card_that_is_too_small_costs_the_trial_only():
    """A step that fails in its middle leaves nothing behind: the same trial fits once there is room."""
    trainer = resnet18.Trainer(make_train_data(600, (64, 64, 3)), require_gpu=True)
    # The libraries' workspaces stay once they are there.
    trainer.fit(DESCRIBED, epochs=1, seed=0)
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    total = torch.cuda.get_device_properties(0).total_memory
    # ResNet18's weights, gradients, momentum and means alone take 180 MB.
    torch.cuda.set_per_process_memory_fraction((before + 150 * 2**20) / total)
    try:
        with pytest.raises(TrialOutOfMemoryError):
            trainer.fit(DESCRIBED, epochs=1, seed=0)
        left = torch.cuda.memory_allocated() - before
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)

    assert left < 2**20
    assert 1 == len(trainer.fit(DESCRIBED, epochs=1, seed=0).scores)


def test_data_larger_than_the_memory(tmp_path, monkeypatch, on_gpu):
    """Batches travel through pinned buffers that another thread fills."""

    def limit(num_bytes):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (num_bytes, 2 * num_bytes))

    given = complete(DESCRIBED | {"augmentation": "none"}, resnet18.RECIPE)
    promises.promise_data_larger_than_the_memory(resnet18, given, tmp_path, on_gpu, limit)


@pytest.mark.gpu
def test_a_mapped_file_that_fits_lies_on_the_gpu(tmp_path):
    """Images that the host has no room for go to the device in parts."""
    data = make_train_data(120, (12, 10, 3))
    np.save(tmp_path / "images.npy", data.images)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r", allow_pickle=False)

    trainer = resnet18.Trainer(dataclasses.replace(data, images=mapped), require_gpu=True)

    assert np.array_equal(data.images, trainer._images._tensor.cpu().numpy())


@pytest.mark.gpu
def test_float16_learns_on_the_gpu(monkeypatch):
    """What a card below compute capability 8 does: gradients are scaled, and the training learns."""
    monkeypatch.setattr(resnet18, "product_dtype", lambda _: torch.float16)
    trainer = resnet18.Trainer(make_train_data(600, (12, 10, 3)), require_gpu=True)

    result = trainer.fit(DESCRIBED | {"batch_size": 16, "stem": "small"}, epochs=4, seed=1)

    assert max(result.scores) > 0.6


@pytest.mark.gpu
@pytest.mark.parametrize("optimizer", ["SGD", "Adam", "RMSprop", "NAG"])
def test_captured_steps_equal_eager_ones(optimizer, monkeypatch):
    """A CUDA graph takes the steps that Python would take: the same examples, random numbers, rates and means of weights."""
    given = WIDE | {"optimizer": optimizer, "learning_rate": 0.002}
    trainer = resnet18.Trainer(make_train_data(600, (12, 10, 3)), require_gpu=True)
    captured = trainer.fit(given, epochs=3, seed=3)
    losses, weights = _losses(trainer, given)
    with monkeypatch.context() as patch:
        patch.setattr(resnet18, "capture", lambda *_: None)
        eager = trainer.fit(given, epochs=3, seed=3)
        eager_losses, eager_weights = _losses(trainer, given)

    assert eager.scores == pytest.approx(captured.scores, abs=promises.SCORE_TOLERANCE)
    assert eager_losses == pytest.approx(losses, abs=0.02)
    assert eager_weights == pytest.approx(weights, abs=1e-4)


def _losses(trainer, given):
    """Return each example's loss, and the means of the weights, of an epoch whose steps hardly change the weights."""
    training = resnet18._Training(trainer, complete(given | {"learning_rate": 1e-6}, resnet18.RECIPE), 1, 3)
    training.train_epoch(1)
    return training._pruning.losses.copy(), torch.cat([mean.flatten() for mean in training._means]).cpu().numpy()


@pytest.mark.gpu
def test_steps_that_cannot_be_captured_run_eagerly(monkeypatch, caplog):
    """A step that waits for the host costs one line in the log, and the training's scores are those without graphs."""
    step = resnet18._Training._step

    def waiting(training, *given):
        losses = step(training, *given)
        assert losses.sum().item() > 0
        return losses

    trainer = resnet18.Trainer(make_train_data(600, (12, 10, 3)), require_gpu=True)
    expected = trainer.fit(WIDE, epochs=2, seed=3)
    monkeypatch.setattr(resnet18._Training, "_step", waiting)

    found = trainer.fit(WIDE, epochs=2, seed=3)

    assert expected.scores == pytest.approx(found.scores, abs=promises.SCORE_TOLERANCE)
    assert 1 == sum("a CUDA graph of them fails" in record.message for record in caplog.records)


@pytest.mark.slow
def test_two_workers_share_a_device(tmp_path):
    """Neither takes the whole card."""
    promises.promise_two_workers_share_a_device("resnet18", tmp_path)


@pytest.mark.slow
def test_missing_gpu_is_noticed():
    """At once, with the exit code that says whose fault it is."""
    promises.promise_missing_gpu_is_noticed("resnet18")
