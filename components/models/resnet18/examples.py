"""One dataset's images and attributes where ResNet18's training wants them: on the device."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch.nn import functional

from components.data.contract import TrainData
from components.models.hardware import fits_on_gpu

PART = 4096
"""Images that go to a GPU together."""


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
        self._values = [torch.from_numpy(known[:, a].astype(np.int64)).to(device) for a in used]

    def loss(self, logits: torch.Tensor, indices: torch.Tensor, smoothing: float) -> torch.Tensor:
        """Return each example's loss (n,), summed over the attributes; one whose value is unknown adds nothing.

        Args:
            logits: (n, K + outputs) float32.
            indices: (n,) int64, the examples.
            smoothing: Label smoothing.
        """
        total = logits.new_zeros(len(logits))
        for values, part in zip(self._values, logits.split(self._sizes, dim=1)[1:], strict=True):
            total = total + functional.cross_entropy(
                part, values[indices], label_smoothing=smoothing, ignore_index=-1, reduction="none"
            )
        return total


class Images:
    """All images of a dataset: on the device where they fit, else left where they are (memory or a mapped file)."""

    def __init__(self, images: np.ndarray, device: torch.device) -> None:
        self._device, self._source = device, images
        on_gpu = device.type == "cuda"
        # A mapped file stays on disk where the device is the CPU.
        fits = fits_on_gpu(images.nbytes, torch.cuda.mem_get_info()[0]) if on_gpu else not isinstance(images, np.memmap)
        self._tensor = _on_device(images, device) if fits else None

    def batches(self, order: Sequence[torch.Tensor]) -> Iterator[torch.Tensor]:
        """Yield the images (n, H, W, C) uint8 of each batch of indices of examples (n,) int64, on the device.

        What does not lie on the device is read by another thread while the device works on the batch before. A yielded
        batch is valid until the next but one is asked for.
        """
        if self._tensor is not None:
            yield from (self._tensor[indices] for indices in order)
            return
        # One copy to the host for all batches: a copy a step would make the GPU wait for Python.
        indices = torch.cat(tuple(order)).cpu().numpy()
        parts = np.split(indices, np.cumsum([len(part) for part in order])[:-1])
        shape = (max(len(part) for part in parts), *self._source.shape[1:])
        on_gpu = self._device.type == "cuda"
        buffers = [torch.empty(shape, dtype=torch.uint8, pin_memory=on_gpu) for _ in range(2)]
        copied = [torch.cuda.Event() if on_gpu else None for _ in buffers]

        def read(step: int) -> torch.Tensor:
            buffer, event = buffers[step % 2][: len(parts[step])], copied[step % 2]
            if event is not None:
                event.synchronize()
            np.take(self._source, parts[step], axis=0, out=buffer.numpy(), mode="clip")
            return buffer

        with ThreadPoolExecutor(1) as reader:
            coming = reader.submit(read, 0)
            for step in range(len(parts)):
                images = coming.result().to(self._device, non_blocking=True)
                if (event := copied[step % 2]) is not None:
                    event.record()
                if step + 1 < len(parts):
                    coming = reader.submit(read, step + 1)
                yield images


def _on_device(images: np.ndarray, device: torch.device) -> torch.Tensor:
    if device.type == "cpu":
        return torch.from_numpy(np.ascontiguousarray(images))
    tensor = torch.empty(images.shape, dtype=torch.uint8, device=device)
    # In parts, because the host may have no room for all pages of a mapped file.
    for start in range(0, len(images), PART):
        tensor[start : start + PART] = torch.from_numpy(np.array(images[start : start + PART]))
    return tensor
