"""What XLA is told before TensorFlow is imported; imports no framework."""

FLAGS = "--xla_gpu_autotune_level=0 --xla_gpu_enable_triton_gemm=false"
"""With these XLA compiles an epoch on a GPU in a second, because it tries no candidates."""


def xla_flags(given: str) -> str:
    """Return the value of `XLA_FLAGS` with `FLAGS` in front: XLA takes the last of two flags with one name.

    Args:
        given: The value so far. A child process inherits one that has `FLAGS` already. A value that begins with no dash is
            the name of a file with flags, which stays as it is.
    """
    is_file = not given.lstrip().startswith("-") and bool(given.strip())
    if is_file or FLAGS in given:
        return given
    return f"{FLAGS} {given}".strip()
