"""This module checks whether a source can be there, before anything is fetched."""

from components.data.sources.kaggle import find_credentials
from components.dataset_name import FASHION_PRODUCTS, KAGGLE, local_path, quoted
from components.errors import ParameterError, using


def check_source(name: str, source: str, *, secrets_are_here: bool = False) -> None:
    """Check that a source can be there: local paths exist, secrets are present. Nothing is downloaded.

    Args:
        name: The name that `parse_dataset` returned.
        source: The part after `=`; empty for the data set's publisher.
        secrets_are_here: Whether Kaggle's token should be found in this process; on a cluster only ingest has it.

    Raises:
        ParameterError: A local path is missing.
        PermissionDeniedError: A folder above it may not be searched.
        ConfigurationError: Kaggle's token is needed and missing.
    """
    if source == KAGGLE or (not source and name == FASHION_PRODUCTS):
        if not secrets_are_here:
            return
        find_credentials()
    elif source and (path := local_path(source)) is not None:
        with using(path, "must be readable"):
            if not path.exists():
                raise ParameterError(f"source of {name} must exist; got {quoted(str(path))}. Check the path")
