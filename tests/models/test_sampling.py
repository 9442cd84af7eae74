import numpy as np
import pytest

from components.models.sampling import DataPruning, EpochSampler, batch_size_for, channel_statistics, repeat_factors


def test_an_epoch_visits_every_example_at_most_once():
    """Without repeats an epoch is a permutation cut into whole batches."""
    sampler = EpochSampler(np.ones(100), 16, seed=3)

    order = sampler.epoch(1)

    assert (6, 16) == order.shape
    assert 96 == len(np.unique(order))


def test_an_epoch_depends_on_seed_and_number_only():
    """A resumed training sees the batches that it would have seen."""
    first, again = (EpochSampler(np.ones(50), 8, seed=1) for _ in range(2))
    first.epoch(1)

    assert (first.epoch(2) == again.epoch(2)).all()
    assert (first.epoch(2) != again.epoch(3)).any()


@pytest.mark.parametrize("num", [1, 2, 9, 10, 17])
def test_no_batch_has_a_single_example(num):
    """Batch normalisation fails on one example, so none is ever alone."""
    order = EpochSampler(np.ones(num), 16, seed=0).epoch(1)

    assert order.shape[1] >= 2
    assert order.max() < num


def test_rare_classes_are_repeated():
    """A class below the share is visited more often, the others exactly once."""
    labels = np.array([0] * 99 + [1])

    factors = repeat_factors(labels, 0.04)

    assert 1.0 == factors[0]
    assert 2.0 == factors[-1]
    assert (repeat_factors(labels, 0.0) == 1).all()


def test_fractional_repeats_hold_on_average():
    """Over many epochs an example with factor 1.5 comes up one and a half times as often."""
    sampler = EpochSampler(np.array([1.5] + [1.0] * 50), 51, seed=0)

    visits = [np.count_nonzero(sampler.epoch(epoch) == 0) for epoch in range(400)]

    assert 1.5 == pytest.approx(np.mean(visits), abs=0.1)


def test_an_epoch_leaves_out_only_what_training_already_gets_right():
    """Half of the examples with a loss below the mean stay away, the other half count twice: the expected sum is kept."""
    pruning = DataPruning(1_000, 0.5, num_epochs=10, seed=0)
    pruning.losses[:] = [0.1] * 800 + [2.0] * 200

    kept, weights = pruning.epoch(2)

    assert kept[800:].all()
    assert 400 == pytest.approx(kept[:800].sum(), abs=50)
    assert ([2.0], [1.0]) == (np.unique(weights[:800]), np.unique(weights[800:]))
    assert pruning.losses.sum() == pytest.approx((pruning.losses * weights)[kept].sum(), rel=0.05)
    assert (kept == pruning.epoch(2)[0]).all()
    assert (kept != pruning.epoch(3)[0]).any()


@pytest.mark.parametrize(("ratio", "epoch", "loss"), [(0.0, 2, 0.5), (0.5, 9, 0.5), (0.5, 10, 0.5), (0.5, 1, np.inf)])
def test_some_epochs_visit_everything(ratio, epoch, loss):
    """Without pruning, before any loss is known, and in the last eighth of a training."""
    pruning = DataPruning(50, ratio, num_epochs=10, seed=0)
    pruning.losses[:25] = loss
    pruning.losses[25:] = 2 * loss

    kept, weights = pruning.epoch(epoch)

    assert kept.all()
    assert (weights == 1).all()


def test_a_pruned_epoch_has_fewer_batches_and_only_kept_examples():
    """The batch size stays what it was; nothing that was left out comes up."""
    sampler = EpochSampler(np.ones(100), 16, seed=0)
    kept = np.arange(100) < 40

    assert (2, 16) == sampler.epoch(1, kept).shape
    assert sampler.epoch(1, kept).max() < 40
    assert (sampler.epoch(1) == sampler.epoch(1, np.ones(100, bool))).all()


def test_small_data_gets_small_batches():
    """An epoch keeps enough steps to learn from, whatever the hardware could take at once."""
    assert [256, 32, 16] == [batch_size_for(num, 256) for num in (54_000, 1_200, 10)]


def test_statistics_are_those_of_the_chosen_examples():
    """Mean and deviation per channel leave the validation examples out."""
    images = np.random.default_rng(0).integers(0, 256, (20, 4, 3, 2), dtype=np.uint8)

    mean, std = channel_statistics(images, np.arange(10))

    assert mean == pytest.approx(images[:10].mean(axis=(0, 1, 2)), abs=1e-3)
    assert std == pytest.approx(images[:10].std(axis=(0, 1, 2)), abs=1e-3)


def test_a_constant_channel_is_not_divided_by_zero():
    """Black images are a valid, if dull, data set."""
    mean, std = channel_statistics(np.zeros((3, 2, 2, 1), np.uint8), np.arange(3))

    assert (0, 1) == (mean[0], std[0])
