"""The ResNet18 network from raw pixels to probabilities, what training does to the pixels, and its ImageNet weights."""

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path

import torch
import torchvision
from safetensors.torch import load as load_safetensors
from torch import nn
from torch.nn import functional

from components.errors import ConfigurationError
from components.models.pretrained import read_weights
from components.models.space import Value

MAX_SHIFT_FRACTION = 0.08
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Classifier(nn.Module):
    """Raw pixels to class probabilities: what training optimises and what is exported, preprocessing included.

    Args:
        num_classes: Number of classes, K.
        num_channels: C of the images; a single channel is shown to the network three times.
        mean: Mean of each channel of the network's input, in 0-1.
        std: Standard deviation of each channel, in 0-1.
        hyperparameters: A complete set; see `resnet18.SPACES` and `resnet18.RECIPE`.
        num_auxiliary: Further outputs of the last layer, behind the K, that training may use; answers do not contain them.
    """

    def __init__(
        self,
        num_classes: int,
        num_channels: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        hyperparameters: dict[str, Value],
        num_auxiliary: int = 0,
    ) -> None:
        super().__init__()
        self.network = torchvision.models.resnet18(num_classes=num_classes + num_auxiliary)
        num_inputs = 3 if num_channels == 1 else num_channels
        if num_inputs != 3:
            self.network.conv1 = nn.Conv2d(num_inputs, 64, 7, 2, 3, bias=False)
        if hyperparameters["stem"] == "small":
            self.network.maxpool = nn.Identity()
        for module in self.network.layer4.modules():
            if isinstance(module, nn.Conv2d):
                module.__class__ = SmallMapConv2d  # same parameters under the same names, another way to compute
        self.network.fc = nn.Sequential(nn.Dropout(float(hyperparameters["dropout"])), self.network.fc)
        self.num_inputs = num_inputs
        self.num_classes = num_classes
        self.mirror_average = bool(hyperparameters["mirror_average"])
        self.resolution: tuple[int, int] | None = None
        self.mean: torch.Tensor
        self.scale: torch.Tensor
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1) * 255)
        self.register_buffer("scale", 1 / (torch.tensor(std).view(1, -1, 1, 1) * 255))

    def normalise(self, images: torch.Tensor) -> torch.Tensor:
        """Turn (n, H, W, C) uint8 into (n, inputs, H, W) float32, channels last in memory."""
        pixels = images.permute(0, 3, 1, 2).float()
        if pixels.shape[1] != self.num_inputs:
            pixels = pixels.expand(-1, self.num_inputs, -1, -1)
        return (pixels - self.mean) * self.scale

    def resize(self, pixels: torch.Tensor) -> torch.Tensor:
        """Bring normalised images to the resolution that the weights were learnt at."""
        if self.resolution is None:
            return pixels
        return functional.interpolate(pixels, size=self.resolution, mode="bilinear")

    @contextlib.contextmanager
    def steps_counted_once(self, num_steps: int) -> Iterator[None]:
        """Let the normalisation layers not count the steps of the block one by one: that is 20 more launches a step.

        Args:
            num_steps: What their counters, which nothing reads, grow by in the end.
        """
        layers = [module for module in self.modules() if isinstance(module, nn.BatchNorm2d)]
        counted = [(layer, layer.num_batches_tracked) for layer in layers if layer.num_batches_tracked is not None]
        for layer, _ in counted:
            layer.num_batches_tracked = None
        yield
        for layer, num_before in counted:
            layer.num_batches_tracked = num_before + num_steps

    def get_extra_state(self) -> torch.Tensor:
        """Keep the resolution with the weights: others than it was learnt with spoil batch normalisation's statistics."""
        return torch.tensor(self.resolution or (0, 0))

    def set_extra_state(self, state: torch.Tensor) -> None:
        """Restore the resolution; zeros stand for the images' own."""
        height, width = state.tolist()
        self.resolution = (height, width) if height else None

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return probabilities (n, K) float32 of (n, H, W, C) uint8 images."""
        pixels = self.resize(self.normalise(images))
        probabilities = self._probabilities(pixels)
        if self.mirror_average:
            probabilities = (probabilities + self._probabilities(pixels.flip(3))) / 2
        return probabilities

    def _probabilities(self, pixels: torch.Tensor) -> torch.Tensor:
        return torch.softmax(self.network(pixels)[:, : self.num_classes].float(), dim=1)

    def without_auxiliary(self, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return a state dict whose last layer has the K outputs alone; its answers are the same."""
        return {k: v[: self.num_classes] if k.startswith("network.fc.") else v for k, v in state.items()}


class SmallMapConv2d(nn.Conv2d):
    """A convolution without bias that trains as one matrix product where a CPU would compute maps of a few positions.

    oneDNN's gradient of the weights reaches a third of the processor's speed on maps of 2x3, a matrix product all of it:
    a training step on 80x60 images takes a tenth less. On maps of 1x1, which 28x28 images end in, only the middle of the kernel
    counts, and a step takes a seventh less. Everywhere else, and for inference, it is `nn.Conv2d`.
    """

    MAX_POSITIONS = 12

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return (n, out, H', W') for (n, in, H, W)."""
        size, stride, padding = self.kernel_size[0], self.stride[0], int(self.padding[0])
        height, width = ((length + 2 * padding - size) // stride + 1 for length in images.shape[2:])
        if not self.training or images.is_cuda or height * width > self.MAX_POSITIONS:
            return super().forward(images)
        pixels, weight = images.permute(0, 2, 3, 1), self.weight.permute(0, 2, 3, 1)
        if images.shape[2:] == (1, 1):
            # Every part of the kernel but its middle sees padding alone.
            return functional.linear(pixels, weight[:, padding, padding]).permute(0, 3, 1, 2)
        around = functional.pad(pixels, (0, 0, *[padding] * 4))
        rows, columns = stride * (height - 1) + 1, stride * (width - 1) + 1
        windows = [
            around[:, top : top + rows : stride, left : left + columns : stride]
            for top in range(size)
            for left in range(size)
        ]
        return functional.linear(torch.cat(windows, dim=3), weight.flatten(1)).permute(0, 3, 1, 2)


def augment(pixels: torch.Tensor, kind: str) -> torch.Tensor:
    """Mirror and shift every image on its own, and blank a rectangle of it, all images at once.

    Args:
        pixels: (n, C, H, W) float32, normalised.
        kind: `none`, `flip_shift` or `flip_shift_erase`.

    Returns:
        Like `pixels`. Shifts are whole pixels, borders are repeated, a blank has the value 0 (the mean).

    Source: random erasing, arXiv 1708.04896.
    """
    if kind == "none":
        return pixels
    num, _, height, width = pixels.shape
    device = pixels.device
    rows = torch.arange(height, device=device).view(1, -1) + _shifts(num, height, device)
    columns = torch.arange(width, device=device).view(1, -1) + _shifts(num, width, device)
    columns = torch.where(torch.rand(num, 1, device=device) < 0.5, width - 1 - columns, columns)
    rows, columns = rows.clamp(0, height - 1), columns.clamp(0, width - 1)
    images = torch.arange(num, device=device).view(-1, 1, 1)
    # Gathered in (n, H, W, C): what a channels-last tensor is in memory, so neither permutation copies.
    moved = pixels.permute(0, 2, 3, 1)[images, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
    if kind == "flip_shift_erase":
        inside = _span(num, height, device)[:, None, :, None] & _span(num, width, device)[:, None, None, :]
        moved = moved.masked_fill(inside & (torch.rand(num, 1, 1, 1, device=device) < 0.5), 0.0)
    return moved


def reduced_resolution(image_shape: tuple[int, ...]) -> tuple[int, int]:
    """Return about four fifths of height and width: a step then costs two thirds."""
    height, width = (max(4, 4 * round(0.2 * length)) for length in image_shape[:2])
    return height, width


def load_pretrained(uri: str) -> dict[str, torch.Tensor]:
    """Return the state dict of torchvision's resnet18 that a URI names; raise `ConfigurationError` where it is none."""
    name, data = read_weights(uri, suffixes=(".safetensors", ".pth", ".pt"))
    try:
        if Path(name).suffix == ".safetensors":
            state = load_safetensors(data)
        else:
            state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        torchvision.models.resnet18().load_state_dict(state)
    except Exception as error:
        raise ConfigurationError(
            f"train_weights must hold a state dict of torchvision's resnet18 with 1,000 classes; got {name}: "
            f"{str(error).splitlines()[0][:200]}. Save `resnet18(weights='DEFAULT').state_dict()` as safetensors"
        ) from error
    return state


def _shifts(num: int, size: int, device: torch.device) -> torch.Tensor:
    largest = round(MAX_SHIFT_FRACTION * size)
    return torch.randint(-largest, largest + 1, (num, 1), device=device)


def _span(num: int, size: int, device: torch.device) -> torch.Tensor:
    """Return (n, size) bool: a run of 10-50 % of the size at a random place."""
    length = (0.1 + 0.4 * torch.rand(num, 1, device=device)) * size
    start = torch.rand(num, 1, device=device) * (size - length)
    at = torch.arange(size, device=device).view(1, -1)
    return (at >= start) & (at < start + length)
