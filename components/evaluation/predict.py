"""A model in use gives pictures classes with probabilities, by the decoding, scaling and inference that evaluate judged.

Images are packed into batches of evaluate's size, so that the same images in the same order give the same bits.
"""

import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from components.data.parallel import in_order
from components.data.pictures import PictureRule
from components.data.readers.images import UndecodableError
from components.data.sources.pictures import Read
from components.errors import DataError, FashionTuningError, ParameterError
from components.evaluation.champion.records import ChampionRecords
from components.evaluation.inference import BATCH_SIZE, OnnxModel
from components.models.facts import read_metadata
from components.stores import ObjectNotFoundError, open_store
from components.text import clean

_DECODED_AT_ONCE = 32  # pictures a thread takes


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The answer for one picture.

    Attributes:
        name: Name of the picture.
        top: The most probable classes with their probabilities (float32), the most probable first; nothing where `error` is set.
        error: Why the picture could not be read.
    """

    name: str
    top: tuple[tuple[str, np.float32], ...] = ()
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class Classifier:
    """A model together with its metadata.

    Attributes:
        model: The ONNX.
        classes: Names in the order of its probabilities.
        rule: How a picture becomes its input.
    """

    model: OnnxModel
    classes: tuple[str, ...]
    rule: PictureRule

    @classmethod
    def of_champion(cls, root: str, dataset: str) -> Self:
        """Return the champion of a data set.

        Args:
            root: Study root that holds the champions.
            dataset: Name of the data set.

        Raises:
            DataError: There is no champion, or it is damaged.
        """
        records = ChampionRecords(open_store(root), dataset)
        champion = records.champion()
        described = {"dataset": dataset, "classes": champion.content["classes"]}
        try:
            return cls._of(records.read_model(champion.sha256), dataset, described)
        except ObjectNotFoundError as error:
            raise DataError(f"{error}. Roll back to an earlier version") from error

    @classmethod
    def of_file(cls, path: Path, dataset: str) -> Self:
        """Return the model in a file; one from before models explained themselves needs its `model.json` beside it.

        Raises:
            DataError: It cannot be run, or nothing says what its classes are.
            ParameterError: It was trained on another data set.
        """
        beside = path.with_name("model.json")
        try:
            described = json.loads(beside.read_text(encoding="utf-8")) if beside.is_file() else {}
        except (OSError, ValueError):
            described = {}
        return cls._of(path, dataset, described if isinstance(described, dict) else {})

    @classmethod
    def _of(cls, source: Path | bytes, dataset: str, described: dict[str, Any]) -> Self:
        model = OnnxModel(source)
        facts = {**described, **read_metadata(model.metadata)}
        if facts.get("dataset", dataset) != dataset:
            raise ParameterError(
                f"DATASET must be the one that {model.path} was trained on, {clean(facts['dataset'])}; got {dataset}"
            )
        if not isinstance(facts.get("classes"), list) or len(facts["classes"]) != model.num_classes:
            raise DataError(
                f"{model.path} must name its {model.num_classes} classes; it does not. Train it again, or put its model.json"
                " beside it"
            )
        rule = PictureRule.of(dataset, model.image_shape)
        if facts.get("picture_rule", rule.sentence()) != rule.sentence():
            raise DataError(
                f"{model.path} must take pictures as this version brings them to size; it says: {clean(facts['picture_rule'])}."
                " Use the version that trained it"
            )
        return cls(model=model, classes=tuple(facts["classes"]), rule=rule)

    def answers(self, pictures: Iterable[tuple[str, Read]], top: int = 1) -> Iterator[Answer]:
        """Yield an answer for each picture, in order; a picture that cannot be read stops nothing.

        Memory holds a few batches, however many pictures there are.

        Args:
            pictures: Names, and calls that read them.
            top: Classes for each, at most all there are.
        """
        waiting: list[Answer] = []
        images: list[np.ndarray] = []
        for decoded in in_order(self._decode, _chunks(pictures)):
            for name, image in decoded:
                if isinstance(image, str):
                    waiting.append(Answer(name=name, error=image))
                    continue
                waiting.append(Answer(name=name))
                images.append(image)
                if len(images) == BATCH_SIZE:
                    yield from self._answered(waiting, images, top)
                    waiting, images = [], []
        yield from self._answered(waiting, images, top)

    def _decode(self, pictures: Sequence[tuple[str, Read]]) -> list[tuple[str, np.ndarray | str]]:
        return [(name, self._image(read)) for name, read in pictures]

    def _image(self, read: Read) -> np.ndarray | str:
        """Return an image (H, W, C) uint8, or why there is none."""
        try:
            found = read()
            if isinstance(found, bytes):
                return self.rule.read(found)
        except (UndecodableError, FashionTuningError) as error:
            return clean(error)
        shape = (self.rule.height, self.rule.width, self.rule.channels)
        return found if found.shape == shape else f"image must be of shape {shape}; got {found.shape}"

    def _answered(self, waiting: list[Answer], images: list[np.ndarray], top: int) -> Iterator[Answer]:
        shape = (0, self.rule.height, self.rule.width, self.rule.channels)
        batch = np.stack(images) if images else np.zeros(shape, np.uint8)
        probabilities = self.model.predict(batch, len(self.classes))
        # Stable, so that the first of equally probable classes is the answer, as evaluate's argmax has it.
        best = iter(np.argsort(-probabilities, axis=1, kind="stable")[:, :top])
        rows = iter(probabilities)
        for answer in waiting:
            if answer.error:
                yield answer
            else:
                row = next(rows)
                yield Answer(name=answer.name, top=tuple((self.classes[k], row[k]) for k in next(best)))


def _chunks(pictures: Iterable[tuple[str, Read]]) -> Iterator[tuple[tuple[str, Read], ...]]:
    rest = iter(pictures)
    while chunk := tuple(itertools.islice(rest, _DECODED_AT_ONCE)):
        yield chunk
