"""ResNet18's training speed against the loop of PyTorch's own tutorials; loads torch."""

import io
import tempfile

import numpy as np
import torch
import torchvision
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.harness import Options, Row, interleaved, row, seconds
from benchmarks.inference import latency
from components.data.contract import DatasetInfo, TrainData
from components.models.contract import FitResult
from components.models.loop import complete
from components.models.resnet18 import training as resnet18
from components.models.space import Value

SHAPE, NUM_CLASSES = (80, 60, 3), 45
HYPERPARAMETERS: dict[str, Value] = {"learning_rate": 0.05, "momentum": 0.9, "weight_decay": 0.0005, "optimizer": "NAG"}
TUTORIAL_BATCH = 64


def measure(options: Options) -> list[Row]:
    """Return training throughput at the product images' size, and the share of peak."""
    on_gpu = torch.cuda.is_available()
    num_steps = 40 if on_gpu else 8
    data = _random_data(20_480 if on_gpu else 1_024)
    trainer = resnet18.Trainer(data)
    training = resnet18._Training(
        trainer, complete(HYPERPARAMETERS | {"batch_size": 256 if on_gpu else 128}, resnet18.RECIPE), 99, 0
    )
    batch_size = training._sampler.batch_size
    training._sampler.num_steps = num_steps
    training.train_epoch(1)

    def ours() -> float:
        return num_steps * batch_size / seconds(lambda: training.train_epoch(1))

    tutorial = _Tutorial(trainer._device, num_steps * batch_size)
    tutorial.run()

    def theirs() -> float:
        return tutorial.num_images / seconds(tutorial.run)

    def most() -> float:
        return _peak_flops(trainer._device, trainer._dtype)

    mine, dataloader, peak = interleaved(options.repeats, ours, theirs, most)
    flops = _flops_per_image(trainer)
    kind = str(trainer._dtype).removeprefix("torch.")
    workers = f"DataLoader with {tutorial.num_workers} workers, PIL, float32, batch {TUTORIAL_BATCH}"
    rows = [
        row(
            "ResNet18 training, 80x60",
            "images/s",
            mine,
            f"PyTorch tutorial: {workers}",
            dataloader,
            f"batch {batch_size}, {kind}",
        ),
        row(
            "ResNet18 training, share of peak",
            "%",
            [100 * flops * rate / limit for rate, limit in zip(mine, peak, strict=True)],
            note=f"peak: {max(peak) / 1e9:,.0f} GFLOP/s {kind} matrix product; {flops / 1e9:.2f} GFLOP an image",
        ),
    ]
    with tempfile.TemporaryDirectory() as scratch:
        path = f"{scratch}/resnet18.onnx"
        model = training._model.eval()
        weights = {name: values.cpu().numpy() for name, values in model.state_dict().items()}
        result = FitResult(scores=(0.0,), device_seconds=0, peak_memory_bytes=0, num_parameters=0, weights=weights)
        trainer.export(result, HYPERPARAMETERS, path, f"{scratch}/resnet18.safetensors")

        def native(images: np.ndarray) -> np.ndarray:
            with torch.inference_mode():
                return model(torch.from_numpy(images).to(trainer._device)).cpu().numpy()

        label = "PyTorch, GPU" if on_gpu else "PyTorch, eager float32"
        rows += latency("ResNet18", path, native, label, SHAPE, NUM_CLASSES, options.repeats)
    return rows


class _JpegImages(torch.utils.data.Dataset):
    """Images as a tutorial reads them: decoded and transformed one by one."""

    def __init__(self, num: int) -> None:
        random = np.random.default_rng(0)
        self._files = []
        for _ in range(64):
            file = io.BytesIO()
            small = Image.fromarray(random.integers(0, 256, (10, 8, 3), np.uint8))
            small.resize((SHAPE[1], SHAPE[0])).save(file, "JPEG")
            self._files.append(file.getvalue())
        self._num = num
        self._transform = torchvision.transforms.Compose(
            [
                torchvision.transforms.RandomHorizontalFlip(),
                torchvision.transforms.ToTensor(),
                torchvision.transforms.Normalize((0.5,) * 3, (0.5,) * 3),
            ]
        )

    def __len__(self) -> int:
        return self._num

    def __getitem__(self, number: int) -> tuple[torch.Tensor, int]:
        image = Image.open(io.BytesIO(self._files[number % len(self._files)])).convert("RGB")
        return self._transform(image), number % NUM_CLASSES


class _Tutorial:
    """The loop of the tutorial: a loader, a model, `loss.item()` after every step."""

    def __init__(self, device: torch.device, num_images: int) -> None:
        self.num_workers = 4 if device.type == "cuda" else 2
        self.num_images = num_images - num_images % TUTORIAL_BATCH
        self._device = device
        self._loader = torch.utils.data.DataLoader(
            _JpegImages(self.num_images),
            batch_size=TUTORIAL_BATCH,
            shuffle=True,
            num_workers=self.num_workers,
            persistent_workers=True,
        )
        self._model = torchvision.models.resnet18(num_classes=NUM_CLASSES).to(device)
        self._loss = torch.nn.CrossEntropyLoss()
        self._optimizer = torch.optim.SGD(self._model.parameters(), lr=0.01, momentum=0.9)

    def run(self) -> float:
        """Train one epoch."""
        running = 0.0
        for images, labels in self._loader:
            self._optimizer.zero_grad()
            loss = self._loss(self._model(images.to(self._device)), labels.to(self._device))
            loss.backward()
            self._optimizer.step()
            running += loss.item()
        return running


def _flops_per_image(trainer: resnet18.Trainer) -> float:
    model = trainer.build(resnet18.RECIPE)
    pixels = torch.zeros(2, 3, SHAPE[0], SHAPE[1], device=trainer._device)
    with FlopCounterMode(display=False) as counter:
        model.network(pixels).sum().backward()
    return counter.get_total_flops() / 2


def _peak_flops(device: torch.device, dtype: torch.dtype) -> float:
    """Return what a large matrix product reaches here."""
    size = 8192 if device.type == "cuda" else 2048
    a = torch.randn(size, size, device=device, dtype=dtype)
    float((a @ a)[0, 0])
    return 2 * size**3 / seconds(lambda: float((a @ a)[0, 0]))


def _random_data(num: int) -> TrainData:
    random = np.random.default_rng(0)
    classes = tuple(str(k) for k in range(NUM_CLASSES))
    return TrainData(
        images=random.integers(0, 256, (num, *SHAPE), np.uint8),
        labels=random.integers(0, NUM_CLASSES, num),
        split=np.zeros(num, np.uint8),
        info=DatasetInfo(name="random", classes=classes, counts={}, source="", checksums={}, content_hash=""),
    )
