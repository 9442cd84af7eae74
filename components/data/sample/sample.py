"""Draws a small catalogue and writes it in exactly the published formats of both datasets, defects included.

Nothing in it comes from any other data set.
"""

import hashlib
import io
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from components.data.readers import fashion_mnist, fashion_products
from components.data.readers.fashion_products import COLUMNS
from components.data.readers.idx import format_idx
from components.data.sample import drawing

FASHION_MNIST_DIR, FASHION_PRODUCTS_ZIP = "fashion-mnist", "fashion-products.zip"

NUM_TRAIN, NUM_TEST, NUM_PRODUCTS = 1_200, 300, 1_000

OUTLINES = (
    drawing.tshirt,
    drawing.trouser,
    drawing.pullover,
    drawing.dress,
    drawing.coat,
    drawing.sandal,
    drawing.shirt,
    drawing.sneaker,
    drawing.bag,
    drawing.boot,
)
"""How each class of Fashion-MNIST is drawn, in label order."""

COLOURS = {
    "Black": (35, 35, 40),
    "Navy Blue": (30, 40, 95),
    "Blue": (60, 100, 190),
    "Grey": (130, 130, 135),
    "Red": (185, 40, 45),
    "Green": (60, 125, 70),
    "Brown": (120, 80, 50),
    "Pink": (225, 130, 160),
    "Beige": (205, 185, 150),
    "Purple": (115, 65, 135),
}


@dataclass(frozen=True)
class Kind:
    """One article type of the product catalogue."""

    outline: Callable
    master_category: str
    subcategory: str
    article_type: str
    share: float


KINDS = (
    Kind(drawing.tshirt, "Apparel", "Topwear", "Tshirts", 0.16),
    Kind(drawing.shirt, "Apparel", "Topwear", "Shirts", 0.12),
    Kind(drawing.pullover, "Apparel", "Topwear", "Sweaters", 0.05),
    Kind(drawing.coat, "Apparel", "Topwear", "Jackets", 0.03),
    Kind(drawing.trouser, "Apparel", "Bottomwear", "Trousers", 0.08),
    Kind(drawing.shorts, "Apparel", "Bottomwear", "Shorts", 0.05),
    Kind(drawing.dress, "Apparel", "Dress", "Dresses", 0.06),
    Kind(drawing.sneaker, "Footwear", "Shoes", "Casual Shoes", 0.12),
    Kind(drawing.boot, "Footwear", "Shoes", "Formal Shoes", 0.07),
    Kind(drawing.sandal, "Footwear", "Sandal", "Sandals", 0.07),
    Kind(drawing.bag, "Accessories", "Bags", "Handbags", 0.09),
    Kind(drawing.watch, "Accessories", "Watches", "Watches", 0.06),
    Kind(drawing.eyewear, "Accessories", "Eyewear", "Sunglasses", 0.04),
)
VOUCHER = Kind(drawing.voucher, "Free Items", "Vouchers", "Free Gifts", 0.0)
"""The singleton class."""

_BRANDS = ("Northfield", "Alder & Co", "Maru", "Kestrel", "Lumen", "Ostra")


def write_sample(
    directory: Path | str,
    seed: int = 0,
    *,
    num_train: int = NUM_TRAIN,
    num_test: int = NUM_TEST,
    num_products: int = NUM_PRODUCTS,
) -> None:
    """Write `DIR/fashion-mnist/*.gz` and `DIR/fashion-products.zip`.

    Args:
        directory: Made where it is missing.
        seed: The same seed draws the same files.
        num_train: Training images in Fashion-MNIST's format, at least 10.
        num_test: Test images in Fashion-MNIST's format, at least 10.
        num_products: Products, at least 100; the archive has a few more or fewer images than that, by its defects.
    """
    directory = Path(directory)
    folder = directory / FASHION_MNIST_DIR
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([seed, 1])
    for images_name, labels_name, number in (
        (fashion_mnist.TRAIN_IMAGES, fashion_mnist.TRAIN_LABELS, num_train),
        (fashion_mnist.TEST_IMAGES, fashion_mnist.TEST_LABELS, num_test),
    ):
        images, labels = draw_grey(rng, number)
        (folder / images_name).write_bytes(format_idx(images))
        (folder / labels_name).write_bytes(format_idx(labels))
    sums = "".join(
        f"{hashlib.sha256((folder / n).read_bytes()).hexdigest()}  {n}\n" for n in sorted(fashion_mnist.FILES)
    )
    (folder / "SHA256SUMS").write_text(sums, encoding="ascii")
    _write_products(directory / FASHION_PRODUCTS_ZIP, np.random.default_rng([seed, 2]), num_products)


def draw_grey(rng: np.random.Generator, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw (N, 28, 28) uint8 images on black and their (N,) uint8 labels, classes in equal shares."""
    labels = rng.permutation(np.arange(number) % len(OUTLINES)).astype(np.uint8)
    images = np.empty((number, 28, 28), np.uint8)
    for i, label in enumerate(labels):
        shade = rng.uniform(70, 235)
        images[i] = drawing.draw(OUTLINES[label], rng, size=(28, 28), colour=(shade,) * 3, background=0)[..., 0]
    return images, labels


@dataclass
class _Product:
    """A row of the table with its image's bytes; none where there is no image."""

    fields: list[str]
    image: bytes = b""


def _write_products(path: Path, rng: np.random.Generator, number: int) -> None:
    ids = [str(i) for i in rng.permutation(np.arange(1_200, 1_200 + 12 * number))[: number + 40]]
    counts = np.array([k.share for k in KINDS]) * (number - 1)
    kinds = [kind for kind, count in zip(KINDS, counts, strict=True) for _ in range(max(2, round(count)))]
    kinds = [kinds[i] for i in rng.permutation(len(kinds))] + [VOUCHER]
    products = [_draw_product(rng, ids.pop(), kind) for kind in kinds]
    products, stray = _with_defects(products, rng, ids)
    products = [products[i] for i in rng.permutation(len(products))]
    table = "\n".join([",".join(COLUMNS), *(",".join(p.fields) for p in products)]) + "\n"
    members = [(f"images/{p.fields[0]}.jpg", p.image) for p in products if p.image] + stray
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(_entry("styles.csv", zipfile.ZIP_DEFLATED), table)
        for name, data in sorted(members, key=lambda m: int(m[0][len("images/") : -len(".jpg")])):
            archive.writestr(_entry(name, zipfile.ZIP_STORED), data)


def _entry(name: str, method: int) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0))  # a fixed time, so that equal content gives equal bytes
    entry.compress_type, entry.external_attr = method, 0o644 << 16
    return entry


def _draw_product(rng: np.random.Generator, key: str, kind: Kind) -> _Product:
    colour = str(rng.choice(list(COLOURS)))
    shade = np.clip(np.array(COLOURS[colour]) * rng.uniform(0.8, 1.2) + rng.normal(0, 8, 3), 0, 255)
    pixels = drawing.draw(
        kind.outline, rng, size=fashion_products.SIZE, colour=tuple(shade), background=rng.choice([255, 255, 250, 240])
    )
    gender = "Women" if kind.article_type in ("Dresses", "Handbags") else str(rng.choice(["Men", "Women", "Unisex"]))
    name = f"{rng.choice(_BRANDS)} {gender} {colour} {kind.article_type}"
    fields = [
        key,
        gender,
        kind.master_category,
        kind.subcategory,
        kind.article_type,
        colour,
        str(rng.choice(["Spring", "Summer", "Fall", "Winter"])),
        str(rng.integers(2015, 2025)),
        str(rng.choice(["Casual", "Formal", "Sports"])),
        name,
    ]
    return _Product(fields, _jpeg(pixels))


def _jpeg(pixels: np.ndarray, **options: object) -> bytes:
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "JPEG", quality=88, **options)
    return data.getvalue()


def _with_defects(
    products: list[_Product], rng: np.random.Generator, ids: list[str]
) -> tuple[list[_Product], list[tuple[str, bytes]]]:
    """Add every defect that the real archive has, and those that its full version is said to have."""
    singles = [p for p in products if p.fields[3] != VOUCHER.subcategory]

    def pixels(product: _Product) -> np.ndarray:
        return np.asarray(Image.open(io.BytesIO(product.image)))

    for product in singles[:2]:  # unquoted commas
        product.fields[-1] = product.fields[-1].replace(" ", ", ", 1)
    singles[2].image = singles[3].image = b""  # rows without image
    stray = [(f"images/{ids.pop()}.jpg", singles[4].image)]  # an image without row
    copies: list[_Product] = []
    for product in singles[5:15]:  # the same picture again, half of them with other bytes but the same pixels
        image = product.image
        if len(copies) % 2:
            image = image[:2] + b"\xff\xfe\x00\x06copy" + image[2:]
        copies.append(_Product([ids.pop(), *product.fields[1:]], image))
    shoe = next(p for p in singles[20:] if p.fields[3] == "Shoes")
    contradiction = next(p for p in singles[20:] if p.fields[3] == "Sandal").fields
    copies.append(_Product([ids.pop(), *contradiction[1:]], shoe.image))  # the same picture under another label
    singles[15].image = _jpeg(pixels(singles[15]).mean(axis=2).astype(np.uint8))  # greyscale
    for product, size in ((singles[16], (53, 80)), (singles[17], (60, 60)), (singles[18], (120, 160))):
        product.image = _jpeg(np.asarray(Image.fromarray(pixels(product)).resize(size)))
    del rng
    return products + copies, stray
