"""Learning rate over a training and the mean of its weights, shared by both approaches; imports no framework.

An epoch's score, and the weights that are kept, are those of the mean of the weights over the epoch. While the rate is
high, weights circle around what they are worth: a score of one moment says little about the end of the training.

Source: cosine decay, arXiv 1608.03983; one-cycle warm-up, arXiv 1708.07120; means of weights, Polyak and Juditsky, SIAM J.
    Control Optim. 30 (1992), and arXiv 1803.05407.
"""

import math

AVERAGE_EVERY = 4
"""Steps between the weights that an epoch's mean is made of, counted from the last one."""


def learning_rate_factor(step: int, num_steps: int, warmup_fraction: float) -> float:
    """Return what the peak learning rate is multiplied with: a linear warm-up, then half a cosine towards zero.

    Args:
        step: From 0 to `num_steps` - 1.
        num_steps: Steps of the whole training, at least 1.
        warmup_fraction: Share of the steps spent on warming up, 0 <= fraction < 1.

    Returns:
        In (0, 1].
    """
    num_warmup = int(num_steps * warmup_fraction)
    if step < num_warmup:
        return (step + 1) / (num_warmup + 1)
    progress = (step - num_warmup) / max(1, num_steps - num_warmup)
    return 0.5 * (1 + math.cos(math.pi * progress))
