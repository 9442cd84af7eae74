"""Registers champions in Kubeflow's Model Registry, through its own client; what is there already stays as it is.

The model is called as the data set, its version as the champion's: https://www.kubeflow.org/docs/components/hub
"""

import asyncio
import getpass
import json
import logging
import os
import warnings
from collections.abc import Coroutine
from typing import Any, TypeVar
from urllib.parse import urlsplit

from components.errors import (
    ConfigurationError,
    DataError,
    FashionTuningError,
    ParameterError,
    PermissionDeniedError,
    UnavailableError,
)
from components.evaluation.champion.records import ChampionRecords, Record
from components.evaluation.serving import champion_uri
from components.runtime import REGISTRY_VARIABLE
from components.stores import open_store
from components.text import clean

log = logging.getLogger(__name__)

FORMAT, FORMAT_VERSION = "onnx", "1"
"""What KServe calls the format of the model."""

T = TypeVar("T")


def register(root: str, dataset: str, url: str) -> tuple[int, bool]:
    """Register the champion of a data set, once.

    Args:
        root: Study root that holds the champions.
        dataset: Name of the data set.
        url: The registry's address, for example `http://model-registry-service.kubeflow.svc.cluster.local:8080`.

    Returns:
        The champion's version, and whether this call registered anything.

    Raises:
        ConfigurationError: The client is not installed, or there is no registry behind the URL.
        DataError: There is no champion, or the registry has another model under its name and version.
        PermissionDeniedError: The registry wants a token, or another one.
        UnavailableError: It does not answer.
    """
    champion = ChampionRecords(open_store(root), dataset).champion()
    uri = champion_uri(root, dataset)
    loop = asyncio.new_event_loop()
    try:
        registry = _connected(url, loop)
        return champion.version, _register(registry, dataset, champion, uri)
    except FashionTuningError:
        raise
    except Exception as error:  # the client lets errors of aiohttp, pydantic and its own through
        raise _translated(error, url) from error
    finally:
        loop.close()


def register_all(root: str, datasets: list[str]) -> None:
    """Register the champions of a run where a registry is named; one that fails is logged and fails nothing."""
    url = os.environ.get(REGISTRY_VARIABLE, "")
    for dataset in datasets if url else ():
        try:
            version, is_new = register(root, dataset, url)
            log.info("champion %d of %s %s in %s", version, dataset, "is registered" if is_new else "was already", url)
        except FashionTuningError as error:
            log.warning("the champion of %s is not registered: %s. Run `champion register` later", dataset, error)


def _connected(url: str, loop: asyncio.AbstractEventLoop) -> Any:
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname or "@" in urlsplit(url).netloc:
        raise ParameterError(
            f"model registry must be an http(s) URL without credentials; got {clean(url.rpartition('@')[2], 80)!r}."
            " A token comes from the file that KF_PIPELINES_SA_TOKEN_PATH names"
        )
    handlers = list(logging.root.handlers)
    try:
        from model_registry import ModelRegistry
    except ImportError as error:
        raise ConfigurationError(
            "the client of the model registry must be installed; it is not. Install the extra `registry`, or build the"
            " images for a cluster profile that names a model_registry"
        ) from error
    finally:
        logging.root.handlers[:] = handlers  # its import sets up the root logger

    def run(coroutine: Coroutine[Any, Any, T]) -> T:
        return loop.run_until_complete(asyncio.wait_for(coroutine, timeout=60))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that there is no token; a registry that wants one says so
        is_secure = urlsplit(url).scheme == "https"
        return ModelRegistry(url, author=_user(), is_secure=is_secure, async_runner=run, log_level=logging.ERROR)


def _register(registry: Any, dataset: str, champion: Record, uri: str) -> bool:
    """Register model, version and artifact, as far as they are missing; return whether any was."""
    name, version = dataset, str(champion.version)
    known = registry.get_model_version(name, version) if registry.get_registered_model(name) else None
    if known is None:
        registry.register_model(
            name,
            uri,
            version=version,
            model_format_name=FORMAT,
            model_format_version=FORMAT_VERSION,
            version_description=clean(champion.content["reason"]),
            metadata=_metadata(champion),
            **_origin(champion),
        )
        return True
    if known.custom_properties.get("sha256") != champion.sha256:
        raise DataError(
            f"version {version} of {name} in the registry must be the champion's model; got another"
            f" ({clean(known.custom_properties.get('sha256'), 12)}). Studies of two roots share a registry: archive one of them"
        )
    if registry.get_model_artifact(name, version) is not None:
        return False
    # Registering was stopped between version and artifact, for which the client has no public call.
    artifact = registry._register_model_artifact(
        known, name, uri, model_format_name=FORMAT, model_format_version=FORMAT_VERSION, **_origin(champion)
    )
    registry.async_runner(artifact)
    return True


def _metadata(champion: Record) -> dict[str, str | float | int]:
    content = champion.content
    figures = {name: value for name, value in (content.get("figures") or {}).items() if isinstance(value, int | float)}
    texts = {name: str(content[name]) for name in ("approach", "sha256", "data_hash", "decision", "created")}
    return {**texts, "classes": json.dumps(content["classes"], ensure_ascii=False), **figures}


def _origin(champion: Record) -> dict[str, str]:
    run = str((champion.content.get("run") or {}).get("id", ""))
    return {"model_source_kind": "kfp", "model_source_class": "pipelinerun", "model_source_id": run} if run else {}


def _translated(error: Exception, url: str) -> FashionTuningError:
    status, text = getattr(error, "status", None), clean(error, 200)
    shown = f"{urlsplit(url).scheme}://{urlsplit(url).netloc}"
    if status in (401, 403) or "user token must be provided" in text:
        return PermissionDeniedError(
            f"model registry {shown} must let this user in; got {status or 'no token'}. Name a file with a token in"
            " KF_PIPELINES_SA_TOKEN_PATH"
        )
    if status == 404:
        return ConfigurationError(f"{shown} must be a Kubeflow Model Registry; got HTTP 404. Correct the URL")
    return UnavailableError(f"model registry {shown} must answer; got {type(error).__name__}: {text}. Try again later")


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "fashion-tuning"
