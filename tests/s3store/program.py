"""What programs of their own need that tests start: a client and a dataset, told as JSON."""

from typing import Any

from s4gateway.s3store import S3TargetConfig, new_client
from tests.s3store.world import PARTS


def client_with(url: str, key: str, secret: str) -> Any:
    return new_client(
        url, aws_access_key_id=key, aws_secret_access_key=secret, region_name="us-east-1"
    )


def config(client: Any, bucket: str) -> S3TargetConfig:
    return S3TargetConfig(bucket=bucket, prefix="orders", client=client, partition_key_parts=PARTS)
