import subprocess
import sys

import pytest

from components.models.hardware import Stopwatch, cpu_has_bfloat16, fits_on_gpu, num_usable_cores


@pytest.mark.parametrize(("text", "cores"), [("150000 100000\n", 2), ("10000 100000\n", 1)])
def test_a_pod_limit_bounds_the_threads(tmp_path, monkeypatch, text, cores):
    """A pod limited to part of a node does not start a thread for each of the node's cores."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(64)))
    (tmp_path / "cpu.max").write_text(text)

    assert cores == num_usable_cores(tmp_path / "cpu.max")


def test_without_a_limit_all_cores_are_used(tmp_path, monkeypatch):
    """No control group, or one without a limit, leaves the scheduler's answer."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    (tmp_path / "cpu.max").write_text("max 100000\n")

    assert [8, 8] == [num_usable_cores(tmp_path / name) for name in ("cpu.max", "absent")]


def test_an_explicit_number_wins(monkeypatch):
    """`OMP_NUM_THREADS` is obeyed."""
    monkeypatch.setenv("OMP_NUM_THREADS", "3")

    assert 3 == num_usable_cores()


def test_memory_is_that_of_the_process():
    """The peak is in bytes: more than a few MiB, less than the machine has."""
    assert 2**22 < Stopwatch().peak_memory_bytes < 2**42


def test_bfloat16_is_read_from_the_processor(tmp_path):
    """The flags of x86 and Arm count as whole words; no description means no."""
    for name, text in {
        "amd": "flags : fpu avx512_bf16 sse",
        "arm": "Features : fp bf16",
        "old": "flags : avx512_bf16x",
    }.items():
        (tmp_path / name).write_text(text)

    assert [True, True, False, False] == [cpu_has_bfloat16(tmp_path / name) for name in ("amd", "arm", "old", "absent")]


@pytest.mark.skipif(sys.platform != "linux", reason="mallopt is glibc's")
def test_freed_memory_is_used_again():
    """After the call, allocating and freeing a large array again costs next to no page faults."""
    program = """
import resource, numpy
from components.models.hardware import keep_freed_memory
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        numpy.ones(2**26, numpy.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
usual = faults()
assert keep_freed_memory()
faults()
print(usual, faults())
"""
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=60)
    usual, kept = map(int, done.stdout.split())

    assert usual > 100 * (kept + 1)


@pytest.mark.parametrize(
    ("images", "free", "fits"),
    [(49, 79, True), (60, 79, False), (16, 22, True), (17, 22, False), (17, 23, True), (5, 8, False), (4, 8, True)],
)
def test_images_stay_on_a_gpu_that_has_room_for_the_training_as_well(images, free, fits):
    """A quarter of the free memory remains, at least 4 GiB and at most half; sizes in GiB."""
    assert fits == fits_on_gpu(images * 2**30, free * 2**30)
