"""The contract over the wire, against a real store."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from s4gateway.backend import base, client, credentials, http
from s4gateway.s3 import sigv4
from tests.contracts import backend_contract


@pytest.mark.e2e
class TestSeaweedfs(backend_contract.BackendContract):
    takes_dotted_keys = False
    keeps_slashes = False
    if_match_on_missing_key = 412
    # The first is a directory, which has no content; the second is listed with a slash.
    altered_keys = frozenset({"trailing/", "back\\slash"})

    @pytest.fixture
    async def backend(self, seaweedfs: Any) -> AsyncIterator[client.S3Backend]:
        keys = credentials.Static(sigv4.Credentials(seaweedfs.access_key, seaweedfs.secret_key))
        endpoint = client.Endpoint(seaweedfs.endpoint_url)
        store = client.S3Backend(endpoint, keys, http.HttpClient())
        yield store
        await store.close()

    async def test_wrong_keys_are_refused(self, backend: client.S3Backend, bucket: str):
        stranger = backend.with_identity(sigv4.Credentials("stranger", "wrong"))
        for store in (stranger, backend.with_identity(None)):
            with pytest.raises(base.BackendAnswer) as caught:
                await store.list(bucket, "")
            assert caught.value.status == 403
