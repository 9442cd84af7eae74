"""torch's own exceptions with the words that torch 2.15, CUDA, cuDNN and oneDNN use."""

import pytest
import torch

from components.errors import StorageError
from components.models.faults import is_device_fault, is_out_of_memory
from components.models.resnet18 import training as resnet18
from tests.models import faulty

MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.10 GiB"),
    torch.AcceleratorError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
    RuntimeError("cusolver error: CUSOLVER_STATUS_ALLOC_FAILED, when calling `cusolverDnCreate(handle)`"),
    RuntimeError("cuFFT error: CUFFT_ALLOC_FAILED"),
    RuntimeError("GET was unable to find an engine to execute this computation"),
    RuntimeError("FIND was unable to find an engine to execute this computation"),
    RuntimeError("Unable to find a valid cuDNN algorithm to run convolution"),
    RuntimeError("CUDA driver error: out of memory"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory"),
    RuntimeError("could not create a primitive"),
    RuntimeError("could not create a memory object"),
    MemoryError("std::bad_alloc"),
]
DEVICE = [
    torch.AcceleratorError("CUDA error: an illegal memory access was encountered"),
    torch.AcceleratorError("CUDA error: uncorrectable ECC error encountered"),
    torch.AcceleratorError("CUDA error: unspecified launch failure"),
    RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx(handle)`"),
    RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
    RuntimeError("CUDA driver initialization failed, you might not have a CUDA gpu."),
    RuntimeError("CUDA unknown error - this may be due to an incorrectly set up environment"),
    RuntimeError("CUDA initialization: The NVIDIA driver on your system is too old"),
    RuntimeError("No CUDA GPUs are available"),
]
NEITHER = [
    RuntimeError("Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu!"),
    RuntimeError("could not create a primitive descriptor for the convolution forward propagation primitive"),
    RuntimeError("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)"),
    ValueError("a mistake"),
    StorageError("a checkpoint must be read; got out of memory. Look at the disk"),
    OSError(12, "Cannot allocate memory: out of memory"),
]


@pytest.mark.parametrize(
    ("errors", "memory", "device"), [(MEMORY, True, False), (DEVICE, False, True), (NEITHER, False, False)]
)
def test_errors_are_told_apart(errors, memory, device):
    """Each form of a full memory and of a broken device is known, and nothing else is taken for either."""
    assert [] == [error for error in errors if (is_out_of_memory(error), is_device_fault(error)) != (memory, device)]


def failing(error):
    """The start of a training that raises the error."""

    def start(*arguments):  # noqa: ARG001
        raise error

    return start


@pytest.mark.parametrize("error", MEMORY[:4], ids=repr)
def test_out_of_memory_is_the_trials(error, tmp_path, monkeypatch):
    """Search and final training take every form of it for what it is."""
    monkeypatch.setattr(resnet18._Training, "train_epoch", failing(error))
    faulty.assert_the_trial_is_out_of_memory(resnet18, tmp_path)


@pytest.mark.parametrize("error", [DEVICE[0], DEVICE[4]], ids=repr)
def test_a_broken_device_is_not(error, tmp_path, monkeypatch):
    """Search and final training end with 75."""
    monkeypatch.setattr(resnet18._Training, "train_epoch", failing(error))
    faulty.assert_the_device_is_to_blame(resnet18, tmp_path)


def test_a_device_that_cannot_be_prepared_is_not(tmp_path, monkeypatch):
    """A driver that does not start takes no trial with it."""
    monkeypatch.setattr(resnet18, "Images", failing(RuntimeError("CUDA driver initialization failed")))
    faulty.assert_the_device_is_to_blame(resnet18, tmp_path)
