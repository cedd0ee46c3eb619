"""`--anonymous backend`: unsigned requests go on unsigned, and the bucket's policy decides."""

import contextlib
import json
from typing import Any

import boto3
import botocore
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from tests import corpus, live
from tests.conftest import StartGateway

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
def test_what_a_bucket_policy_opens_is_read_without_a_signature_and_no_more(
    secure: bool, start_gateway: StartGateway, tls: live.Tls, s3: Any, direct: Any, bucket: str
):
    allowed = {
        "Effect": "Allow",
        "Principal": "*",
        "Action": "s3:GetObject",
        "Resource": f"arn:aws:s3:::{bucket}/open/*",
    }
    policy = {"Version": "2012-10-17", "Statement": [allowed]}
    direct.put_bucket_policy(Bucket=bucket, Policy=json.dumps(policy))
    body = corpus.log(9_000_000)  # several frames, so that a range needs the sidecar
    for key in ("open/a.log", "closed/a.log"):
        s3.put_object(Bucket=bucket, Key=key, Body=body)
    options = {"tls": tls} if secure else {}
    with (
        start_gateway("--anonymous", "backend", **options) as gateway,
        contextlib.closing(anonymous(gateway)) as client,
    ):
        for wanted in (slice(None), slice(5_000_000, 5_000_100)):
            span = {"Range": f"bytes={wanted.start}-{wanted.stop - 1}"} if wanted.stop else {}
            with client.get_object(Bucket=bucket, Key="open/a.log", **span)["Body"] as stored:
                assert stored.read() == body[wanted]
        for refused in (client.get_object, client.head_object, client.delete_object):
            with pytest.raises(ClientError, match=r"AccessDenied|403"):
                refused(Bucket=bucket, Key="closed/a.log")
        for key in ("open/a.log", "open/b.log"):
            with pytest.raises(ClientError, match="AccessDenied"):
                client.put_object(Bucket=bucket, Key=key, Body=b"x")
    assert [each["Key"] for each in s3.list_objects_v2(Bucket=bucket)["Contents"]] == [
        "closed/a.log",
        "open/a.log",
    ]


def anonymous(gateway: live.Gateway) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=gateway.endpoint_url,
        region_name=live.REGION,
        verify=str(gateway.ca) if gateway.ca else None,
        config=Config(signature_version=botocore.UNSIGNED, retries={"total_max_attempts": 1}),
    )
