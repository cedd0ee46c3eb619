"""The boto3 adapter: what it sends, what it makes of answers, what it leaves alone."""

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

import botocore.exceptions as boto_errors
import pytest

from s4gateway.s3store import Boto3Transport, ConfigError, errors, new_client
from s4gateway.s3store.boto3_transport import moment_of, translated

ODD = "boto/a=é 日本/b=100%;+&?#'()*~.x"


@pytest.fixture
async def adapter(moto: Any) -> AsyncIterator[Boto3Transport]:
    made = Boto3Transport(moto.client, moto.bucket, workers=4)
    yield made
    await made.aclose()


async def test_an_object_comes_back_as_it_went(adapter: Boto3Transport):
    stored = await adapter.put(ODD, b"body", metadata={"rowcount": "3"}, content_type="text/plain")
    assert stored.etag == '"841a2d689ad86bd1611447453c22c6fc"'
    assert not stored.opaque_etag
    assert await adapter.get(ODD) == b"body"
    head = await adapter.head(ODD)
    assert head is not None
    assert (head.size, head.etag, head.metadata) == (4, stored.etag, {"rowcount": "3"})


async def test_a_body_is_worked_on_by_the_thread_it_came_on(adapter: Boto3Transport):
    await adapter.put(ODD, b"body")
    assert await adapter.get_then(ODD, bytes.upper) == b"BODY"
    thread = await adapter.get_then(ODD, lambda _: threading.current_thread().name)
    assert thread.startswith("s3store")


async def test_what_the_work_raises_comes_as_it_is(adapter: Boto3Transport):
    await adapter.put(ODD, b"body")

    def work(_body: bytes) -> None:
        raise OSError("disk")

    with pytest.raises(OSError, match=r"^disk$"):
        await adapter.get_then(ODD, work)
    with pytest.raises(errors.NotFound):
        await adapter.get_then("boto/none", work)


async def test_only_a_large_body_waits_for_leave_to_be_sent(adapter: Boto3Transport, moto: Any):
    waits = []

    def seen(request: Any, **_: Any) -> None:
        waits.append(request.headers.get("Expect"))

    moto.client.meta.events.register("before-sign.s3.PutObject", seen, unique_id="seen")
    try:
        for size in (0, 1000, 1024 * 1024):
            await adapter.put("boto/expect", bytes(size))
    finally:
        moto.client.meta.events.unregister("before-sign.s3.PutObject", unique_id="seen")
    assert waits == [None, None, "100-continue"]


def test_a_client_for_datasets_reads_the_dates_of_answers(moto: Any):
    """ISO 8601 in bodies and RFC 9110 in headers; boto3's own client says the same."""
    moto.client.put_object(Bucket=moto.bucket, Key="boto/date", Body=b"")
    ours = new_client(
        moto.client.meta.endpoint_url,
        aws_access_key_id="a",
        aws_secret_access_key="b",
        region_name="us-east-1",
    )
    try:
        head = ours.head_object(Bucket=moto.bucket, Key="boto/date")
        (listed,) = ours.list_objects_v2(Bucket=moto.bucket, Prefix="boto/date")["Contents"]
    finally:
        ours.close()
    theirs = moto.client.head_object(Bucket=moto.bucket, Key="boto/date")
    assert head["LastModified"] == theirs["LastModified"]
    assert listed["LastModified"].replace(microsecond=0) == theirs["LastModified"]
    assert moment_of("1772366400") == moment_of("2026-03-01T12:00:00Z")


async def test_ranges_are_of_the_object(adapter: Boto3Transport):
    await adapter.put("boto/range", bytes(range(100)))
    middle = await adapter.get_range("boto/range", 10, 5)
    assert (middle.body, middle.start, middle.total) == (bytes(range(10, 15)), 10, 100)
    tail = await adapter.get_range("boto/range", None, 7)
    assert (tail.body, tail.start, tail.total) == (bytes(range(93, 100)), 93, 100)
    longer = await adapter.get_range("boto/range", None, 700)
    assert (longer.start, longer.total, len(longer.body)) == (0, 100, 100)


async def test_pages_follow_each_other_in_the_order_of_bytes(adapter: Boto3Transport):
    names = [f"boto-list/{name}" for name in ("%2F", "a b", "a+b", "b;c", "é", "日")]
    for name in reversed(names):
        await adapter.put(name, b"")
    found, token = [], ""
    while True:
        page = await adapter.list_page("boto-list/", token=token, max_keys=4)
        found += [listed.key for listed in page.objects]
        token = page.next_token
        if not token:
            break
    assert found == names
    after = await adapter.list_page("boto-list/", start_after=names[3])
    assert [listed.key for listed in after.objects] == names[4:]
    partial = await adapter.list_page("boto-list/a")
    assert [(o.key, o.size) for o in partial.objects] == [(names[1], 0), (names[2], 0)]
    assert all(listed.last_modified.tzinfo for listed in after.objects)


async def test_what_is_absent_or_refused_has_its_own_error(adapter: Boto3Transport, moto: Any):
    assert await adapter.head("boto/absent") is None
    with pytest.raises(errors.NotFound) as absent:
        await adapter.get("boto/absent")
    assert (absent.value.status, absent.value.code) == (404, "NoSuchKey")
    with pytest.raises(errors.NotFound):
        await adapter.get_range("boto/absent", 0, 1)
    await adapter.put("boto/once", b"1", if_none_match=True)
    with pytest.raises(errors.PreconditionFailed):
        await adapter.put("boto/once", b"2", if_none_match=True)
    assert await adapter.get("boto/once") == b"1"
    nowhere = Boto3Transport(moto.client, "no-such-bucket", workers=1)
    for call in (nowhere.put("k", b""), nowhere.get("k"), nowhere.list_page("k")):
        with pytest.raises(errors.ClientError, match="NoSuchBucket"):
            await call
    await nowhere.aclose()


async def test_a_store_that_does_not_answer_is_a_failed_connection():
    client = new_client(
        "http://127.0.0.1:1",
        aws_access_key_id="a",
        aws_secret_access_key="b",
        region_name="us-east-1",
    )
    adapter = Boto3Transport(client, "b", workers=1)
    with pytest.raises(errors.ConnectionFailed):
        await adapter.get("k")
    await adapter.aclose()
    client.close()


def test_a_client_made_here_leaves_retries_to_the_dataset():
    client = new_client(
        "http://127.0.0.1:1",
        connections=7,
        aws_access_key_id="a",
        aws_secret_access_key="b",
        region_name="us-east-1",
    )
    config = client.meta.config
    assert config.retries["total_max_attempts"] == 1
    assert (config.max_pool_connections, config.connect_timeout, config.read_timeout) == (7, 3, 60)
    assert config.s3 == {"addressing_style": "path"}
    client.close()


async def test_requests_run_side_by_side(adapter: Boto3Transport):
    await asyncio.gather(*(adapter.put(f"boto/side/{n}", b"") for n in range(12)))
    assert len((await adapter.list_page("boto/side/")).objects) == 12


def answer(status: int, code: str) -> boto_errors.ClientError:
    return boto_errors.ClientError(
        {"Error": {"Code": code, "Message": "m"}, "ResponseMetadata": {"HTTPStatusCode": status}},
        "Operation",
    )


@pytest.mark.parametrize(
    ("op", "error", "kind"),
    [
        ("get", answer(404, "NoSuchKey"), errors.NotFound),
        ("head", answer(404, "404"), errors.NotFound),
        ("get", answer(404, "NoSuchBucket"), errors.ClientError),
        ("put", answer(404, "NoSuchBucket"), errors.ClientError),
        ("put", answer(412, "PreconditionFailed"), errors.PreconditionFailed),
        ("put", answer(403, "AccessDenied"), errors.AccessDenied),
        ("put", answer(409, "ConditionalRequestConflict"), errors.ClientError),
        ("put", answer(400, "RequestTimeout"), errors.ClientError),
        ("put", answer(503, "SlowDown"), errors.Throttled),
        ("put", answer(200, "SlowDown"), errors.Throttled),
        ("put", answer(429, "TooManyRequests"), errors.Throttled),
        ("put", answer(500, "InternalError"), errors.ServerError),
        ("get", boto_errors.ReadTimeoutError(endpoint_url="u"), errors.ConnectionFailed),
        ("get", boto_errors.ConnectTimeoutError(endpoint_url="u"), errors.ConnectionFailed),
        ("get", boto_errors.EndpointConnectionError(endpoint_url="u"), errors.ConnectionFailed),
        ("get", boto_errors.ConnectionClosedError(endpoint_url="u"), errors.ConnectionFailed),
        ("get", boto_errors.SSLError(endpoint_url="u", error="e"), errors.ConnectionFailed),
        (
            "get",
            boto_errors.IncompleteReadError(actual_bytes=1, expected_bytes=2),
            errors.ConnectionFailed,
        ),
        ("get", ConnectionResetError(), errors.ConnectionFailed),
        ("get", boto_errors.NoCredentialsError(), errors.ClientError),
        ("get", boto_errors.ParamValidationError(report="r"), errors.ClientError),
    ],
)
def test_each_failure_of_boto3_is_one_of_ours(
    op: str, error: Exception, kind: type[errors.TransportError]
):
    ours = translated(op, "k", error)
    assert type(ours) is kind
    assert (ours.op, ours.key) == (op, "k")
    assert str(ours).startswith(f"{op} k: ")


def test_what_is_no_client_is_refused():
    with pytest.raises(ConfigError, match="neither a boto3 S3 client nor a Transport"):
        Boto3Transport("client", "b", workers=1)
