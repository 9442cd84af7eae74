"""Reads objects of S3, SeaweedFS or MinIO, endpoint and credentials from the AWS environment variables."""

from collections.abc import Iterator
from contextlib import contextmanager

from components.data.sources.bucket import PASSING_STATUS, Found, timeout, unexpected_answer
from components.errors import ConfigurationError, PermissionDeniedError
from components.stores.aws_environment import check_aws_environment


class S3Bucket:
    """A bucket of S3, SeaweedFS or MinIO; endpoint and credentials from the AWS environment variables."""

    def __init__(self, name: str) -> None:
        """Take a bucket's name; nothing is asked yet."""
        self.name = name
        self._made = None

    @property
    def _client(self):
        if self._made is None:
            import boto3
            from botocore.config import Config

            check_aws_environment()
            connect, read = timeout()
            self._made = boto3.session.Session().client(
                "s3", config=Config(connect_timeout=connect, read_timeout=read, retries={"total_max_attempts": 1})
            )
        return self._made

    def find(self, name: str) -> Found | None:
        """Return an object, or None."""
        from botocore.exceptions import ClientError

        try:
            head = self._client.head_object(Bucket=self.name, Key=name)
        except ClientError as error:
            if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") == 404:
                return None
            raise
        return _found(name, head["ContentLength"], head["ETag"])

    def under(self, prefix: str, most: int) -> list[Found]:
        """Return the objects under a prefix, `most` at most."""
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self.name, Prefix=prefix, PaginationConfig={"MaxItems": most}
        )
        return [
            _found(o["Key"], o["Size"], o["ETag"])
            for page in pages
            for o in page.get("Contents", ())
            if not o["Key"].endswith("/")
        ]

    def read(self, name: str, version: str, start: int, end: int) -> bytes:
        """Return bytes `start` to `end` (exclusive) of one version of an object."""
        answer = self._client.get_object(Bucket=self.name, Key=name, IfMatch=version, Range=f"bytes={start}-{end - 1}")
        return answer["Body"].read()

    def is_passing(self, error: Exception) -> bool:
        """Tell whether a later repetition may succeed."""
        from botocore.exceptions import (
            ClientError,
            HTTPClientError,
            IncompleteReadError,
            ResponseStreamingError,
        )

        if isinstance(error, ClientError):
            return error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") in PASSING_STATUS
        return isinstance(error, (HTTPClientError, IncompleteReadError, ResponseStreamingError))

    @contextmanager
    def translated(self, what: str) -> Iterator[None]:
        """Turn the client's errors into the project's."""
        from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError

        try:
            yield
        except ClientError as error:
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            if status in (401, 403):
                raise PermissionDeniedError(
                    f"{what} must be readable; got {status}. Grant s3:GetObject and s3:ListBucket on {self.name}"
                ) from error
            if status == 404:
                raise ConfigurationError(f"bucket {self.name} of {what} must exist; got 404. Check the name") from error
            raise unexpected_answer(what, status) from error
        except (NoCredentialsError, PartialCredentialsError) as error:
            raise ConfigurationError(
                f"AWS credentials must be there to read {what}; got {type(error).__name__}. Mount them as AWS_ACCESS_KEY_ID"
                " and AWS_SECRET_ACCESS_KEY"
            ) from error
        except BotoCoreError as error:
            raise ConfigurationError(
                f"{what} must be readable; got {type(error).__name__}. Check AWS settings"
            ) from error


def _found(name: str, num_bytes: int, etag: str) -> Found:
    # An ETag is the content's MD5 unless the object was uploaded in parts or encrypted; S3 does not say which.
    return Found(name, num_bytes, etag, {})
