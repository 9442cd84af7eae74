"""Whose fault an error is: the one place that tells what a trial did from what happened to its device or its process.

Imports neither TensorFlow nor torch: their exceptions are known by name, and by message where the class does not say it.
"""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

from components.data.contract import TrainData
from components.errors import ConfigurationError, FashionTuningError, TryAgainError
from components.models.contract import ApproachModule, Trainer, TrialOutOfMemoryError

DEVICES = Path("/dev")

_MEMORY_CLASSES = {("torch", "OutOfMemoryError"), ("tensorflow", "ResourceExhaustedError")}
_MEMORY_TEXTS = re.compile(
    r"out of memory|\bOOM when|can't allocate memory|not enough memory"
    r"|ALLOC(ATION)?_FAILED|cudaErrorMemoryAllocation"
    # What cuDNN and TensorFlow say when a workspace or a copy does not fit.
    r"|unable to find an engine|unable to find a valid cuDNN algorithm|Dst tensor is not initialized"
    r"|Failed to allocate (requested|the requested|scratch|host|memory|request)"
    # oneDNN; the same words before "descriptor" mean a wrong shape.
    r"|could not create a (primitive|memory object)(?! descriptor)",
    re.IGNORECASE,
)
"""What a full device or host says: CUDA, cuBLAS, cuDNN, cuFFT, cuSOLVER, oneDNN, torch's and TensorFlow's allocators."""

_DEVICE_CLASSES = {
    ("torch", "AcceleratorError"),
    *(
        ("tensorflow", f"{kind}Error")
        for kind in ("Internal", "Unknown", "Unavailable", "Aborted", "DataLoss", "DeadlineExceeded")
    ),
}
_DEVICE_TEXTS = re.compile(
    r"\bCUDA (error|driver|runtime|initialization|unknown error|kernel)|CUDA_ERROR_|\bcudaError|No CUDA|CUDA-capable"
    r"|NVIDIA driver|\bNVML\b|cu(DNN|BLAS|FFT|SOLVER|SPARSE) (error|launch|handle|call)"
    r"|CU(DNN|BLAS|SOLVER|SPARSE)_STATUS_|CUFFT_[A-Z]+_ERROR|DNN library|No algorithm worked|unspecified launch failure"
    r"|\bECC\b|NCCL error",
    re.IGNORECASE,
)
"""What a broken device, driver or library says through exceptions of any class."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether the error says that device or host had no memory left, in whatever words."""
    if isinstance(error, (FashionTuningError, OSError)):
        return False
    if isinstance(error, (MemoryError, TrialOutOfMemoryError)) or _is_one_of(error, _MEMORY_CLASSES):
        return True
    return _MEMORY_TEXTS.search(str(error)) is not None


def is_device_fault(error: BaseException) -> bool:
    """Return whether the error is the device's, the driver's or the framework's rather than that of what was trained.

    A full memory is not: another trial may fit.
    """
    if isinstance(error, (FashionTuningError, OSError)) or is_out_of_memory(error):
        return False
    return _is_one_of(error, _DEVICE_CLASSES) or _DEVICE_TEXTS.search(str(error)) is not None


def first_line(error: BaseException) -> str:
    """Return at most 200 characters of the error's first line; frameworks append pages of advice."""
    return (str(error).strip().splitlines() or [""])[0][:200]


def device_fault(doing: str, error: BaseException) -> TryAgainError:
    """Return the error to end the step with, so that another process, perhaps on another device, goes on.

    Args:
        doing: What failed, for example `trial 3`.
        error: What the framework raised.
    """
    return TryAgainError(
        f"{doing} must have a working device; got {type(error).__name__}: {first_line(error).rstrip('.')}."
        " Run again: it goes on where it stood; if this happens again, take the node out of service"
    )


@contextlib.contextmanager
def device_faults_end(doing: str) -> Iterator[None]:
    """Turn what the block raises because of its device into `device_fault`; everything else stays as it is."""
    try:
        yield
    except Exception as error:
        if is_device_fault(error):
            raise device_fault(doing, error) from error
        raise


def missing_gpu(title: str, devices: Path = DEVICES) -> FashionTuningError:
    """Return the error of a step that was promised a GPU and whose framework finds none.

    Args:
        title: The approach's name as people read it.
        devices: Where the system lists its devices.

    Returns:
        `TryAgainError` where the node did give the container a GPU: then its driver is broken, and another node may do. Else
        `ConfigurationError`: no node of this kind has one.
    """
    given = sorted(path.name for path in devices.glob("nvidia[0-9]*"))
    if given:
        return TryAgainError(
            f"The {title} step must have a GPU that works; got {', '.join(given)}, which CUDA does not start on. Run again, and"
            " take the node out of service if it happens again; else check the driver and the image's CUDA version"
        )
    return ConfigurationError(
        f"The {title} step must have a GPU because one was requested; got none. Check the node pool and its drivers"
    )


def make_trainer(approach: ApproachModule, train_data: TrainData, *, require_gpu: bool, weights_uri: str) -> Trainer:
    """Return the approach's trainer with the data on its device.

    Raises:
        ConfigurationError: A GPU or the weights are missing.
        TryAgainError: Anything else: no trial has begun that could be to blame.
    """
    try:
        return approach.Trainer(train_data, require_gpu=require_gpu, weights_uri=weights_uri)
    except FashionTuningError:
        raise
    except Exception as error:
        raise device_fault(f"the {approach.APPROACH} trainer", error) from error


def _is_one_of(error: BaseException, names: set[tuple[str, str]]) -> bool:
    return any((kind.__module__.partition(".")[0], kind.__name__) in names for kind in type(error).__mro__)
