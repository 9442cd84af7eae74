import os
import sys
from pathlib import Path

import pytest

from pipelines.__main__ import run

DIGEST = "sha256:" + "a1" * 32
ENGINE = """#!{python}
import sys
name = sys.argv[-1].rpartition(":")[0]
if name.endswith("/torch"):
    sys.exit("no such image")
print("mirror.test/other@sha256:" + "0" * 64)
print(name + "@{digest}")
"""
COSIGN = """#!{python}
import sys
open({log!r}, "a").write(" ".join(sys.argv[1:]) + "\\n")
sys.exit({status})
"""


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A docker that knows two pushed images, and a cosign that writes down what it is asked."""
    scripts = {"docker": ENGINE.format(python=sys.executable, digest=DIGEST)}
    scripts["cosign"] = COSIGN.format(python=sys.executable, log=str(tmp_path / "signed"), status=0)
    (tmp_path / "bin").mkdir()
    for name, text in scripts.items():
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("IMAGE_TAG", "0123456789ab")
    return tmp_path / "signed"


@pytest.mark.usefixtures("tools")
def test_name_and_digest_are_lines_that_ci_reads(cluster: str, capsys: pytest.CaptureFixture) -> None:
    """The digest is the one the profile's registry gave, not another registry's."""
    assert 0 == run(["images", "digest", "base", "--cluster", cluster])
    assert f"name=registry.test/fashion-tuning/base\ndigest={DIGEST}\n" == capsys.readouterr().out


def test_images_are_signed_by_digest(tools: Path, cluster: str) -> None:
    """A tag could be moved between push and signature."""
    assert 0 == run(["images", "sign", "base", "keras", "--cluster", cluster])
    expected = [f"sign --yes registry.test/fashion-tuning/{target}@{DIGEST}" for target in ("base", "keras")]
    assert expected == tools.read_text().splitlines()


def test_what_was_not_pushed_cannot_be_signed(tools: Path, cluster: str, capsys: pytest.CaptureFixture) -> None:
    """An image without a digest is a configuration error, and nothing is signed."""
    assert 78 == run(["images", "sign", "torch", "--cluster", cluster])
    assert "must have been pushed from this machine" in capsys.readouterr().err
    assert not tools.exists()


def test_a_failing_or_missing_cosign_is_an_error(tools: Path, cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unsigned images never look signed."""
    cosign = tools.parent / "bin" / "cosign"
    cosign.write_text(COSIGN.format(python=sys.executable, log=str(tools), status=1))
    failing = run(["images", "sign", "base", "--cluster", cluster])
    cosign.unlink()
    monkeypatch.setenv("PATH", str(tools.parent / "bin"))
    missing = run(["images", "sign", "base", "--cluster", cluster])

    assert [69, 78] == [failing, missing]
