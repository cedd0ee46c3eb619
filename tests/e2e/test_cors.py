"""Browsers: preflights are answered by the bucket's CORS rules, whoever signed the URL."""

from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.e2e

ORIGIN = "https://app.example"
RULE = {"AllowedMethods": ["PUT"], "AllowedOrigins": [ORIGIN], "AllowedHeaders": ["*"]}


def test_a_preflight_of_a_presigned_url_is_answered_without_its_signature(
    s3: Any, direct: Any, bucket: str
):
    direct.put_bucket_cors(Bucket=bucket, CORSConfiguration={"CORSRules": [RULE]})
    where = {"Bucket": bucket, "Key": "upload.log"}
    url = s3.generate_presigned_url("put_object", Params=where, ExpiresIn=60)
    asked = {"Origin": ORIGIN, "Access-Control-Request-Method": "PUT"}
    with httpx.Client(trust_env=False, timeout=60) as browser:
        preflight = browser.options(url, headers=asked)
        assert preflight.status_code == 200
        assert preflight.headers["access-control-allow-origin"] == ORIGIN
        stored = browser.put(url, content=b"a line\n" * 100, headers={"Origin": ORIGIN})
        assert stored.status_code == 200
        assert stored.headers["access-control-allow-origin"] == ORIGIN
        refused = browser.options(url, headers=asked | {"Origin": "https://other.example"})
        assert refused.status_code == 403
    with s3.get_object(**where)["Body"] as body:
        assert body.read() == b"a line\n" * 100
