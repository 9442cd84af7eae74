"""Draw README's pictures, `docs/pictures/report.png` and `live-table.svg`, of a run of the quick start.

`python -m benchmarks.pictures` starts the run itself, on the generated sample; `--run DIR` takes one that has ended.
"""

import argparse
import contextlib
import io
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from pipelines.local.progress import Progress
from pipelines.local.run import LOCAL_RUN

PICTURES = Path(__file__).resolve().parents[1] / "docs" / "pictures"
WIDTH, HEIGHT = 1080, 930
"""Size of the report's picture in pixels: both verdicts."""


def draw_report(report: Path, picture: Path) -> None:
    """Take a picture of the head of a report, as a browser without a window shows it.

    Args:
        report: `report.html`.
        picture: PNG to write.
    """
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        sys.exit("the report's picture needs chromium or google-chrome; got neither. Install one")
    with tempfile.TemporaryDirectory() as profile:
        switches = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={profile}")
        target = (f"--window-size={WIDTH},{HEIGHT}", f"--screenshot={picture}", report.resolve().as_uri())
        subprocess.run([browser, *switches, *target], check=True, capture_output=True, timeout=120)


def draw_live_table(out: Path, picture: Path) -> None:
    """Draw the live table of a run as a terminal shows it at the end.

    Args:
        out: The run's folder.
        picture: SVG to write.
    """
    progress = Progress(out, str(out / "studies"), LOCAL_RUN)
    console = Console(file=io.StringIO(), width=80, record=True, force_terminal=True)
    with contextlib.redirect_stderr(io.StringIO()):
        progress.update()
        console.print(progress.table())
    drawn = console.export_svg(title="fashion-tuning run")
    # The fonts are those of whoever looks: a picture must not load anything from elsewhere.
    drawn = re.sub(r"@font-face \{.*?\}\s*", "", drawn, flags=re.DOTALL)
    drawn = re.sub(r"<!--.*?-->\s*", "", drawn).replace(
        "Fira Code, monospace", "ui-monospace, Menlo, Consolas, monospace"
    )
    picture.write_text(drawn, encoding="utf-8")


def main() -> None:
    """Draw both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="folder of a run that has ended")
    parser.add_argument("--out", type=Path, default=PICTURES, help="folder to draw into")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        out = given.run or Path(scratch) / "run"
        if not given.run:
            command = [sys.executable, "-m", "pipelines", "run", "--preset", "quickstart", "--out", str(out)]
            subprocess.run(command, check=True)
        draw_report(out / "report.html", given.out / "report.png")
        draw_live_table(out, given.out / "live-table.svg")


if __name__ == "__main__":
    main()
