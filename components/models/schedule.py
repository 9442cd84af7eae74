"""Learning rate over a training, shared by both approaches; imports no framework.

Source: cosine decay, arXiv 1608.03983; one-cycle warm-up, arXiv 1708.07120.
"""

import math


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
