"""Archived classes, restores and website redirects: the store's own words, passed on.

SeaweedFS has none of them, so a store that has is scripted in front of it.
"""

import hashlib
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests import clients, corpus, live
from tests.e2e import meddler, raw
from tests.e2e.meddler import Answer
from tests.rude_server import Request

pytestmark = pytest.mark.e2e

LARGE = corpus.text(5 * 1024 * 1024 + 11)
STATE = (
    b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>InvalidObjectState</Code><Message>The '
    b"operation is not valid for the object's access tier</Message>"
    b"<StorageClass>INTELLIGENT_TIERING</StorageClass><AccessTier>DEEP_ARCHIVE_ACCESS</AccessTier><RequestId>X</RequestId></Error>"
)
RESTORE = 'ongoing-request="true"'


@pytest.fixture(scope="module")
def behind(
    seaweedfs: live.Seaweedfs, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[meddler.Meddler, live.Gateway, Any]]:
    """A gateway over a store that can be told what to say."""
    with (
        meddler.between(seaweedfs) as meddling,
        live.gateway(meddling.endpoint, tmp_path_factory.mktemp("archive")) as gateway,
    ):
        client = clients.boto3_client(gateway)
        yield meddling, gateway, client
        client.close()


def archived(answer: Answer) -> Answer:
    found = answer.with_field("x-amz-storage-class", "GLACIER")
    return found.with_field("x-amz-restore", RESTORE)


def reads_body(key: str) -> meddler.Applies:
    def applies(request: Request) -> bool:
        return request.method == "GET" and key.encode() in request.target

    return applies


@pytest.mark.parametrize("size", [5000, len(LARGE)])
@pytest.mark.parametrize(
    "headers", [{}, {"Range": "bytes=10-20"}, {"If-Match": "*"}, {"Range": "bytes=4500-"}]
)
def test_reading_an_archived_object_is_refused_in_the_store_s_words(
    behind: tuple[meddler.Meddler, live.Gateway, Any],
    shared: str,
    key: str,
    size: int,
    headers: dict[str, str],
):
    meddling, gateway, client = behind
    client.put_object(Bucket=shared, Key=key, Body=LARGE[:size])
    refuse = meddler.say(403, STATE, Content_Type="application/xml")
    with meddling.misbehaving(refuse, reads_body(key)):
        answer = raw.ask(gateway, "GET", raw.path(shared, key), headers)
    assert answer.verdict == (403, "InvalidObjectState")
    assert answer.field("StorageClass") == "INTELLIGENT_TIERING"
    assert answer.field("AccessTier") == "DEEP_ARCHIVE_ACCESS"
    assert "access tier" in (answer.field("Message") or "")


@pytest.mark.parametrize("size", [5000, len(LARGE)])
def test_head_of_an_archived_object_tells_size_etag_and_restore(
    behind: tuple[meddler.Meddler, live.Gateway, Any], shared: str, key: str, size: int
):
    meddling, _, client = behind
    body = LARGE[:size]
    client.put_object(Bucket=shared, Key=key, Body=body)
    with meddling.misbehaving(meddler.changed(archived), lambda r: r.method == "HEAD"):
        head = client.head_object(Bucket=shared, Key=key)
    assert (head["ContentLength"], head["ETag"]) == (size, f'"{hashlib.md5(body).hexdigest()}"')
    assert (head["StorageClass"], head["Restore"]) == ("GLACIER", RESTORE)


def test_a_listing_keeps_what_the_store_says_of_a_restore(
    behind: tuple[meddler.Meddler, live.Gateway, Any], shared: str, key: str
):
    meddling, _, client = behind
    client.put_object(Bucket=shared, Key=key, Body=LARGE)
    status = b"<RestoreStatus><IsRestoreInProgress>true</IsRestoreInProgress></RestoreStatus>"

    def restoring(answer: Answer) -> Answer:
        body = answer.body.replace(b"<StorageClass>STANDARD<", status + b"<StorageClass>GLACIER<")
        return Answer(answer.head, body).with_field("Content-Length", str(len(body)))

    listing = meddling.misbehaving(
        meddler.changed(restoring), lambda r: r.method == "GET" and b"prefix=" in r.target
    )
    with listing:
        plain = client.list_objects_v2(Bucket=shared, Prefix=key)["Contents"]
        versions = client.list_object_versions(Bucket=shared, Prefix=key)["Versions"]
    for entries in (plain, versions):
        (entry,) = entries
        assert (entry["Size"], entry["StorageClass"]) == (len(LARGE), "GLACIER")
        assert entry["RestoreStatus"]["IsRestoreInProgress"] is True


@pytest.mark.parametrize("status", [200, 202])
def test_a_restore_is_passed_on(
    behind: tuple[meddler.Meddler, live.Gateway, Any], shared: str, key: str, status: int
):
    meddling, _, client = behind
    client.put_object(Bucket=shared, Key=key, Body=LARGE)
    say = meddler.say(status, x_amz_restore_output_path="out")
    with meddling.misbehaving(say, lambda r: r.method == "POST") as seen:
        request = {"Days": 3, "GlacierJobParameters": {"Tier": "Bulk"}}
        answer = client.restore_object(Bucket=shared, Key=key, RestoreRequest=request)
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == status
    assert answer["RestoreOutputPath"] == "out"
    (asked,) = seen
    assert b"restore" in asked.target
    assert b"<Days>3</Days>" in asked.body
    assert b"<Tier>Bulk</Tier>" in asked.body


def test_a_refused_restore_is_the_store_s_refusal(
    behind: tuple[meddler.Meddler, live.Gateway, Any], shared: str, key: str
):
    meddling, _, client = behind
    body = b"<Error><Code>RestoreAlreadyInProgress</Code><Message>wait</Message></Error>"
    with (
        meddling.misbehaving(meddler.say(409, body), lambda r: r.method == "POST"),
        pytest.raises(ClientError) as caught,
    ):
        client.restore_object(Bucket=shared, Key=key, RestoreRequest={"Days": 1})
    assert caught.value.response["Error"] == {"Code": "RestoreAlreadyInProgress", "Message": "wait"}


def test_a_website_redirect_is_stored_and_returned(
    behind: tuple[meddler.Meddler, live.Gateway, Any], shared: str, key: str
):
    meddling, _, client = behind
    body, where = corpus.text(5000), "/elsewhere.html"
    watch = meddler.changed(lambda answer: answer)
    with meddling.misbehaving(watch, lambda r: r.method == "PUT") as seen:
        client.put_object(Bucket=shared, Key=key, Body=body, WebsiteRedirectLocation=where)
    assert ("x-amz-website-redirect-location", where) in seen[0].fields
    told = meddler.changed(lambda each: each.with_field("x-amz-website-redirect-location", where))
    with meddling.misbehaving(told, lambda r: r.method in {"GET", "HEAD"}):
        assert client.head_object(Bucket=shared, Key=key)["WebsiteRedirectLocation"] == where
        got = client.get_object(Bucket=shared, Key=key)
        assert (got["WebsiteRedirectLocation"], got["Body"].read()) == (where, body)
        part = client.get_object(Bucket=shared, Key=key, Range="bytes=1-9")
        assert (part["WebsiteRedirectLocation"], part["Body"].read()) == (where, body[1:10])
