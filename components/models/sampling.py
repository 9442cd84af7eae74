"""Which training examples an epoch visits, in which order and in batches of which size; imports no framework.

Every draw is a function of (seed, epoch), so a resumed training sees exactly the batches it would have seen.
"""

import numpy as np

MIN_STEPS_PER_EPOCH = 32
"""Below this many steps an epoch, batch normalisation and short trainings suffer: the batch shrinks instead."""


def batch_size_for(num_examples: int, largest: int) -> int:
    """Return the largest power of two up to `largest` that leaves an epoch enough steps, at least 16."""
    size = largest
    while size > 16 and num_examples // size < MIN_STEPS_PER_EPOCH:
        size //= 2
    return size


def repeat_factors(labels: np.ndarray, threshold: float) -> np.ndarray:
    """Return how often an epoch visits each example, so that rare classes are seen more often.

    Args:
        labels: (N,) int64 class of each training example.
        threshold: Classes with a smaller share of the examples are repeated; 0 turns repeating off.

    Returns:
        (N,) float64, max(1, sqrt(threshold / share of the class)).

    Source: repeat factor sampling, arXiv 1908.03195, section 3.4.
    """
    share = np.bincount(labels) / len(labels)
    return np.maximum(1.0, np.sqrt(threshold / share[labels]))


class EpochSampler:
    """Draws the batches of any epoch.

    Args:
        repeats: (N,) float64 expected visits of each example in one epoch.
        batch_size: Examples a step; fewer where there are fewer.
        seed: Seed of the training.
    """

    def __init__(self, repeats: np.ndarray, batch_size: int, seed: int) -> None:
        self._repeats = repeats
        self._seed = seed
        expected = int(repeats.sum())
        # Batch normalisation needs two examples: a single one is shown twice.
        self.batch_size = max(2, min(batch_size, expected))
        self.num_steps = max(1, expected // self.batch_size)

    def epoch(self, epoch: int, kept: np.ndarray | None = None) -> np.ndarray:
        """Return indices of examples (steps, batch size) int64 of the epoch; what is left over is another epoch's.

        Args:
            epoch: Number of the epoch, from 1.
            kept: (N,) bool, which examples the epoch may visit; all of them without it.
        """
        rng = np.random.default_rng((self._seed, epoch))
        whole = np.floor(self._repeats)
        times = whole + (rng.random(len(whole)) < self._repeats - whole)
        num_steps = self.num_steps
        if kept is not None and not kept.all():
            times = times * kept
            num_steps = max(1, int(times.sum()) // self.batch_size)
        order = rng.permutation(np.repeat(np.arange(len(times)), times.astype(np.int64)))
        return np.resize(order, (num_steps, self.batch_size))


class DataPruning:
    """Leaves part of the well-learnt examples out of an epoch and counts the others like them for the missing ones.

    The first epoch has no losses to go by, and the last eighth of a training visits everything.

    Args:
        num_examples: Number of training examples, N.
        ratio: Chance, 0 to below 1, that an epoch leaves out an example whose loss is below the mean; 0 visits all.
        num_epochs: Epochs of the training.
        seed: Seed of the training.

    Attributes:
        losses: (N,) float32 loss of each example at its last visit; infinite before the first.

    Source: InfoBatch, arXiv 2303.04947.
    """

    FULL_FRACTION = 0.125

    def __init__(self, num_examples: int, ratio: float, num_epochs: int, seed: int) -> None:
        self._ratio, self._num_epochs, self._seed = ratio, num_epochs, seed
        self.losses = np.full(num_examples, np.inf, np.float32)

    def epoch(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Return which examples the epoch (from 1) visits, (N,) bool, and the factors of their losses, (N,) float32."""
        seen = np.isfinite(self.losses)
        if not self._ratio or not seen.any() or epoch > self._num_epochs * (1 - self.FULL_FRACTION):
            return np.ones(len(seen), bool), np.ones(len(seen), np.float32)
        easy = self.losses < self.losses[seen].mean()
        rng = np.random.default_rng((self._seed, epoch, 1))
        kept = ~easy | (rng.random(len(seen)) >= self._ratio)
        return kept, np.where(easy, 1 / (1 - self._ratio), 1).astype(np.float32)


def channel_statistics(images: np.ndarray, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation per channel, in 0-255, of the numbered images (10,000 of them at most).

    Args:
        images: (N, H, W, C) uint8, possibly memory-mapped.
        indices: Indices of the training examples, at least one.

    Returns:
        Two (C,) float32 arrays; the deviation is at least 1.
    """
    chosen = indices[:: max(1, len(indices) // 10_000)]
    counts = np.zeros((256, images.shape[3]))
    for chunk in np.array_split(chosen, -(-len(chosen) // 1000)):
        pixels = images[chunk]
        counts += np.stack([np.bincount(pixels[..., c].ravel(), minlength=256) for c in range(images.shape[3])], axis=1)
    share, levels = counts / counts.sum(axis=0), np.arange(256)[:, None]
    mean = (share * levels).sum(axis=0)
    variance = (share * (levels - mean) ** 2).sum(axis=0)
    return mean.astype(np.float32), np.maximum(np.sqrt(variance), 1).astype(np.float32)
