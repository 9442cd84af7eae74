import pytest

from components.models.mlp.flags import FLAGS, xla_flags


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("", FLAGS),
        ("--xla_gpu_autotune_level=4", f"{FLAGS} --xla_gpu_autotune_level=4"),
        (f"{FLAGS} --xla_gpu_autotune_level=4", f"{FLAGS} --xla_gpu_autotune_level=4"),
        ("/etc/xla.flags", "/etc/xla.flags"),
    ],
    ids=["none", "flags", "inherited", "file"],
)
def test_flags_of_xla_that_are_set_win(given, expected):
    """Ours stand before them, once even in a child process, and the name of a file is left alone."""
    assert expected == xla_flags(given)
