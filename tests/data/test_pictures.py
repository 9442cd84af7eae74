import io
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components.data.parallel import in_order
from components.data.pictures import PictureRule
from components.data.readers.idx import format_idx
from components.data.readers.images import UndecodableError, decode
from components.data.sources.pictures import Pictures
from components.errors import DataError, FashionTuningError

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (28, 28), dtype=np.uint8)
PHOTO = RNG.integers(0, 256, (90, 50, 3), dtype=np.uint8)


def encoded(pixels: np.ndarray, form: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form)
    return file.getvalue()


def test_colour_pictures_become_what_ingest_makes_of_them():
    """Fit, centred, padded with white: the very array that ingest's decoder gives."""
    rule = PictureRule.of("fashion-products", (80, 60, 3))

    assert decode(encoded(PHOTO), (80, 60))[0].tolist() == rule.read(encoded(PHOTO)).tolist()
    assert [255, 255, 255] == rule.read(encoded(PHOTO))[40, 0].tolist()


def test_an_image_of_fashion_mnist_as_a_picture_is_that_image():
    """Grey or as equal colours, its pixels come back unchanged and not negated."""
    rule = PictureRule.of("fashion-mnist", (28, 28, 1))

    for pixels in (GREY, np.repeat(GREY[..., None], 3, axis=2)):
        assert GREY[..., None].tolist() == rule.read(encoded(pixels)).tolist()


def test_a_photograph_for_fashion_mnist_is_negated():
    """The product is light on black there: white paper becomes black."""
    rule = PictureRule.of("fashion-mnist", (28, 28, 1))
    found = rule.read(encoded(np.full((90, 50, 3), 200, np.uint8)))

    assert (28, 28, 1) == found.shape
    assert {0, 55} == {int(found[0, 0, 0]), int(found[14, 14, 0])}
    assert "negate, unless" in rule.sentence()


def test_what_is_no_picture_has_a_reason():
    """Text is refused, and so is a model of images that are neither grey nor RGB."""
    with pytest.raises(UndecodableError, match="no image"):
        PictureRule.of("shop", (8, 8, 3)).read(b"hello")
    with pytest.raises(DataError, match="1 or 3 channels"):
        PictureRule.of("shop", (8, 8, 4))


def names(paths: list[Path]) -> list[str]:
    return [name for name, _ in Pictures(paths)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two pictures, one below, and a text."""
    (tmp_path / "shop" / "more").mkdir(parents=True)
    (tmp_path / "shop" / "b.PNG").write_bytes(encoded(GREY))
    (tmp_path / "shop" / "more" / "a.jpg").write_bytes(encoded(PHOTO, "JPEG"))
    (tmp_path / "shop" / "prices.csv").write_text("a,1")
    return tmp_path / "shop"


def test_files_folders_and_archives_give_their_pictures(folder: Path, tmp_path: Path):
    """In the order given, those of a folder or archive by name; what is no image by its name is counted."""
    archive = tmp_path / "shop.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(folder.rglob("*"), reverse=True):
            file.write(path, path.relative_to(folder))
    one = folder / "b.PNG"
    found = Pictures([archive, one, folder])

    assert [
        *(f"{archive}/{name}" for name in ("b.PNG", "more/a.jpg")),
        str(one),
        *(f"{folder}/{name}" for name in ("b.PNG", "more/a.jpg")),
    ] == [name for name, _ in found]
    read = [read() for _, read in found]
    assert read[0] == read[2] == read[3] == one.read_bytes()
    assert read[1] == read[4]
    assert (5, 2) == (len(found), found.num_ignored)
    found.close()


def test_arrays_give_their_images(tmp_path: Path):
    """What ingest wrote and what MNIST's publishers do, gzipped or not, image by image."""
    images = RNG.integers(0, 256, (3, 4, 5), dtype=np.uint8)
    np.save(tmp_path / "images.npy", images[..., None])
    (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(format_idx(images))
    found = list(Pictures([tmp_path / "images.npy", tmp_path / "t10k-images-idx3-ubyte.gz"]))

    assert f"{tmp_path / 'images.npy'}[2]" == found[2][0]
    assert [*images[..., None].tolist(), *images[..., None].tolist()] == [read().tolist() for _, read in found]


def test_each_path_without_pictures_is_one_that_cannot_be_read(tmp_path: Path):
    """Missing, empty, damaged, a pipe, an array of numbers: named with its reason, and the rest goes on."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.zip").write_bytes(b"PK\3\4 cut short")
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(b"\0\0")
    np.save(tmp_path / "numbers.npy", np.zeros(3))
    (tmp_path / "cut.npy").write_bytes(b"\x93NUMPY")
    wrong = ["missing.jpg", "empty", "broken.zip", "t10k-images-idx3-ubyte", "numbers.npy", "cut.npy"]
    found = list(Pictures([tmp_path / name for name in wrong]))

    assert [str(tmp_path / name) for name in wrong] == [name for name, _ in found]
    for _, read in found:
        with pytest.raises(FashionTuningError):
            read()


def test_a_link_out_of_a_folder_is_named(folder: Path, tmp_path: Path):
    """It is not followed, and not passed over in silence either."""
    (tmp_path / "secret.png").write_bytes(encoded(GREY))
    (folder / "z.png").symlink_to(tmp_path / "secret.png")
    *_, (name, read) = Pictures([folder])

    assert f"{folder}/z.png" == name
    with pytest.raises(DataError, match="leads out of the source"):
        read()


def test_results_do_not_pile_up():
    """However many values there are, only some calls are made before the first result is taken."""
    made, lock = 0, threading.Lock()

    def call(value: int) -> int:
        nonlocal made
        with lock:
            made += 1
        return value

    results = in_order(call, iter(range(10_000)), num_threads=2)

    assert 0 == next(results)
    assert made <= 9
    assert list(range(1, 10_000)) == list(results)
