"""A dataset's champions are numbered records in a store, which are never changed, and the models that they name."""

import hashlib
import io
import itertools
import json
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import numpy as np

from components.errors import DataError, ParameterError
from components.evaluation.champion.challenges import Challenges
from components.evaluation.model_card import model_card
from components.search.shapes import misfit
from components.stores import ObjectNotFoundError, Store

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
MODEL_FILES = ("model.onnx", "model.json")
SEEN_FILE = "seen.npy"


class _Content(TypedDict):
    """What a record must have."""

    approach: str
    sha256: str
    classes: list[str]
    data_hash: str
    decision: str
    reason: str
    predecessor: int | None
    created: str
    run: NotRequired[dict[str, Any] | None]


@dataclass(frozen=True, kw_only=True)
class Record:
    """One version of a dataset's champion.

    Attributes:
        version: 1, 2, 3, ...
        content: What was decided; empty where the record cannot be read.
        error: Why it cannot be read; empty where it can.
    """

    version: int
    content: dict[str, Any] = field(default_factory=dict)
    error: str = ""

    @property
    def sha256(self) -> str:
        """Digest of the champion's `model.onnx`; empty where the record cannot be read."""
        return self.content.get("sha256", "")

    def summary(self) -> dict[str, Any]:
        """Return the record as JSON values."""
        return {"version": self.version, **({"error": self.error} if self.error else self.content)}


class ChampionRecords:
    """Reads and creates the records of one dataset."""

    def __init__(self, store: Store, dataset: str) -> None:
        if not _NAME.fullmatch(dataset):
            raise ParameterError(
                f"dataset must be letters, digits, '.', '_' and '-'; got {dataset[:60]!r}. Name one that a run used"
            )
        self.dataset = dataset
        self._root = store.uri
        self._store = store / "champions" / dataset
        self.challenges = Challenges(self._store)

    def versions(self) -> list[int]:
        """Return the numbers of all records in ascending order."""
        keys = self._store.list()
        return sorted({int(m[1]) for key in keys if (m := re.fullmatch(r"(\d{1,12})\.json", key))})

    def history(self) -> Iterator[Record]:
        """Yield the records, newest first."""
        for version in reversed(self.versions()):
            yield self.read(version)

    def current(self) -> Record | None:
        """Return the champion's record, None before the first promotion."""
        return next(self.history(), None)

    def champion(self) -> Record:
        """Return the champion's record; raise `DataError` where there is none that can be read."""
        present = self.current()
        if present is None:
            raise DataError(
                f"champion of {self.dataset} must exist under {self._root}; there is none. Promote a model first"
            )
        if present.error:
            raise DataError(f"champion of {self.dataset} must be readable; {present.error}. Roll back")
        return present

    def read(self, version: int) -> Record:
        """Return one record, with its `error` set where its content is not one."""
        try:
            content = json.loads(self._store.read(_key(version)))
            if problem := misfit(content, _Content):
                raise ValueError(f"got {problem}")
            if not re.fullmatch(r"[0-9a-f]{64}", content["sha256"]):
                raise ValueError("without a digest")
            return Record(version=version, content=content)
        except (ValueError, TypeError, DataError, ObjectNotFoundError) as error:
            return Record(version=version, error=f"record {version} is not readable: {error}")

    def create(self, version: int, content: dict[str, Any]) -> Record | None:
        """Create a record; None where somebody else's has that number.

        Its nonce tells a lost acknowledgement of our own write from somebody else's write of the same content.
        """
        own = {"schema": 1, "dataset": self.dataset, "version": version, "nonce": uuid.uuid4().hex}
        content = {**content, **own}
        data = json.dumps(content, indent=1, sort_keys=True, allow_nan=False).encode()
        return Record(version=version, content=content) if self._store.create(_key(version), data) else None

    def find(self, *, run_id: str, sha256: str) -> Record | None:
        """Return the newest record that this run wrote for this model, None where there is none."""
        for record in itertools.islice(self.history(), 50) if run_id else ():
            if record.sha256 == sha256 and (record.content.get("run") or {}).get("id") == run_id:
                return record
        return None

    def predecessor(self, present: Record) -> Record | None:
        """Return the readable record that was champion before `present`, None without one.

        Rollbacks are followed to the version they restored, so that rolling back twice goes back two models.
        """
        start = present.content.get("predecessor") if not present.error else present.version - 1
        for version in reversed([v for v in self.versions() if start is not None and v <= start]):
            record = self.read(version)
            if not record.error and record.sha256 != present.sha256 and self.has_model(record.sha256):
                return record
        return None

    def add_model(self, model_dir: Path, evaluation: dict[str, Any], seen: np.ndarray | None = None) -> str:
        """Copy a model beside the records, under its digest; return that SHA-256.

        Args:
            model_dir: Holds `MODEL_FILES`.
            evaluation: For the model card.
            seen: (M,) uint64, short digests of the images it was trained or selected on; None where they are unknown.
        """
        sha256 = model_digest(model_dir)
        files = {name: (Path(model_dir) / name).read_bytes() for name in MODEL_FILES}
        files["model_card.md"] = model_card(evaluation).encode()
        if seen is not None:
            array = io.BytesIO()
            np.save(array, seen.astype(np.uint64))
            files[SEEN_FILE] = array.getvalue()
        for name in reversed(files):  # model.onnx last: where it is, the others are as well
            self._store.create(f"models/{sha256}/{name}", files[name])
        return sha256

    def has_model(self, sha256: str) -> bool:
        """Return whether the model of a record is still there."""
        return f"models/{sha256}/model.onnx" in self._store.list(f"models/{sha256}/")

    def read_model(self, sha256: str) -> bytes:
        """Return a champion's ONNX.

        Raises:
            ObjectNotFoundError: It is gone.
            DataError: Its bytes are not the ones that were promoted.
        """
        data = self._store.read(f"models/{sha256}/model.onnx")
        digest = hashlib.sha256(data).hexdigest()
        if digest != sha256:
            raise DataError(
                f"champion's model must have SHA-256 {sha256}; got {digest}. Roll back to an earlier version"
            )
        return data

    def model_uri(self, sha256: str) -> str:
        """Return where the ONNX of a champion is."""
        return f"{self._store.uri}/models/{sha256}/model.onnx"

    def read_card(self, sha256: str) -> bytes:
        """Return a champion's model card; raise `ObjectNotFoundError` without one."""
        return self._store.read(f"models/{sha256}/model_card.md")

    def read_seen(self, sha256: str) -> np.ndarray | None:
        """Return the short digests, (M,) uint64, of the images a champion was trained or selected on, None where unknown.

        Raises:
            DataError: They are damaged.
        """
        try:
            seen = np.load(io.BytesIO(self._store.read(f"models/{sha256}/{SEEN_FILE}")), allow_pickle=False)
        except ObjectNotFoundError:
            return None
        except (ValueError, OSError, EOFError) as error:
            raise DataError(f"{SEEN_FILE} of the champion must be an array; got {error}. Roll back") from error
        if seen.dtype != np.uint64 or seen.ndim != 1:
            raise DataError(f"{SEEN_FILE} of the champion must be numbers; got {seen.dtype} {seen.shape}. Roll back")
        return seen


def model_digest(model_dir: Path) -> str:
    """Return the SHA-256 of a model's ONNX, which identifies a champion."""
    return hashlib.sha256((Path(model_dir) / "model.onnx").read_bytes()).hexdigest()


def _key(version: int) -> str:
    return f"{version:06d}.json"
