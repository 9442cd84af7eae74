"""Draws fashion articles from outlines: pose, size, colour, texture and noise vary, the kind decides the shape.

Coordinates run from -1 to 1, x to the right and y down.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

Points = Sequence[tuple[float, float]]

_SUPERSAMPLING = 3


@dataclass
class Outline:
    """What an article is drawn from, in order.

    Attributes:
        areas: Filled polygons.
        lines: Details drawn over them in a darker or lighter shade.
        straps: Thick lines in the article's own shade.
    """

    areas: Sequence[Points]
    lines: Sequence[Points] = ()
    straps: Sequence[Points] = ()


def _mirrored(half: Points) -> Points:
    """Close the right half of a symmetric outline, given from top to bottom."""
    return [*half, *((-x, y) for x, y in reversed(half))]


def _torso(
    rng: np.random.Generator, *, shoulder: float, waist: float, hem: float, bottom: float, neck: float
) -> Points:
    dip = rng.uniform(-0.72, -0.62)
    return _mirrored([(0.0, dip), (neck, -0.8), (shoulder, -0.72), (waist, rng.uniform(-0.05, 0.2)), (hem, bottom)])


def _sleeves(rng: np.random.Generator, shoulder: float, length: float, width: float) -> list[Points]:
    spread = rng.uniform(0.12, 0.42)
    end_x, end_y = shoulder + spread, -0.72 + length
    right = [
        (shoulder - 0.05, -0.75),
        (end_x + width / 2, end_y),
        (end_x - width / 2, end_y + 0.05),
        (shoulder - 0.08, -0.3),
    ]
    return [right, [(-x, y) for x, y in right]]


def tshirt(rng: np.random.Generator) -> Outline:
    """Short sleeves, wide neck."""
    shoulder = rng.uniform(0.42, 0.55)
    body = _torso(
        rng, shoulder=shoulder, waist=0.42, hem=rng.uniform(0.4, 0.5), bottom=rng.uniform(0.6, 0.85), neck=0.2
    )
    return Outline([body, *_sleeves(rng, shoulder, rng.uniform(0.3, 0.5), 0.26)])


def pullover(rng: np.random.Generator) -> Outline:
    """Long sleeves, ribbed hem."""
    shoulder = rng.uniform(0.42, 0.52)
    bottom = rng.uniform(0.6, 0.8)
    body = _torso(rng, shoulder=shoulder, waist=0.45, hem=0.46, bottom=bottom, neck=0.16)
    return Outline(
        [body, *_sleeves(rng, shoulder, rng.uniform(1.05, 1.35), 0.22)], [[(-0.45, bottom - 0.1), (0.45, bottom - 0.1)]]
    )


def coat(rng: np.random.Generator) -> Outline:
    """Long sleeves, long body, open front."""
    shoulder = rng.uniform(0.42, 0.52)
    bottom = rng.uniform(0.8, 0.95)
    body = _torso(rng, shoulder=shoulder, waist=0.4, hem=rng.uniform(0.45, 0.56), bottom=bottom, neck=0.18)
    front = [[(0.0, -0.5), (0.0, bottom)], [(-0.16, -0.78), (0.0, -0.4), (0.16, -0.78)]]
    return Outline([body, *_sleeves(rng, shoulder, rng.uniform(1.15, 1.45), 0.24)], front)


def shirt(rng: np.random.Generator) -> Outline:
    """Sleeves of any length, collar, row of buttons."""
    shoulder = rng.uniform(0.4, 0.52)
    bottom = rng.uniform(0.65, 0.88)
    body = _torso(rng, shoulder=shoulder, waist=0.4, hem=0.44, bottom=bottom, neck=0.17)
    buttons = [[(0.0, y), (0.02, y + 0.05)] for y in np.arange(-0.4, bottom - 0.1, 0.2)]
    collar = [[(-0.17, -0.8), (-0.05, -0.55), (0.0, -0.66), (0.05, -0.55), (0.17, -0.8)]]
    return Outline(
        [body, *_sleeves(rng, shoulder, rng.choice([0.4, 1.2]) + rng.uniform(-0.1, 0.1), 0.22)], collar + buttons
    )


def dress(rng: np.random.Generator) -> Outline:
    """Narrow waist, flared hem."""
    shoulder = rng.uniform(0.25, 0.36)
    waist, hem = rng.uniform(0.18, 0.26), rng.uniform(0.32, 0.6)
    body = _mirrored([(0.0, -0.72), (0.14, -0.92), (shoulder, -0.86), (waist, -0.2), (hem, rng.uniform(0.75, 0.95))])
    areas = [body]
    if rng.random() < 0.4:
        areas += _sleeves(rng, shoulder, rng.uniform(0.3, 0.9), 0.16)
    return Outline(areas, [[(-waist, -0.2), (waist, -0.2)]] if rng.random() < 0.5 else [])


def trouser(rng: np.random.Generator, bottom: float = 0.92) -> Outline:
    """Two legs."""
    hip, ankle, gap = rng.uniform(0.28, 0.4), rng.uniform(0.3, 0.5), rng.uniform(0.03, 0.14)
    half = [(0.0, -0.88), (hip, -0.88), (hip + 0.05, -0.4), (ankle, bottom), (ankle - rng.uniform(0.16, 0.24), bottom)]
    return Outline([_mirrored([*half, (gap, -0.25)])], [[(-hip, -0.76), (hip, -0.76)]])


def shorts(rng: np.random.Generator) -> Outline:
    """Two short legs."""
    return trouser(rng, bottom=rng.uniform(0.05, 0.3))


def _sole(rng: np.random.Generator, top: float) -> Points:
    return [(-0.88, top), (0.86, top), (0.92, top + rng.uniform(0.06, 0.12)), (-0.86, top + rng.uniform(0.1, 0.16))]


def sneaker(rng: np.random.Generator) -> Outline:
    """Low shoe in profile, with laces."""
    top = rng.uniform(-0.3, -0.12)
    upper = [
        (-0.88, 0.34),
        (-0.86, top),
        (-0.5, top - 0.05),
        (-0.3, top + 0.1),
        (0.35, 0.08),
        (0.85, 0.2),
        (0.88, 0.34),
    ]
    laces = [[(x, top + 0.1 + 0.25 * (x + 0.3)), (x + 0.12, top + 0.26)] for x in (-0.25, -0.08, 0.09)]
    return Outline([upper, _sole(rng, 0.34)], laces)


def boot(rng: np.random.Generator) -> Outline:
    """Shoe in profile with a shaft."""
    top = rng.uniform(-0.85, -0.5)
    upper = [(-0.8, 0.4), (-0.78, top), (-0.1, top), (-0.08, -0.05), (0.4, 0.08), (0.82, 0.22), (0.84, 0.4)]
    heel = [(-0.8, 0.4), (-0.4, 0.4), (-0.45, 0.4 + rng.uniform(0.1, 0.4)), (-0.75, 0.4 + rng.uniform(0.1, 0.4))]
    return Outline([upper, _sole(rng, 0.4), heel], [[(-0.45, top), (-0.45, 0.0)]] if rng.random() < 0.5 else [])


def sandal(rng: np.random.Generator) -> Outline:
    """Sole with straps."""
    lift = rng.uniform(0.0, 0.45)
    sole = [
        (-0.88, 0.3 - lift),
        (-0.3, 0.32 - lift / 2),
        (0.3, 0.42),
        (0.9, 0.42),
        (0.9, 0.52),
        (-0.2, 0.5),
        (-0.86, 0.46 - lift / 3),
    ]
    straps = [
        [(x, 0.35 - lift * (0.5 - x) / 2), (x + 0.2, rng.uniform(-0.35, 0.0)), (x + 0.42, 0.4)]
        for x in (-0.6, -0.1, 0.35)
    ]
    chosen = [strap for strap in straps if rng.random() < 0.8] or straps[:1]
    return Outline([sole], straps=chosen)


def bag(rng: np.random.Generator) -> Outline:
    """Trapezoid with a handle."""
    top, bottom, y = rng.uniform(0.5, 0.8), rng.uniform(0.6, 0.88), rng.uniform(-0.35, -0.05)
    reach, height = rng.uniform(0.25, 0.45), rng.uniform(0.3, 0.6)
    handle = [(reach * math.cos(a), y - height * math.sin(a)) for a in np.linspace(0, math.pi, 9)]
    flap = [[(-top, y + 0.25), (0.0, y + rng.uniform(0.3, 0.5)), (top, y + 0.25)]]
    return Outline([[(-top, y), (top, y), (bottom, 0.75), (-bottom, 0.75)]], flap, [handle])


def watch(rng: np.random.Generator) -> Outline:
    """Dial on a strap."""
    radius, width = rng.uniform(0.3, 0.42), rng.uniform(0.14, 0.24)
    dial = [(radius * math.cos(a), 0.85 * radius * math.sin(a)) for a in np.linspace(0, 2 * math.pi, 20)]
    strap = [(-width, -0.92), (width, -0.92), (width, 0.92), (-width, 0.92)]
    hour = rng.uniform(0, 2 * math.pi)
    return Outline(
        [strap, dial], [dial, [(0.0, 0.0), (0.24 * math.cos(hour), 0.2 * math.sin(hour))], [(0.0, 0.0), (0.0, -0.22)]]
    )


def eyewear(rng: np.random.Generator) -> Outline:
    """Two lenses and a bridge."""
    width, height = rng.uniform(0.3, 0.4), rng.uniform(0.16, 0.28)
    lens = [(0.46 + width * math.cos(a), height * math.sin(a)) for a in np.linspace(0, 2 * math.pi, 16)]
    temples = [[(0.8, -0.05), (0.97, rng.uniform(-0.4, 0.0))], [(-0.8, -0.05), (-0.97, rng.uniform(-0.4, 0.0))]]
    return Outline([lens, [(-x, y) for x, y in lens]], straps=[[(-0.12, -0.05), (0.0, -0.12), (0.12, -0.05)], *temples])


def voucher(rng: np.random.Generator) -> Outline:
    """A card with lines of print."""
    lines = [[(-0.6, y), (rng.uniform(0.1, 0.6), y)] for y in (-0.2, 0.0, 0.2)]
    return Outline([[(-0.85, -0.45), (0.85, -0.45), (0.85, 0.45), (-0.85, 0.45)]], lines)


def draw(
    outline: Callable[[np.random.Generator], Outline],
    rng: np.random.Generator,
    *,
    size: tuple[int, int],
    colour: tuple[float, float, float],
    background: float,
) -> np.ndarray:
    """Draw one article.

    Args:
        outline: One of the functions above.
        rng: Source of every variation.
        size: Height and width, pixels.
        colour: Mean RGB, 0-255.
        background: Grey level around the article, 0-255.

    Returns:
        (H, W, 3) uint8.
    """
    height, width = (s * _SUPERSAMPLING for s in size)
    shape = outline(rng)
    place = _pose(rng, height, width)
    mask, details = Image.new("L", (width, height)), Image.new("L", (width, height))
    paint, mark = ImageDraw.Draw(mask), ImageDraw.Draw(details)
    thickness = max(2, width // 16)
    for area in shape.areas:
        paint.polygon(place(area), fill=255)
    for strap in shape.straps:
        paint.line(place(strap), fill=255, width=thickness, joint="curve")
    for line in shape.lines:
        mark.line(place(line), fill=255, width=max(2, width // 40))
    small = (size[1], size[0])
    cover = np.asarray(mask.resize(small, Image.Resampling.BOX), np.float32)[..., None] / 255
    detail = np.asarray(details.resize(small, Image.Resampling.BOX), np.float32)[..., None] / 255 * cover
    fabric = np.asarray(colour, np.float32) * _texture(rng, *size)[..., None]
    contrast = rng.uniform(0.35, 0.7) * (1 if fabric.mean() < 90 else -1)
    fabric = fabric * (1 + contrast * detail) + 60 * detail * (contrast > 0)
    noise = rng.normal(0, rng.uniform(2, 10), (*size, 1))
    image = background * (1 - cover) + (fabric + noise) * cover
    return np.clip(image + rng.normal(0, 1.5, (*size, 1)) * (cover > 0), 0, 255).astype(np.uint8)


def _pose(rng: np.random.Generator, height: int, width: int) -> Callable[[Points], list[tuple[float, float]]]:
    """Return the map from outline coordinates to pixels: mirrored, turned, sheared, scaled, shifted, and a little uneven."""
    turn, shear = rng.normal(0, 0.1), rng.normal(0, 0.06)
    scale_x, scale_y = rng.uniform(0.68, 0.95, 2) * (rng.choice([-1, 1]), 1)
    matrix = np.array([[math.cos(turn), -math.sin(turn) + shear], [math.sin(turn), math.cos(turn)]]) * (
        scale_x,
        scale_y,
    )
    shift = rng.normal(0, 0.06, 2)

    def place(points: Points) -> list[tuple[float, float]]:
        uneven = np.asarray(points) + rng.normal(0, 0.015, (len(points), 2))
        moved = uneven @ matrix.T + shift
        return [((x + 1) / 2 * width, (y + 1) / 2 * height) for x, y in moved]

    return place


def _texture(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Return (H, W) float around 1: plain, striped, checked or shaded."""
    y, x = np.mgrid[0:height, 0:width] / height
    kind, period = (
        rng.choice(["plain", "stripes", "checks", "shade"], p=[0.4, 0.25, 0.1, 0.25]),
        rng.uniform(0.08, 0.25),
    )
    angle = rng.uniform(0, math.pi)
    along = x * math.cos(angle) + y * math.sin(angle)
    strength = rng.uniform(0.1, 0.35)
    if kind == "stripes":
        return 1 + strength * np.sign(np.sin(2 * math.pi * along / period))
    if kind == "checks":
        return 1 + strength * np.sign(np.sin(2 * math.pi * x / period)) * np.sign(np.sin(2 * math.pi * y / period))
    if kind == "shade":
        return 1 + strength * (along - along.mean())
    return np.ones((height, width))
