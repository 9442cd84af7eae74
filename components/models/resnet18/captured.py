"""A training step as a CUDA graph: hundreds of kernels that Python would launch one by one start with one call.

Source: https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs
"""

import logging
from collections.abc import Callable

import torch

from components.models.faults import first_line

log = logging.getLogger(__name__)

Step = Callable[..., torch.Tensor]
"""Takes tensors on the device, changes what it trains in place and returns the losses; it waits for nothing on the host."""


class CapturedStep:
    """Replays on other inputs the kernels that one call of a step launches; called like the step.

    Random numbers are drawn anew in each replay, as the step itself would draw them.

    Args:
        step: Has run before with inputs like these, so that the libraries have chosen their algorithms. It is recorded and
            not run.
        inputs: Examples of what it takes; all later ones have the same shapes and types.

    Raises:
        RuntimeError: The step does something that a CUDA graph cannot hold, or the memory is full.
    """

    def __init__(self, step: Step, *inputs: torch.Tensor) -> None:
        self._inputs = [tensor.clone() for tensor in inputs]
        self._graph = torch.cuda.CUDAGraph()
        # Another thread may copy the next images to the device meanwhile.
        with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            self._losses = step(*self._inputs)

    def __call__(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Run the step; what it returns is valid until the next call."""
        for mine, given in zip(self._inputs, inputs, strict=True):
            mine.copy_(given)
        self._graph.replay()
        return self._losses


def capture(step: Step, *inputs: torch.Tensor) -> CapturedStep | None:
    """Return the step as a CUDA graph; None where it cannot be captured, and the log says why."""
    random = torch.cuda.get_rng_state()
    try:
        return CapturedStep(step, *inputs)
    except RuntimeError as error:
        log.warning("steps are launched kernel by kernel; a CUDA graph of them fails: %s", first_line(error))
    # A capture that failed leaves the generator waiting for its end.
    generator = torch.cuda.default_generators[torch.cuda.current_device()]
    generator.graphsafe_set_state(torch.Generator(generator.device).graphsafe_get_state())
    torch.cuda.set_rng_state(random)
    return None
