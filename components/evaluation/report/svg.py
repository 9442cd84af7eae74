"""Matplotlib figures as inline SVG that follow the page's light or dark colours and put nothing of their text at risk."""

import functools
import hashlib
import html
import io
import re
import unicodedata
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

import matplotlib
from markupsafe import Markup, escape
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

from components.approaches import APPROACHES

# Placeholder colours: drawn by matplotlib, replaced by the page's variables afterwards.
INK, MUTED, GRID, PAPER = "#010203", "#020304", "#030405", "#040506"
OTHER_SERIES = "#070809"
SERIES = {name: f"#0506{number:02x}" for number, name in enumerate(APPROACHES, start=7)}
SCALE = ("#08090a", "#090a0b", "#0a0b0c", "#0b0c0d", "#0c0d0e")
"""Five steps from worst to best."""

_VARIABLES = {
    INK: "--ink",
    MUTED: "--muted",
    GRID: "--line",
    PAPER: "--card",
    **{colour: f"--{name}" for name, colour in SERIES.items()},
    OTHER_SERIES: "--other",
    **{colour: f"--scale-{step}" for step, colour in enumerate(SCALE, start=1)},
}
P = ParamSpec("P")
R = TypeVar("R")
_STYLE: Any = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # a class name with dollar signs is a name, not a formula
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.0,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.titlesize": 10.0,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "none",
    "axes.unicode_minus": True,
    "figure.facecolor": "none",
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "text.color": INK,
    "xtick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.color": MUTED,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
}


def series(approach: str) -> str:
    """Return the placeholder colour of an approach."""
    return SERIES.get(approach, OTHER_SERIES)


@contextmanager
def style() -> Iterator[None]:
    """Draw in the report's style; everything a figure is made of must be created inside."""
    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        # The browser has the glyph: text stays text, matplotlib's font only measures it.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def styled(draw: Callable[P, R]) -> Callable[P, R]:
    """Run a drawing function in the report's style."""

    @functools.wraps(draw)
    def drawing(*args: P.args, **kwargs: P.kwargs) -> R:
        with style():
            return draw(*args, **kwargs)

    return drawing


def figure(width: float, height: float) -> Figure:
    """Return an empty figure of a size in CSS pixels."""
    made = Figure(figsize=(width / 96, height / 96), dpi=96)
    FigureCanvasSVG(made)
    return made


def label_width(label: str) -> float:
    """Return about how many CSS pixels wide a tick label is; Chinese letters, which matplotlib's font lacks, count as W."""
    measured = "".join("W" if unicodedata.east_asian_width(c) in "FW" else c for c in label)
    font = FontProperties(family=_STYLE["font.sans-serif"], size=_STYLE["ytick.labelsize"])
    return text_to_path.get_text_width_height_descent(measured, font, ismath=False)[0] * 96 / 72


def to_svg(made: Figure, alt: str, titles: Mapping[str, str] | None = None) -> Markup:
    """Return a figure as an inline SVG element.

    Args:
        made: Drawn within `style()`.
        alt: What it shows, for readers who cannot see it; plain text.
        titles: By label what is shown where the pointer rests on it; plain text.
    """
    buffer = io.StringIO()
    salt = hashlib.sha256(alt.encode("utf-8", "replace")).hexdigest()[:12]
    with matplotlib.rc_context({"svg.hashsalt": salt, **_STYLE}):
        made.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    for pattern in (r"<metadata>.*?</metadata>", r"<style.*?</style>", r"<!--.*?-->", r' id="[a-zA-Z0-9.]+_\d+"'):
        text = re.sub(pattern, "", text, flags=re.DOTALL)
    text = re.sub(r' style="[^"]*"', _page_style, text)
    text = re.sub(r'(?<= (?:d|x|y)=")[^"]*', _shorter, text)
    text = re.sub(r'transform="rotate\(-0 [^"]*"', "", text)
    text = re.sub(r"\s*\n\s*", " ", text)
    for label, title in (titles or {}).items():
        shown = f">{html.escape(label, quote=False)}</text>"
        text = text.replace(shown, f"><title>{escape(title)}</title{shown}")
    ((width, height),) = re.findall(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', text)[:1]
    opening = (
        f'<svg role="img" aria-label="{escape(alt)}" viewBox="0 0 {width} {height}" class="plot"'
        f' style="--natural: {round(float(width) * 96 / 72)}px" xmlns:xlink="http://www.w3.org/1999/xlink">'
    )
    return Markup(opening + text[text.index(">") + 1 :])  # noqa: S704 (matplotlib escapes its text; `alt` is escaped here)


def _page_style(match: re.Match[str]) -> str:
    """Let the page choose colours and typeface."""
    text = re.sub(r"#0[0-9a-f]{5}\b", lambda m: f"var({_VARIABLES[m[0]]})" if m[0] in _VARIABLES else m[0], match[0])
    return re.sub(r" ?font-family: [^;]*;", "", text)


def _shorter(match: re.Match[str]) -> str:
    """Cut coordinates to hundredths of a point and collapse blanks: half the bytes, the same picture."""
    return " ".join(re.sub(r"(\.\d\d)\d+", r"\1", match[0]).split())
