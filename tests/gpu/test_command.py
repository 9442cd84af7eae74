import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


def test_a_machine_without_a_gpu_checked_nothing():
    """`make test-gpu` says so in one line and exits with 78."""
    finished = subprocess.run(
        [sys.executable, "-m", "tests.gpu"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )

    assert 78 == finished.returncode
    assert "" == finished.stdout
    assert "nothing was checked: this machine has no GPU that nvidia-smi shows\n" == finished.stderr
