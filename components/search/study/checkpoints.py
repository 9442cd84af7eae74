"""A training's checkpoints in a store are written tensors first and manifest last: an unfinished one does not exist."""

import hashlib
import json
import logging
import re
import uuid
from typing import Any

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from components.errors import StorageError
from components.failpoints import failpoint
from components.models.contract import State
from components.stores import ObjectNotFoundError, Store

log = logging.getLogger(__name__)

_MANIFEST = re.compile(r"(?:(.+)-)?(\d{6,})/manifest\.json")


class Checkpoints:
    """Saves the state of a training after a step, and finds the newest whole one again.

    Each writer's objects carry its name, so a paused former owner that wakes cannot damage the new owner's.

    Args:
        store: Where the training's checkpoints lie, and nothing else.
        writer: Names this writer among those of the same training; made up by default.
        binding: What the checkpoints belong to, for example hyperparameters and seed; `latest` ignores all others.
        keep: How many of its own checkpoints this writer keeps.
    """

    def __init__(self, store: Store, *, writer: str = "", binding: dict[str, Any] | None = None, keep: int = 2) -> None:
        self._store = store
        self._writer = writer or uuid.uuid4().hex[:12]
        self._binding = hashlib.sha256(json.dumps(binding or {}, sort_keys=True).encode()).hexdigest()
        self._keep = keep
        self._saved: list[str] = []

    def save(self, step: int, state: State, meta: dict[str, Any] | None = None) -> None:
        """Write a checkpoint, then drop this writer's older ones.

        Args:
            step: Epoch or step that is done; the highest is the newest.
            state: Arrays by name.
            meta: JSON values to get back with them.

        Raises:
            StorageError: The disk is full.
            UnavailableError: The store cannot be reached.
            PermissionDeniedError: The store refuses to write.
        """
        folder = f"{self._writer}-{step:06d}"
        content = safetensors.numpy.save({name: np.ascontiguousarray(array) for name, array in state.items()})
        manifest = {
            "step": step,
            "meta": meta or {},
            "binding": self._binding,
            "sha256": hashlib.sha256(content).hexdigest(),
            "bytes": len(content),
            # A 0-d array becomes 1-d on the way to contiguous memory.
            "scalars": sorted(name for name, array in state.items() if np.ndim(array) == 0),
        }
        self._store.create(f"{folder}/state.safetensors", content)
        failpoint("checkpoint-data")
        self._store.create(f"{folder}/manifest.json", json.dumps(manifest).encode())
        failpoint("checkpoint-manifest")
        self._saved.append(folder)
        while len(self._saved) > self._keep:
            self._drop(self._saved.pop(0))

    def latest(self) -> tuple[int, State, dict[str, Any]] | None:
        """Return (step, arrays, meta) of the newest whole checkpoint of this training; None if there is none.

        A damaged checkpoint is skipped with a warning, and the one before it is taken.
        """
        manifests = [(int(m[2]), key) for key in self._store.list() if (m := _MANIFEST.fullmatch(key))]
        for step, key in sorted(manifests, reverse=True):
            try:
                return (step, *self._load(key))
            except (StorageError, ValueError, KeyError, TypeError, SafetensorError) as error:
                log.warning("checkpoint %s/%s is passed over: %s", self._store.uri, key, error)
        return None

    def clear(self) -> None:
        """Delete every checkpoint of every writer, manifests first, and what a killed writer left half-written.

        A writer that still lives loses what it is writing.
        """
        for key in sorted(self._store.list(), key=lambda key: not key.endswith("manifest.json")):
            self._store.delete(key)
        self._store.sweep(0.0)

    def _load(self, key: str) -> tuple[State, dict[str, Any]]:
        manifest = json.loads(self._store.read(key))
        if manifest["binding"] != self._binding:
            raise ValueError("it belongs to another training")
        content = self._store.read(key.replace("manifest.json", "state.safetensors"))
        digest = hashlib.sha256(content).hexdigest()
        if digest != manifest["sha256"]:
            raise ValueError(f"its SHA-256 must be {manifest['sha256']}; got {digest}")
        state = safetensors.numpy.load(content)
        for name in manifest["scalars"]:
            state[name] = state[name].reshape(())
        return state, manifest["meta"]

    def _drop(self, folder: str) -> None:
        self._store.delete(f"{folder}/manifest.json")
        try:
            self._store.delete(f"{folder}/state.safetensors")
        except ObjectNotFoundError:
            return
