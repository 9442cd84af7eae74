"""Objects of the cluster's own store, read through the Kubeflow UI: it has the keys, and the store may have no address here.

Source: https://github.com/kubeflow/pipelines/blob/2.17.0/frontend/server/handlers/artifacts.ts
"""

from typing import Any
from urllib.parse import urlsplit

from pipelines.kubeflow.connection import Connection

SOURCES = {"gs": "gcs", "s3": "s3"}


def read_json(api: Connection, uri: str, *, own_store: bool) -> Any:
    """Return the JSON content of an object.

    Args:
        api: To the UI's address; the API's own port serves no artifacts.
        uri: `gs://bucket/key` or `s3://bucket/key`.
        own_store: Whether the bucket is in the store that came with Kubeflow Pipelines, not at Amazon.

    Raises:
        FashionTuningError: The UI does not have it, or is not there.
    """
    parts = urlsplit(uri)
    query = {
        "source": "minio" if own_store else SOURCES[parts.scheme],
        "bucket": parts.netloc,
        "key": parts.path.lstrip("/"),
        **({"namespace": api.namespace} if api.namespace else {}),
    }
    return api.call(
        "read the scores through the UI",
        api.client.healthzs.api_client.call_api,
        resource_path="/artifacts/get",
        method="GET",
        query_params=list(query.items()),
        auth_settings=["Bearer"],
        response_type="object",
        _return_http_data_only=True,
    )
