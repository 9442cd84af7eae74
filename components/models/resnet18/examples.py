"""One dataset's images and attributes where ResNet18's training wants them: on the device."""

import numpy as np
import torch
from torch.nn import functional

from components.data.contract import TrainData


class Attributes:
    """What else is known of the examples: the last layer learns to tell it in outputs of their own behind the K classes.

    What an article is beyond its class makes features that tell classes apart as well, at hardly any cost.

    Source: Caruana 1997, Multitask Learning, https://doi.org/10.1023/A:1007379606734
    """

    def __init__(self, data: TrainData, device: torch.device) -> None:
        sizes = [len(values) for values in data.info.attributes.values()]
        # A single value teaches nothing.
        known = data.attributes if data.attributes is not None else np.empty((0, 0), np.int64)
        used = [] if data.attributes is None else [a for a, size in enumerate(sizes) if size > 1]
        self.num_outputs = sum(sizes[a] for a in used)
        self._sizes = [len(data.info.classes), *(sizes[a] for a in used)]
        self._numbers = [torch.from_numpy(known[:, a].astype(np.int64)).to(device) for a in used]

    def loss(self, logits: torch.Tensor, numbers: torch.Tensor, smoothing: float) -> torch.Tensor:
        """Return each example's loss (n,), summed over the attributes; one whose value is unknown adds nothing.

        Args:
            logits: (n, K + outputs) float32.
            numbers: (n,) int64, the examples.
            smoothing: Label smoothing.
        """
        total = logits.new_zeros(len(logits))
        for values, part in zip(self._numbers, logits.split(self._sizes, dim=1)[1:], strict=True):
            total = total + functional.cross_entropy(
                part, values[numbers], label_smoothing=smoothing, ignore_index=-1, reduction="none"
            )
        return total


class Images:
    """All images of a dataset: on the device where they fit, else left where they are (memory or a mapped file)."""

    def __init__(self, images: np.ndarray, device: torch.device) -> None:
        self._device, self._source = device, images
        fits = device.type == "cpu" or images.nbytes < 0.5 * torch.cuda.mem_get_info()[0]
        mapped = isinstance(images, np.memmap)
        self._tensor = torch.from_numpy(np.ascontiguousarray(images)).to(device) if fits and not (
            mapped and device.type == "cpu") else None  # fmt: skip

    def take(self, numbers: torch.Tensor) -> torch.Tensor:
        """Return the images (n, H, W, C) uint8 of the numbers (n,) int64, on the device."""
        if self._tensor is None:
            return torch.from_numpy(self._source[numbers.cpu().numpy()]).to(self._device)
        return self._tensor[numbers]
