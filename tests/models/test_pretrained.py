import pytest

from components.errors import ConfigurationError
from components.models.pretrained import read_weights

SUFFIXES = (".safetensors", ".pth")


def test_reads_a_file_a_directory_and_a_uri(tmp_path):
    """All three ways to name weights lead to the same bytes."""
    path = tmp_path / "resnet18.pth"
    path.write_bytes(b"weights")

    found = [read_weights(str(uri), suffixes=SUFFIXES) for uri in (path, tmp_path, f"file://{path}")]

    assert [("resnet18.pth", b"weights")] * 3 == found


def test_prefers_the_first_suffix(tmp_path):
    """Where both formats lie side by side, safetensors is taken."""
    (tmp_path / "a.pth").write_bytes(b"pickle")
    (tmp_path / "b.safetensors").write_bytes(b"tensors")

    assert "b.safetensors" == read_weights(str(tmp_path), suffixes=SUFFIXES)[0]


@pytest.mark.parametrize("name", ["absent.pth", "absent/", "."])
def test_missing_weights_are_a_configuration_error(tmp_path, name):
    """Exit code 78, and the text says what else can be done."""
    with pytest.raises(ConfigurationError, match="leave train_weights empty") as caught:
        read_weights(str(tmp_path / name), suffixes=SUFFIXES)

    assert 78 == caught.value.exit_code


def test_several_files_are_not_guessed_between(tmp_path):
    """A directory with two candidates needs the file's name."""
    for name in ("a.pth", "b.pth"):
        (tmp_path / name).write_bytes(b"")

    with pytest.raises(ConfigurationError, match="exactly one file"):
        read_weights(str(tmp_path), suffixes=SUFFIXES)
