"""A client of the Kubernetes API, of the kubeconfig or of the pod that this runs in."""

import os

import urllib3
from kubernetes import client, config

from components.errors import ConfigurationError


def kubernetes_client(context: str) -> client.ApiClient:
    """Return a client that asks twice at most.

    Args:
        context: Context of the kubeconfig; "" for the current one, or the pod's own account inside a pod.

    Raises:
        ConfigurationError: No kubeconfig names the cluster.
    """
    settings = client.Configuration()
    try:
        if os.environ.get("KUBERNETES_SERVICE_HOST") and not context:
            config.load_incluster_config(settings)
        else:
            # Read here, because the client reads it once, when it is imported.
            file = os.environ.get("KUBECONFIG")
            config.load_kube_config(
                os.path.expanduser(file) if file else None,  # noqa: PTH111 - keeps an unknown ~name
                context=context or None,
                client_configuration=settings,
            )
    except config.ConfigException as error:
        raise ConfigurationError(
            f"a kubeconfig must name the cluster; got {' '.join(str(error).split())}. Get one, for example with: gcloud"
            " container clusters get-credentials NAME"
        ) from error
    settings.retries = urllib3.Retry(total=1, backoff_factor=0.2)
    return client.ApiClient(settings)
