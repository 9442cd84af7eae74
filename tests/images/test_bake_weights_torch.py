import hashlib
import importlib.util
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

SCRIPT = Path(__file__).resolve().parents[2] / "images" / "bake_weights.py"


@pytest.fixture
def bake():
    specification = importlib.util.spec_from_file_location("bake_weights", SCRIPT)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module.main


@pytest.fixture
def published(tmp_path):
    """A state dict as torchvision publishes them: its address, its digest, its content."""
    state = {"conv1.weight": torch.arange(6.0).reshape(2, 3).T, "bn1.num_batches_tracked": torch.tensor(3)}
    path = tmp_path / "resnet18.pth"
    torch.save(state, path)
    return path.as_uri(), hashlib.sha256(path.read_bytes()).hexdigest(), state


def test_weights_keep_their_values(bake, published, tmp_path):
    """What is baked into an image is, tensor by tensor, what was published."""
    url, digest, state = published
    target = tmp_path / "opt" / "weights" / "resnet18.safetensors"

    bake(url, digest, str(target))

    baked = load_file(target)
    assert set(state) == set(baked)
    assert all(torch.equal(state[name], baked[name]) for name in state)


@pytest.mark.parametrize("digest", ["", "0" * 64])
def test_other_content_is_refused(bake, published, tmp_path, digest):
    """A download that is not what the builder asked for stops the build and leaves nothing."""
    target = tmp_path / "resnet18.safetensors"

    with pytest.raises(SystemExit, match="must have the SHA-256"):
        bake(published[0], digest, str(target))
    assert not target.exists()
