"""TensorFlow's own exceptions with the words that TensorFlow 2.21 and XLA use."""

import pytest
import tensorflow as tf

from components.models.faults import is_device_fault, is_out_of_memory
from components.models.mlp import training as mlp
from components.models.mlp.compiled import CompiledLoop
from tests.models import faulty


def error(kind, message):
    """An exception of TensorFlow."""
    return getattr(tf.errors, kind)(None, None, message)


def exhausted():
    """What TensorFlow itself raises where a tensor does not fit."""
    try:
        tf.zeros((2**40, 2**12))
    except Exception as raised:
        return raised


MEMORY = [
    exhausted(),
    error("ResourceExhaustedError", "OOM when allocating tensor with shape[65536,65536] and type float on GPU:0"),
    error("ResourceExhaustedError", "failed to allocate memory [Op:AddV2]"),
    error("InternalError", "Failed copying input tensor from CPU:0 to GPU:0: Dst tensor is not initialized."),
    error("InternalError", "Attempting to perform BLAS operation: CUBLAS_STATUS_ALLOC_FAILED"),
    error("UnknownError", "CUDNN_STATUS_ALLOC_FAILED\nin tensorflow/stream_executor/cuda/cuda_dnn.cc"),
    error("InternalError", "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 8589934592 bytes."),
    error("InternalError", "CUDA_ERROR_OUT_OF_MEMORY: out of memory"),
    error("NotFoundError", "No algorithm worked!  Error messages: Profiling failure: Out of memory"),
    MemoryError(),
]
DEVICE = [
    error("InternalError", "CUDA runtime implicit initialization on GPU:0 failed. Status: unknown error"),
    error("InternalError", "Failed to launch CUDA kernel: matmul with block dimensions: 256x1x1"),
    error("InternalError", "Blas xGEMV launch failed : a.shape=[1,256,784], b.shape=[1,784,512]"),
    error("UnknownError", "Failed to get convolution algorithm because cuDNN failed to initialize"),
    error("UnavailableError", "the device went away"),
    error("AbortedError", "Operation was aborted"),
    error("UnimplementedError", "DNN library is not found."),
    error("FailedPreconditionError", "DNN library initialization failed. Look at the errors above for more details."),
    error("NotFoundError", "No algorithm worked!"),
]
NEITHER = [
    error("InvalidArgumentError", "Matrix size-incompatible: In[0]: [256,784], In[1]: [785,512]"),
    error("FailedPreconditionError", "Could not find variable dense/kernel."),
    ValueError("a mistake"),
]


@pytest.mark.parametrize(
    ("errors", "memory", "device"), [(MEMORY, True, False), (DEVICE, False, True), (NEITHER, False, False)]
)
def test_errors_are_told_apart(errors, memory, device):
    """Each form of a full memory and of a broken device is known, and nothing else is taken for either."""
    assert [] == [e for e in errors if (is_out_of_memory(e), is_device_fault(e)) != (memory, device)]


def failing(raised):
    """A method that raises the error."""

    def method(*arguments):  # noqa: ARG001
        raise raised

    return method


@pytest.mark.parametrize("raised", [MEMORY[0], MEMORY[3], MEMORY[5]], ids=["exhausted", "copy", "cudnn"])
def test_out_of_memory_is_the_trials(raised, tmp_path, monkeypatch):
    """Search and final training take every form of it for what it is."""
    monkeypatch.setattr(CompiledLoop, "train", failing(raised))
    faulty.assert_the_trial_is_out_of_memory(mlp, tmp_path)


@pytest.mark.parametrize("raised", DEVICE[:2], ids=["initialization", "kernel"])
def test_a_broken_device_is_not(raised, tmp_path, monkeypatch):
    """Search and final training end with 75."""
    monkeypatch.setattr(CompiledLoop, "train", failing(raised))
    faulty.assert_the_device_is_to_blame(mlp, tmp_path)


def test_a_device_that_cannot_be_prepared_is_not(tmp_path, monkeypatch):
    """A driver that does not start takes no trial with it."""
    monkeypatch.setattr(mlp, "Examples", failing(DEVICE[0]))
    faulty.assert_the_device_is_to_blame(mlp, tmp_path)
