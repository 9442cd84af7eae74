"""This module brings pictures to the form of a data set's images, and knows the published data sets' licences."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from PIL import Image

from components.data.readers.images import decode
from components.dataset_name import FASHION_MNIST, FASHION_PRODUCTS
from components.errors import DataError


@dataclass(frozen=True)
class Licence:
    """The terms under which a data set is published.

    Attributes:
        id: The licence's name as Hugging Face names licences in a card's front matter: https://huggingface.co/docs/hub/repositories-licenses
        text: Who publishes the data under which licence, and where to read more.
    """

    id: str
    text: str


UNKNOWN_LICENCE = Licence("unknown", "not known to this program; ask whoever supplied it")
LICENCES = {
    FASHION_MNIST: Licence(
        "mit", "Fashion-MNIST, MIT licence, Zalando SE: https://github.com/zalandoresearch/fashion-mnist"
    ),
    FASHION_PRODUCTS: Licence(
        "other",
        "Fashion Product Images (Small), published on Kaggle under the MIT licence by its uploader; rights in the product"
        " photographs themselves stay with the retailer: https://www.kaggle.com/datasets/paramaggarwal/fashion-product-images-small",
    ),
}


def licence_of(dataset: str) -> Licence:
    """Return the licence of a data set; for an own catalogue, a sentence that refers to its owner."""
    return LICENCES.get(dataset, UNKNOWN_LICENCE)


@dataclass(frozen=True, kw_only=True)
class PictureRule:
    """Brings any picture to what a data set's images are: decoded and scaled as ingest does.

    Attributes:
        height: Height of the images in pixels.
        width: Width of the images in pixels.
        channels: 3 for RGB, 1 for grey.
        is_negative: Whether the data set shows light products on black, so that photographs must be negated.
    """

    height: int
    width: int
    channels: int
    is_negative: bool = False

    @classmethod
    def of(cls, dataset: str, shape: tuple[int, ...]) -> Self:
        """Return the rule of a data set.

        Args:
            dataset: Name of the data set.
            shape: (H, W, C) of its images.

        Raises:
            DataError: They are neither RGB nor grey.
        """
        height, width, channels = shape
        if channels not in (1, 3):
            raise DataError(f"images of {dataset} must have 1 or 3 channels; got {channels}. Use another model")
        return cls(height=height, width=width, channels=channels, is_negative=dataset == FASHION_MNIST)

    def image(self) -> dict[str, Any]:
        """Return the form of the model's input, for programs."""
        return {
            "height": self.height,
            "width": self.width,
            "channels": self.channels,
            "colours": "RGB" if self.channels == 3 else "grey",
            "layout": "NHWC",
            "type": "uint8",
        }

    def sentence(self) -> str:
        """Return how a picture becomes such an image, for people and as the identity of the rule."""
        steps = [
            "decode the first frame to 8-bit RGB, transparency on white, turned upright as EXIF says",
            f"scale to fit {self.width} x {self.height} pixels (width x height) with bicubic resampling, centre,"
            " pad with white",
        ]
        if self.channels == 1:
            steps.append("convert to grey by ITU-R 601-2 luma")
        if self.is_negative:
            steps.append("negate, unless the picture already had exactly this size")
        return "; ".join(steps)

    def read(self, data: bytes) -> np.ndarray:
        """Turn an image file into an image.

        Args:
            data: The file, of any kind that ingest reads.

        Returns:
            (H, W, C) uint8, 0-255.

        Raises:
            UndecodableError: It is no usable image.
        """
        image, notes = decode(data, (self.height, self.width))
        if self.channels == 3:
            return image
        grey = np.asarray(Image.fromarray(image).convert("L"))[..., None]
        return 255 - grey if self.is_negative and "resized" in notes else grey
