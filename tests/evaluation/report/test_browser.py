"""Opens reports in a headless Chromium with the network off; skipped where there is none."""

import html
import json
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.evaluation.report.test_report import HOSTILE, Written

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
WIDTHS = (320, 800, 1280, 1920)
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--enable-logging=stderr",
    "--timeout=60000",
)
WRAPPER = """<!doctype html><meta charset="utf-8"><body><pre id="found"></pre>
<iframe id="sandboxed" sandbox="allow-scripts" width="900" height="600" srcdoc="{page}"></iframe>
{frames}
<script>
let waiting = document.querySelectorAll("iframe").length;
const found = {{sandboxed: false, frames: []}};
const arrived = () => {{ if (--waiting == 0) document.getElementById("found").textContent = JSON.stringify(found); }};
document.getElementById("sandboxed").addEventListener("load", () => {{ found.sandboxed = true; arrived(); }});
for (const frame of document.querySelectorAll("iframe.measured")) frame.addEventListener("load", () => {{
  const page = frame.contentDocument, root = page.documentElement, images = [...page.images];
  for (const part of page.querySelectorAll("details")) part.open = true;
  const wide = [...page.querySelectorAll("body *")].filter((e) => !e.closest(".scroll > *, pre") &&
      e.getBoundingClientRect().right > root.clientWidth + 0.5 && getComputedStyle(e).position != "fixed");
  found.frames.push({{
    width: root.clientWidth, scroll: root.scrollWidth, background: getComputedStyle(page.body).backgroundColor,
    images: images.length, broken: images.filter((i) => !i.complete || i.naturalWidth == 0).length,
    plots: [...page.querySelectorAll("svg.plot")].filter((s) => s.getBoundingClientRect().height > 40).length,
    wide: wide.map((e) => e.tagName + "." + e.className),
    cut: [...page.querySelectorAll('svg[aria-label^="F1 per class"] text')].filter((e) =>
      e.getBoundingClientRect().left < e.closest("svg").getBoundingClientRect().left).map((e) => e.textContent),
    hidden: [...page.querySelectorAll('[aria-label="Confusions"]')].map((e) => e.scrollWidth - e.clientWidth),
    names: [...page.querySelectorAll(".matrix tbody th")].map((e) =>
      e.offsetWidth / e.closest(".scroll").clientWidth), requests: frame.contentWindow.performance.getEntriesByType(
      "resource").map((r) => r.name).filter((n) => !n.startsWith("data:")),
  }});
  arrived();
}});
</script>"""

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium on the PATH"),
    pytest.mark.timeout(300),
]


def look(report: str, directory: Path, *, dark: bool) -> tuple[dict, list[str]]:
    """Return what the browser measured in frames of every width, and the lines of its console."""
    page = html.escape(report)
    frames = "\n".join(f'<iframe class="measured" width="{w}" height="700" srcdoc="{page}"></iframe>' for w in WIDTHS)
    wrapper = directory / "wrapper.html"
    wrapper.write_text(WRAPPER.format(page=page, frames=frames), encoding="utf-8")
    scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
    # On a busy machine virtual time can run out before every frame has arrived: then the page gets more of it.
    for budget in (8_000, 40_000, 200_000):
        with tempfile.TemporaryDirectory() as profile:
            flags = [*FLAGS, scheme, f"--virtual-time-budget={budget}", f"--user-data-dir={profile}"]
            command = [CHROMIUM, *flags, "--dump-dom", wrapper.as_uri()]
            ended = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
        measured = re.search(r'<pre id="found">(.+?)</pre>', ended.stdout, re.DOTALL)
        if measured:
            break
    assert measured, ended.stderr[-2000:]
    return json.loads(html.unescape(measured[1])), [line for line in ended.stderr.splitlines() if "CONSOLE" in line]


@pytest.mark.parametrize(
    "dark", [pytest.param(False, marks=pytest.mark.slow, id="light"), pytest.param(True, id="dark")]
)
def test_the_report_fits_every_width_and_loads_nothing(tmp_path: Path, dark: bool) -> None:
    """At 320 to 1920 pixels, light or dark, nothing overflows, every picture is there, the console is silent."""
    classes = tuple(f"subcategory number {k}" for k in range(45)) if dark else ("shirt", "trouser", "bag")
    written = Written(tmp_path, datasets=("fashion-mnist", "own"), classes=classes, history=str(tmp_path / "store"))
    written.write("run-2", str(tmp_path / "store"), written.summary["parameters"])

    found, console = look(written.html, tmp_path, dark=dark)

    assert [] == console
    assert found["sandboxed"]
    assert len(WIDTHS) == len(found["frames"])
    for frame in found["frames"]:
        assert frame["width"] >= frame["scroll"]
        assert [] == frame["wide"]
        assert 0 == frame["broken"]
        assert frame["images"] >= 48
        assert 1 + 2 * 7 == frame["plots"]
        assert [] == frame["requests"]
        assert ("rgb(16, 19, 23)" if dark else "rgb(246, 247, 249)") == frame["background"]


def test_hostile_names_do_nothing_in_a_browser(tmp_path: Path) -> None:
    """Names full of markup run nothing, fetch nothing, hide nothing and widen nothing."""
    written = Written(tmp_path, datasets=(HOSTILE[1],), classes=HOSTILE, run_id=" ".join(HOSTILE), error=HOSTILE[0])

    found, console = look(written.html, tmp_path, dark=False)

    assert [] == console
    for frame in found["frames"]:
        assert frame["width"] >= frame["scroll"]
        assert [] == frame["wide"]
        assert 0 == frame["broken"]
        assert [] == frame["requests"]
        assert 7 == frame["plots"]


def test_long_class_names_leave_the_other_columns_in_sight(tmp_path: Path) -> None:
    """Names of 300 wide letters are whole in the chart of classes and wrap in tables and matrices, on a telephone too."""
    classes = ("W" * 300, "連衣裙" * 100, "seamless" * 37, "shirt", "bag")
    written = Written(tmp_path, classes=classes)

    found, _ = look(written.html, tmp_path, dark=False)

    for frame in found["frames"]:
        assert [] == frame["cut"]
        assert max(frame["names"]) < 0.65
        assert [0] == frame["hidden"] or frame["width"] < 500


@pytest.mark.parametrize("num_trials", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_report_of_hardly_anything_looks_whole(tmp_path: Path, num_trials: int) -> None:
    """Without or with one trial and with one approach missing, the page still fits and complains about nothing."""
    written = Written(tmp_path, approaches=("mlp",), num_trials=num_trials, num_examples=40)

    found, console = look(written.html, tmp_path, dark=False)

    assert [] == console
    assert all(frame["width"] >= frame["scroll"] and [] == frame["wide"] for frame in found["frames"])
