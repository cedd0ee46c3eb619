"""What a request says about itself goes with every request to the store that serves it.

A recording store: SeaweedFS behind a server that notes what the gateway sends.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from s4gateway.s3store import (
    CommitAfterTimeoutError,
    Consistency,
    MaterializedView,
    Store,
    init_dataset_blocking,
)
from tests import clients, live
from tests.e2e import meddler
from tests.e2e.meddler import Meddler
from tests.rude_server import Request
from tests.s3store.program import client_with, config
from tests.s3store.world import Order, order

pytestmark = pytest.mark.e2e

SENT = {
    "consistency-control": "strong-site",
    "x-amz-expected-bucket-owner": "123456789012",
    "x-amz-request-payer": "requester",
}


@pytest.fixture(scope="module")
def recording(seaweedfs: live.Seaweedfs) -> Iterator[Meddler]:
    with meddler.between(seaweedfs) as running:
        yield running


@pytest.fixture(scope="module")
def fronting(
    recording: Meddler, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[live.Gateway]:
    with live.gateway(recording.endpoint, tmp_path_factory.mktemp("recording")) as running:
        yield running


@pytest.fixture
def client(fronting: live.Gateway) -> Iterator[Any]:
    """Sends the three headers, signed, with whatever it asks for."""
    made = clients.boto3_client(fronting)
    made.meta.events.register("before-call.s3", lambda params, **_: params["headers"].update(SENT))
    yield made
    made.close()


def upload(client: Any, **name: str) -> None:
    made = client.create_multipart_upload(**name)
    about = {**name, "UploadId": made["UploadId"]}
    part = client.upload_part(**about, PartNumber=1, Body=b"part of it " * 1000)
    client.list_parts(**about)
    client.list_multipart_uploads(Bucket=name["Bucket"])
    parts = [{"PartNumber": 1, "ETag": part["ETag"]}]
    client.complete_multipart_upload(**about, MultipartUpload={"Parts": parts})


OPERATIONS: dict[str, Callable[..., Any]] = {
    "put": lambda s3, **name: s3.put_object(**name, Body=b"text " * 500),
    "put if none match": lambda s3, **name: s3.put_object(
        Bucket=name["Bucket"], Key="another", IfNoneMatch="*"
    ),
    "head": lambda s3, **name: s3.head_object(**name),
    "get": lambda s3, **name: s3.get_object(**name)["Body"].read(),
    "get a range": lambda s3, **name: s3.get_object(**name, Range="bytes=5-9")["Body"].read(),
    "get attributes": lambda s3, **name: s3.get_object_attributes(
        **name, ObjectAttributes=["ObjectSize"]
    ),
    "get tags": lambda s3, **name: s3.get_object_tagging(**name),
    "list": lambda s3, **name: s3.list_objects(Bucket=name["Bucket"]),
    "list, version 2": lambda s3, **name: s3.list_objects_v2(Bucket=name["Bucket"], MaxKeys=1),
    "list versions": lambda s3, **name: s3.list_object_versions(Bucket=name["Bucket"]),
    "head bucket": lambda s3, **name: s3.head_bucket(Bucket=name["Bucket"]),
    "upload": upload,
    "delete": lambda s3, **name: s3.delete_object(**name),
    "delete many": lambda s3, **name: s3.delete_objects(
        Bucket=name["Bucket"], Delete={"Objects": [{"Key": name["Key"]}]}
    ),
}


def said(request: Request) -> dict[str, str]:
    return {name: value for name, value in request.headers.items() if name in SENT}


def of_the_client(seen: list[Request]) -> list[Request]:
    """Without what is about sidecars, and about the records and staged parts of uploads."""
    return [request for request in seen if b".s4" not in request.target + request.body]


def relayed() -> meddler.Rule:
    return meddler.changed(lambda answer: answer)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_each_request_for_what_the_client_asks_carries_what_it_says(
    recording: Meddler, client: Any, bucket: str, operation: str
):
    name = {"Bucket": bucket, "Key": "some/key"}
    client.put_object(**name, Body=b"text " * 500)
    with recording.misbehaving(relayed(), lambda _: True) as seen:
        OPERATIONS[operation](client, **name)
    asked = of_the_client(seen)
    assert asked
    assert [(each.method, each.target) for each in asked if said(each) != SENT] == []


def test_the_owner_a_copy_expects_is_that_of_its_destination(
    recording: Meddler, client: Any, bucket: str
):
    client.put_object(Bucket=bucket, Key="source", Body=b"text " * 500)
    with recording.misbehaving(relayed(), lambda _: True) as seen:
        client.copy_object(Bucket=bucket, Key="copied", CopySource=f"{bucket}/source")
    asked = of_the_client(seen)
    of_source = [said(each) for each in asked if each.target.endswith(b"/source")]
    of_copy = [said(each) for each in asked if each.target.endswith(b"/copied")]
    assert of_copy == [SENT] * len(of_copy) != []
    without_owner = {name: SENT[name] for name in SENT if "owner" not in name}
    assert of_source == [without_owner] * len(of_source) != []


def test_75_the_consistency_of_a_dataset_reaches_the_store_with_each_of_its_requests(
    recording: Meddler, fronting: live.Gateway, bucket: str
):
    s3 = client_with(fronting.endpoint_url, fronting.access_key, fronting.secret_key)
    init_dataset_blocking(s3, bucket, "orders", commit_timeout="1ms", max_clock_skew="0s")
    where = replace(config(s3, bucket), consistency=Consistency.STRONG_SITE)
    with (
        recording.misbehaving(relayed(), lambda _: True) as seen,
        Store.open(where, Order, views=[MaterializedView("by_sku", ("sku",))]) as orders,
    ):
        with contextlib.suppress(CommitAfterTimeoutError):
            orders.write([order("a")], token="t")
        assert orders.read("*") == [order("a")]
        assert len(orders.poll().entries) == 1
        asked = of_the_client(seen)
    s3.close()
    assert {request.method for request in asked} == {"GET", "HEAD", "PUT"}
    assert any(b"list-type=2" in request.target for request in asked)
    assert {request.headers.get("consistency-control") for request in asked} == {"strong-site"}
