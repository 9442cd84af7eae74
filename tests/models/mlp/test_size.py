"""An MLP that no ONNX file can hold is refused before the search."""

import numpy as np
import pytest

from components.data.contract import DatasetInfo
from components.errors import DataError
from components.models.mlp.size import MAX_ONNX_BYTES, MAX_UNITS, check_data, largest_onnx_bytes


def train_data(folder, shape, num_classes=10):
    """Write what the check looks at: the images' header and the description."""
    np.lib.format.open_memmap(folder / "images.npy", mode="w+", dtype=np.uint8, shape=(2, *shape))
    classes = tuple(f"class {k}" for k in range(num_classes))
    DatasetInfo(name="shop", classes=classes, counts={}, source="", checksums={}, content_hash="").save(folder)
    return folder


@pytest.mark.parametrize("shape", [(28, 28, 1), (80, 60, 3), (224, 224, 3), (400, 400, 3)])
def test_sizes_that_fit(tmp_path, shape):
    """Everything up to about 417 x 417 pixels passes, with thousands of classes as well."""
    check_data(train_data(tmp_path, shape, 5000))


@pytest.mark.parametrize("shape", [(512, 512, 3), (420, 420, 3)])
def test_sizes_that_do_not(tmp_path, shape):
    """Larger images are refused with the reason and a size that fits."""
    with pytest.raises(DataError, match=r"fits into an ONNX file of 2 GiB.*at most about 417 x 417"):
        check_data(train_data(tmp_path, shape))


def test_the_bound_is_that_of_the_weights():
    """The bytes are those of three dense layers of the widest hidden units."""
    layers = [(12, MAX_UNITS), (MAX_UNITS, MAX_UNITS), (MAX_UNITS, 7)]

    assert sum(4 * (a + 1) * b for a, b in layers) == largest_onnx_bytes((2, 2, 3), 7)
    assert MAX_ONNX_BYTES < 2**31
