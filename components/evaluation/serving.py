"""A champion is exported for model servers: in Triton's repository layout, and with a KServe InferenceService for a bucket.

    <to>/inference-service.yaml
    <to>/<dataset>/config.pbtxt, labels.txt, model_card.md
    <to>/<dataset>/<version>/model.onnx

Source: https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/user_guide/model_repository.html,
model_configuration.html, and https://kserve.github.io/website/docs/reference/crd-api
"""

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from components.buckets import BUCKET_STORES
from components.errors import DataError, ParameterError
from components.evaluation.champion.records import ChampionRecords, Record
from components.evaluation.inference import BATCH_SIZE, INPUT_NAME, OUTPUT_NAME
from components.evaluation.predict import Classifier
from components.stores import ObjectNotFoundError, Store, open_store

MANIFEST = "inference-service.yaml"
RUNTIME = "kserve-tritonserver"
"""KServe's own serving runtime that loads ONNX from such a repository and speaks the Open Inference Protocol."""

CPU, MEMORY = "1", "2Gi"
"""Requests and limits of that runtime."""


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What an export wrote.

    Attributes:
        version: The champion's version.
        files: Where each file is.
        storage_uri: Where KServe finds the repository; empty where no bucket is involved.
    """

    version: int
    files: list[str]
    storage_uri: str


def export_champion(root: str, dataset: str, to: str, service_account: str = "") -> Exported:
    """Write a champion as a model repository, with a KServe manifest where the repository or the champion is in a bucket.

    A manifest must name a bucket: that of `to`, else the champion's own, in which the repository is then written beside
    the champion's records, once for each version.

    Args:
        root: Study root that holds the champions.
        dataset: Name of the data set, and of the model on the server.
        to: Directory, or `gs://` or `s3://` prefix, for the repository.
        service_account: Kubernetes service account that may read the bucket; empty for the namespace's default.

    Raises:
        DataError: There is no champion, or it is damaged.
    """
    records = ChampionRecords(open_store(root), dataset)
    champion = records.champion()
    files = _repository(records, champion, Classifier.of_champion(root, dataset))
    target, storage_uri = open_store(to), ""
    if _is_bucket(target):
        storage_uri = target.uri
    elif _is_bucket(open_store(root)):
        storage_uri = _published(root, champion, dataset, files)
    if storage_uri:
        manifest = inference_service(dataset, champion, storage_uri, service_account)
        files[MANIFEST] = yaml.safe_dump(manifest, sort_keys=False).encode()
    elif service_account:
        raise ParameterError(
            "a service account must come with a bucket; got a study root and a target on this machine. Name a bucket"
        )
    _write(target, files)
    return Exported(
        version=champion.version, files=[f"{target.uri}/{key}" for key in sorted(files)], storage_uri=storage_uri
    )


def champion_uri(root: str, dataset: str) -> str:
    """Return where servers find the champion: its repository in the bucket, written there if need be, or its file here."""
    records = ChampionRecords(open_store(root), dataset)
    champion = records.champion()
    if not _is_bucket(open_store(root)):
        return Path(records.model_uri(champion.sha256)).resolve().as_uri()
    return _published(root, champion, dataset, _repository(records, champion, Classifier.of_champion(root, dataset)))


def triton_config(classifier: Classifier, dataset: str, parameters: dict[str, str]) -> str:
    """Return `config.pbtxt` of a model.

    Args:
        classifier: The model.
        dataset: Its name on the server.
        parameters: What the server tells its clients of it.
    """
    rule = classifier.rule
    lines = [
        f"name: {json.dumps(dataset)}",
        'backend: "onnxruntime"',
        f"max_batch_size: {BATCH_SIZE}",
        "input [",
        f'  {{ name: "{INPUT_NAME}" data_type: TYPE_UINT8 dims: [ {rule.height}, {rule.width}, {rule.channels} ] }}',
        "]",
        "output [",
        f'  {{ name: "{OUTPUT_NAME}" data_type: TYPE_FP32 dims: [ {len(classifier.classes)} ] label_filename: "labels.txt" }}',
        "]",
        "dynamic_batching { }",
        *(
            f"parameters {{ key: {json.dumps(key)} value {{ string_value: {json.dumps(value)} }} }}"
            for key, value in sorted(parameters.items())
        ),
    ]
    return "\n".join(lines) + "\n"


def inference_service(dataset: str, champion: Record, storage_uri: str, service_account: str) -> dict[str, Any]:
    """Return the KServe manifest that serves a repository in a bucket."""
    predictor: dict[str, Any] = {"serviceAccountName": service_account} if service_account else {}
    resources = {"cpu": CPU, "memory": MEMORY}
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {
            "name": dataset,
            "annotations": {
                "fashion-tuning/champion": str(champion.version),
                "fashion-tuning/sha256": champion.sha256,
            },
        },
        "spec": {
            "predictor": {
                **predictor,
                "model": {
                    "modelFormat": {"name": "onnx"},
                    "runtime": RUNTIME,
                    "protocolVersion": "v2",
                    "storageUri": storage_uri,
                    "resources": {"requests": resources, "limits": resources},
                },
            }
        },
    }


def _repository(records: ChampionRecords, champion: Record, classifier: Classifier) -> dict[str, bytes]:
    dataset = records.dataset
    if wrong := next((name for name in classifier.classes if "\n" in name), None):
        raise DataError(f"a class must be one line of text for a label file; got {wrong!r}. Rename it and train again")
    told = {
        "approach": str(champion.content["approach"]),
        "champion": str(champion.version),
        "data_hash": str(champion.content["data_hash"]),
        "picture_rule": classifier.rule.sentence(),
        "sha256": champion.sha256,
    }
    files = {
        f"{dataset}/config.pbtxt": triton_config(classifier, dataset, told).encode(),
        f"{dataset}/labels.txt": "".join(f"{name}\n" for name in classifier.classes).encode(),
    }
    with contextlib.suppress(ObjectNotFoundError):  # whoever made the champion by hand made no card
        files[f"{dataset}/model_card.md"] = records.read_card(champion.sha256)
    return {**files, f"{dataset}/{champion.version}/model.onnx": records.read_model(champion.sha256)}


def _is_bucket(store: Store) -> bool:
    return store.uri.partition("://")[0] in BUCKET_STORES


def _published(root: str, champion: Record, dataset: str, files: dict[str, bytes]) -> str:
    """Write the repository beside the champion's records, once for each version; return where."""
    beside = open_store(root) / "champions" / dataset / "serving" / f"{champion.version:06d}"
    for key, data in files.items():
        beside.create(key, data)
    return beside.uri


def _write(target: Store, files: dict[str, bytes]) -> None:
    """Write the files, the model last: a server that polls finds its configuration there before it."""
    for key, data in files.items():
        target.write(key, data)
