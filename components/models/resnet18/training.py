"""The ResNet18 approach: torchvision's network, trained with the data on the device.

A step costs no per-image Python: the packed uint8 images lie on the device, a batch is gathered, normalised and
augmented there, in channels-last layout and bfloat16 where the hardware has it.
"""

import contextlib
import logging
import warnings
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

from components.data.contract import TRAIN, VALIDATION, TrainData
from components.models import loop
from components.models.contract import FitResult, State
from components.models.faults import missing_gpu
from components.models.hardware import cpu_has_bfloat16, keep_freed_memory, num_usable_cores, onnx_difference
from components.models.resnet18.captured import CapturedStep, capture
from components.models.resnet18.examples import Attributes, Images
from components.models.resnet18.network import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Classifier,
    augment,
    load_pretrained,
    reduced_resolution,
)
from components.models.sampling import DataPruning, EpochSampler, batch_size_for, channel_statistics, repeat_factors
from components.models.schedule import AVERAGE_EVERY, learning_rate_factor
from components.models.space import Parameter, Space, Value

APPROACH = "resnet18"
NATIVE_FILE = "model.safetensors"
PACKAGES: tuple[str, ...] = ("torch", "torchvision")

_DESCRIBED = (
    Parameter(name="learning_rate", low=0.001, high=0.1, log=True, default=0.1),
    Parameter(name="momentum", low=0.1, high=0.9, default=0.9),
    Parameter(name="weight_decay", low=0.0001, high=0.01, log=True, default=0.0005),
    Parameter(name="optimizer", choices=("SGD", "Adam", "RMSprop", "NAG"), default="NAG"),
)
SPACES = {
    "described": Space(_DESCRIBED),
    "wide": Space(
        (
            *_DESCRIBED,
            Parameter(name="batch_size", choices=(64, 128, 256), default=128),
            Parameter(name="label_smoothing", low=0.0, high=0.2, default=0.1),
            Parameter(name="dropout", low=0.0, high=0.5, default=0.0),
            Parameter(
                name="augmentation", choices=("none", "flip_shift", "flip_shift_erase"), default="flip_shift_erase"
            ),
            Parameter(name="rare_class_share", choices=(0.0, 0.003, 0.01, 0.03), default=0.01),
            Parameter(name="learn_attributes", choices=(False, True), default=True),
            Parameter(name="data_pruning", choices=(0.0, 0.5), default=0.5),
            Parameter(name="mirror_average", choices=(False, True), default=True),
            Parameter(name="low_resolution_fraction", choices=(0.0, 0.6, 1.0), default=1.0),
            Parameter(name="stem", choices=("stock", "small"), default="stock"),
        )
    ),
}
"""Peak learning rate of a one-cycle schedule. `momentum` is Adam's beta1 and RMSprop's momentum; NAG is SGD with Nesterov."""

RECIPE: dict[str, Value] = {
    "label_smoothing": 0.0,
    "dropout": 0.0,
    "augmentation": "flip_shift",
    "rare_class_share": 0.0,
    "learn_attributes": False,
    "data_pruning": 0.0,
    "mirror_average": False,
    "low_resolution_fraction": 0.0,
    "stem": "stock",
}
"""What the described space leaves fixed."""

LARGEST_BATCH = 128
"""Of the described space, on every device: with 256, the best learning rate lies beyond its range."""

WARMUP_FRACTION = 0.2
VALIDATION_BATCH = 512


def has_gpu() -> bool:
    """Return whether a trainer of this process would use a GPU."""
    return torch.cuda.is_available()


class Trainer(loop.EpochTrainer):
    """Holds one dataset on the device and trains any number of hyperparameter sets on it, one after another.

    Args:
        train_data: Training and validation examples.
        require_gpu: Whether a missing GPU is an error.
        weights_uri: URI of ImageNet weights for `torchvision.models.resnet18` (safetensors, or a torch state dict): a file, a
            directory with one, or an object in a store; empty for training from scratch.

    Raises:
        TryAgainError: A GPU was required, and the one there is does not work.
        ConfigurationError: A GPU was required and there is none, or the weights are missing or unusable.
    """

    recipe = RECIPE

    def __init__(self, train_data: TrainData, *, require_gpu: bool = False, weights_uri: str = "") -> None:
        if require_gpu and not torch.cuda.is_available():
            raise missing_gpu("ResNet18")
        torch.set_num_threads(num_usable_cores())
        keep_freed_memory()
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        # Shapes do not change from step to step, so trying the convolution algorithms once pays.
        torch.backends.cudnn.benchmark = self._device.type == "cuda"
        self._dtype = product_dtype(self._device)
        self._pretrained = load_pretrained(weights_uri) if weights_uri else {}
        self._image_shape = train_data.images.shape[1:]
        self._num_classes = len(train_data.info.classes)
        self._labels = torch.from_numpy(np.asarray(train_data.labels, dtype=np.int64)).to(self._device)
        self._numpy_labels = np.asarray(train_data.labels)
        self._attributes = Attributes(train_data, self._device)
        self._images = Images(train_data.images, self._device)
        self._train = np.flatnonzero(train_data.split == TRAIN)
        self._validation = np.flatnonzero(train_data.split == VALIDATION)
        if self._pretrained:
            self._mean, self._std = IMAGENET_MEAN, IMAGENET_STD
        else:
            mean, std = channel_statistics(train_data.images, self._train)
            repeats = 3 if self._image_shape[2] == 1 else 1
            self._mean, self._std = tuple(mean / 255) * repeats, tuple(std / 255) * repeats

    @property
    def device_name(self) -> str:
        """Name of the GPU, or `cpu`."""
        return torch.cuda.get_device_name() if self._device.type == "cuda" else "cpu"

    def begin(self, hyperparameters: dict[str, Value], epochs: int, seed: int) -> "_Training":
        """Return a training with a one-cycle schedule over the epochs; see `loop.EpochTrainer.begin`."""
        return _Training(self, hyperparameters, epochs, seed)

    def free(self) -> None:
        """Give back what the device still holds of past trainings."""
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def export(self, result: FitResult, hyperparameters: dict[str, Value], onnx_path: str, native_path: str) -> float:
        """Write ONNX and safetensors; return the largest absolute difference of probabilities between the two."""
        model = self.build(loop.complete(hyperparameters, RECIPE)).to("cpu", memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        model.load_state_dict({name: torch.from_numpy(values.copy()) for name, values in result.weights.items()})
        model.eval()
        save_file(model.state_dict(), native_path, metadata={"architecture": "torchvision.models.resnet18"})
        chosen = self._validation[:64] if len(self._validation) else self._train[:64]
        examples = next(self._images.batches([torch.from_numpy(chosen).to(self._device)])).cpu()
        examples = examples.expand(2, -1, -1, -1) if len(examples) == 1 else examples
        with _quiet_exporter():
            torch.onnx.export(
                model,
                (examples[:2],),
                onnx_path,
                input_names=["images"],
                output_names=["probabilities"],
                dynamic_shapes={"images": {0: torch.export.Dim("N")}},
                dynamo=True,
                external_data=False,
                verbose=False,
            )
        with torch.inference_mode():
            expected = model(examples).numpy()
        return onnx_difference(onnx_path, examples.numpy(), expected)

    def build(self, hyperparameters: dict[str, Value], num_auxiliary: int = 0) -> Classifier:
        """Return the network with fresh or pretrained weights, on the device, in channels-last layout."""
        model = Classifier(
            self._num_classes, self._image_shape[2], self._mean, self._std, hyperparameters, num_auxiliary
        )
        if self._pretrained:
            known = {name: values for name, values in self._pretrained.items() if not name.startswith("fc.")}
            if model.num_inputs != 3:
                del known["conv1.weight"]
            model.network.load_state_dict(known, strict=False)
        return model.to(self._device, memory_format=torch.channels_last)  # type: ignore[call-overload]


class _Training:
    """One hyperparameter set being trained."""

    def __init__(self, trainer: Trainer, hyperparameters: dict[str, Value], epochs: int, seed: int) -> None:
        self._trainer, self._hyperparameters, self._epochs, self._seed = trainer, hyperparameters, epochs, seed
        self._device = trainer._device
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        torch.manual_seed(seed)
        self._attributes = trainer._attributes if hyperparameters["learn_attributes"] else None
        self._model = trainer.build(hyperparameters, self._attributes.num_outputs if self._attributes else 0)
        # float16's scaler waits for the host in every step.
        self._captures = self._device.type == "cuda" and trainer._dtype is not torch.float16
        # A captured step reads the rate anew each time: it is a tensor on the device.
        self._rate = torch.zeros((), device=self._device) if self._captures else None
        self._optimizer = _optimizer(self._model, hyperparameters, trainer._dtype, self._device)
        self._captured: CapturedStep | None = None
        self._captured_at: tuple[int, int] | None = None
        labels = trainer._numpy_labels[trainer._train]
        self._sampler = EpochSampler(
            repeat_factors(labels, float(hyperparameters["rare_class_share"])),
            int(hyperparameters.get("batch_size", batch_size_for(len(labels), LARGEST_BATCH))),
            seed,
        )
        self._peak_rate = float(hyperparameters["learning_rate"])
        self._pruning = DataPruning(len(labels), float(hyperparameters["data_pruning"]), epochs, seed)
        # Running statistics belong to the weights; counters and constants need no mean.
        buffers = (b for b in self._model.network.buffers() if b.is_floating_point())
        self._live = [tensor.detach() for tensor in (*self._model.network.parameters(), *buffers)]
        self._means = [torch.zeros_like(tensor) for tensor in self._live]
        self._best: dict[str, torch.Tensor] = {}
        # float16 has no room for small gradients: they are scaled up. In any other type the scaler does nothing.
        self._scaler = torch.amp.GradScaler(self._device.type, enabled=trainer._dtype is torch.float16)

    def train_epoch(self, epoch: int) -> float:
        # Dropout and augmentation draw from the framework's generators: a function of (seed, epoch) makes resuming exact.
        torch.manual_seed(self._seed * 100_003 + epoch)
        kept, loss_factors = self._pruning.epoch(epoch)
        batches = self._sampler.epoch(epoch, kept)
        low = self._epochs * float(self._hyperparameters["low_resolution_fraction"])
        self._model.resolution = reduced_resolution(self._trainer._image_shape) if epoch <= low else None
        num_steps = len(batches)
        self._model.train()
        # The whole epoch's order travels at once: a copy a step would make the GPU wait for Python.
        order = torch.from_numpy(self._trainer._train[batches]).to(self._device).unbind()
        factors = torch.from_numpy(loss_factors[batches]).to(self._device)
        losses = torch.empty_like(factors)
        rates = self._rates(epoch, num_steps)
        num_averaged = 0
        images_of = self._trainer._images.batches(order)
        with self._model.steps_counted_once(num_steps):
            for step, (indices, images) in enumerate(zip(order, images_of, strict=True)):
                self._set_rate(rates[step])
                losses[step] = self._take_step(images, indices, factors[step])
                if (num_steps - step) % AVERAGE_EVERY == 1:
                    num_averaged += 1
                    torch._foreach_lerp_(self._means, self._live, 1 / num_averaged)
        # One synchronisation an epoch: reading the loss after every step would leave the GPU idle between steps.
        seen = losses.cpu().numpy()
        self._pruning.losses[batches] = seen
        return float(np.average(seen, weights=loss_factors[batches]))

    def _rates(self, epoch: int, num_steps: int) -> Sequence[float] | Sequence[torch.Tensor]:
        """Return the learning rate of each step of an epoch; where steps are captured all of them travel at once."""
        # Epochs differ in steps where data is pruned: what counts is which part of the training is over.
        first, last = (epoch - 1) * num_steps, self._epochs * num_steps
        rates = [self._peak_rate * learning_rate_factor(first + n, last, WARMUP_FRACTION) for n in range(num_steps)]
        return rates if self._rate is None else torch.tensor(rates, device=self._device).unbind()

    def _set_rate(self, rate: float | torch.Tensor) -> None:
        if self._rate is not None:
            rate = self._rate.copy_(torch.as_tensor(rate))
        for group in self._optimizer.param_groups:
            group["lr"] = rate

    def _take_step(self, images: torch.Tensor, indices: torch.Tensor, loss_factors: torch.Tensor) -> torch.Tensor:
        """Take one step; on a GPU the second one at a resolution and all after it are replays of a CUDA graph."""
        if not self._captures:
            return self._step(images, indices, loss_factors)
        if self._captured is not None and self._captured_at == self._model.resolution:
            return self._captured(images, indices, loss_factors)
        self._captured = None
        losses = self._step(images, indices, loss_factors)
        self._captured, self._captured_at = capture(self._step, images, indices, loss_factors), self._model.resolution
        self._captures = self._captured is not None
        return losses

    def _step(self, images: torch.Tensor, indices: torch.Tensor, loss_factors: torch.Tensor) -> torch.Tensor:
        """Take one step and return each example's loss (n,) float32; all tensors it reads and writes are on the device.

        Args:
            images: (n, H, W, C) uint8.
            indices: (n,) int64, the examples.
            loss_factors: (n,) float32, what each loss is multiplied with.
        """
        smoothing = float(self._hyperparameters["label_smoothing"])
        pixels = augment(self._model.normalise(images), str(self._hyperparameters["augmentation"]))
        with self._autocast():
            logits = self._model.network(self._model.resize(pixels))
        logits, labels = logits.float(), self._trainer._labels[indices]
        loss = functional.cross_entropy(
            logits[:, : self._trainer._num_classes], labels, label_smoothing=smoothing, reduction="none"
        )
        total = loss if self._attributes is None else loss + self._attributes.loss(logits, indices, smoothing)
        self._optimizer.zero_grad(set_to_none=True)
        self._scaler.scale((total * loss_factors).mean()).backward()
        self._scaler.step(self._optimizer)
        self._scaler.update()
        return loss.detach()

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """Give the network the mean of its weights over the last epoch, for as long as the context lasts."""
        current = [tensor.clone() for tensor in self._live]
        for tensor, mean in zip(self._live, self._means, strict=True):
            tensor.copy_(mean)
        yield
        for tensor, values in zip(self._live, current, strict=True):
            tensor.copy_(values)

    def accuracy(self) -> float:
        indices = self._trainer._validation
        if not len(indices):
            return 0.0
        self._model.eval()
        correct = torch.zeros((), dtype=torch.int64, device=self._device)
        with torch.inference_mode(), self._autocast():
            chunks = torch.from_numpy(indices).to(self._device).split(VALIDATION_BATCH)
            for chunk, images in zip(chunks, self._trainer._images.batches(chunks), strict=True):
                predicted = self._model(images).argmax(dim=1)
                correct += (predicted == self._trainer._labels[chunk]).sum()
        return int(correct) / len(indices)

    def keep(self) -> None:
        self._best = {name: values.detach().clone() for name, values in self._model.state_dict().items()}

    def best_weights(self) -> dict[str, np.ndarray]:
        weights = self._model.without_auxiliary(self._best)
        return {name: values.cpu().numpy() for name, values in weights.items()}

    @property
    def num_parameters(self) -> int:
        deployed = self._model.without_auxiliary(dict(self._model.named_parameters()))
        return sum(values.numel() for values in deployed.values())

    @property
    def peak_memory_bytes(self) -> int:
        return torch.cuda.max_memory_allocated() if self._device.type == "cuda" else 0

    def _autocast(self) -> contextlib.AbstractContextManager:
        return torch.autocast(
            self._device.type, dtype=self._trainer._dtype, enabled=self._trainer._dtype is not torch.float32
        )

    def state(self) -> State:
        state = {f"model/{name}": v.cpu().numpy().copy() for name, v in self._model.state_dict().items()}
        state |= {f"best/{name}": v.cpu().numpy() for name, v in self._best.items()}
        for number, slots in self._optimizer.state_dict()["state"].items():
            state |= {f"optimizer/{number}/{k}": torch.as_tensor(v).cpu().numpy().copy() for k, v in slots.items()
                      if v is not None}  # fmt: skip
        scaling = self._scaler.state_dict()
        state |= {f"scaler/{name}": np.array(value) for name, value in scaling.items()}
        return state | {"losses": self._pruning.losses.copy()}

    def restore(self, state: State) -> None:
        def part(prefix: str) -> dict[str, torch.Tensor]:
            return {
                k.removeprefix(prefix): torch.from_numpy(np.array(v)) for k, v in state.items() if k.startswith(prefix)
            }

        self._model.load_state_dict(part("model/"))
        self._best = {name: values.to(self._device) for name, values in part("best/").items()}
        slots: dict[int, dict[str, torch.Tensor]] = {}
        for name, values in part("optimizer/").items():
            number, slot = name.split("/")
            slots.setdefault(int(number), {})[slot] = values
        self._optimizer.load_state_dict({**self._optimizer.state_dict(), "state": slots})
        for parameter, kept in self._optimizer.state.items():
            for slot, values in kept.items():
                if values.shape == parameter.shape:
                    # Fused optimizers walk through memory, so a slot must be laid out like its channels-last parameter.
                    kept[slot] = torch.empty_like(parameter).copy_(values)
        if scaling := part("scaler/"):
            self._scaler.load_state_dict({name: value.item() for name, value in scaling.items()})
        # A checkpoint from before data pruning has none, and needs none.
        self._pruning.losses = np.array(state.get("losses", self._pruning.losses))


def product_dtype(device: torch.device) -> torch.dtype:
    """Return the type that a device multiplies fastest without losing the training: of bfloat16, float16 and float32.

    A GPU older than compute capability 8 emulates bfloat16, slowly or not at all, and so does a CPU without instructions.
    """
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return torch.bfloat16 if cpu_has_bfloat16() else torch.float32


def _optimizer(
    model: nn.Module, hyperparameters: dict[str, Value], dtype: torch.dtype, device: torch.device
) -> torch.optim.Optimizer:
    # A scaler skips steps whose gradients overflow. A fused SGD whose first step is skipped takes its momentum from
    # memory that nobody wrote (torch 2.15, `empty_like` in `_fused_sgd`), so in float16 nothing is fused.
    fused = dtype is not torch.float16
    # Normalisation and biases are not decayed, arXiv 1812.01187 section 3.1.
    decay = float(hyperparameters["weight_decay"])
    groups = [
        {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": decay},
        {"params": [p for p in model.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    on_gpu = device.type == "cuda"
    # A tensor as rate, which only a captured step has, needs it; elsewhere it doubles the launches.
    capturable = on_gpu and dtype is not torch.float16
    rate, momentum = float(hyperparameters["learning_rate"]), float(hyperparameters["momentum"])
    match hyperparameters["optimizer"]:
        case "Adam":
            return torch.optim.Adam(groups, lr=rate, betas=(momentum, 0.999), fused=fused, capturable=capturable)
        case "RMSprop":
            return torch.optim.RMSprop(groups, lr=rate, momentum=momentum, foreach=on_gpu, capturable=capturable)
        case name:
            return torch.optim.SGD(groups, lr=rate, momentum=momentum, nesterov=name == "NAG", fused=fused)


@contextlib.contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Keep the exporter's deprecation warnings and progress lines out of a step's log."""
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(previous)
