"""The verbs on the wire: signed as S3 verifies, retried as the policy says, checked as promised."""

import asyncio
import base64
import hashlib
import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import trustme
from hypothesis import given, settings
from hypothesis import strategies as st

from s4gateway.backend import base, client, credentials, http, retry
from s4gateway.backend.profile import Checksum
from s4gateway.s3 import errors, sigv4
from s4gateway.s3.headers import Headers, RequestHead
from tests import rude_server
from tests.rude_server import Exchange

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
KEYS = sigv4.Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG")
PATIENT = retry.RetryPolicy(attempts=3, base_delay=0.0001, jitter=lambda: 0.5)


def store_at(
    url: str,
    keys: sigv4.Credentials | None = KEYS,
    checksum: Checksum = Checksum.MD5,
    timeout: float = 60.0,
    **options: object,
) -> client.S3Backend:
    return client.S3Backend(
        client.Endpoint(url, **options),  # type: ignore[arg-type]
        credentials.Static(keys),
        http.HttpClient(read_timeout=timeout, slow_timeout=timeout),
        PATIENT,
        lambda: NOW,
        checksum,
    )


def verify(request: rude_server.Request, secret: str = KEYS.secret) -> sigv4.Authenticated:
    path, _, query = request.target.decode().partition("?")
    head = RequestHead(request.method, path, query, Headers(request.fields))
    return sigv4.verify_header(head, lambda _: secret, NOW, timedelta(minutes=15), None)


def integrity(request: rude_server.Request) -> dict[str, str]:
    names = ("content-md5", "x-amz-checksum-")
    return {name: text for name, text in request.headers.items() if name.startswith(names)}


def generated(data: bytes, *, replayable: bool = True) -> base.Body:
    async def chunks() -> AsyncIterator[bytes]:
        yield data

    return base.Body(len(data), chunks, replayable)


async def no_body(exchange: Exchange) -> None:
    await exchange.answer(204 if exchange.request.method == "DELETE" else 200)


def answers(
    *steps: tuple[int, bytes, Mapping[str, str]] | str,
) -> rude_server.Script:
    """Treat the n-th request as the n-th step says, the last one for ever after."""

    async def script(exchange: Exchange) -> None:
        match steps[min(exchange.number, len(steps)) - 1]:
            case "close":
                exchange.close()
            case "reset":
                exchange.reset()
            case "stall":
                await exchange.stall()
            case (int(status), bytes(body), headers):
                await exchange.answer(status, body, headers)  # type: ignore[arg-type]

    return script


OK = (200, b"", {"ETag": '"e"'})
BUSY = (503, b"<Error><Code>SlowDown</Code><Message>m</Message></Error>", {})


class TestSigning:
    @settings(max_examples=50)
    @given(
        key=st.text(min_size=1, max_size=20).filter(lambda key: key.isprintable()),
        value=st.text(
            st.characters(codec="utf-8", categories=["L", "N", "M", "P", "S", "Z"]), max_size=9
        ),
    )
    async def test_what_arrives_verifies(self, key: str, value: str):
        async with rude_server.serve(no_body) as server:
            store = store_at(server.url)
            headers = [("X-Amz-Meta-V", value), ("Content-Type", "a/b")]
            await store.put("bucket", key, base.Body.of(b"abc"), headers)
            await store.delete("bucket", key, query="versionId=a%2Bb&x-id=DeleteObject")
            await store.close()
        put, delete = server.requests
        assert verify(put).payload_hash == hashlib.sha256(b"abc").hexdigest()
        assert verify(delete).payload_hash == sigv4.EMPTY_SHA256

    async def test_words_about_chunks_are_sent_only_with_a_body_that_has_them(self):
        framing = {"x-amz-decoded-content-length": "3", "x-amz-trailer": "x-amz-checksum-crc32c"}
        kind = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
        chunked = base.Body(8, b"3\r\nabc\r\n", sha256=kind)
        async with rude_server.serve(no_body) as server:
            store = store_at(server.url)
            for body in (base.Body.of(b"abc"), chunked):
                await store.put("bucket", "key", body, list(framing.items()))
            await store.close()
        plain, framed = ({n: each.headers.get(n) for n in framing} for each in server.requests)
        assert plain == dict.fromkeys(framing)
        assert framed == framing
        assert verify(server.requests[1]).payload_hash == kind

    async def test_every_given_header_is_signed_but_those_others_rewrite(self):
        headers = [
            ("x-amz-acl", "private"),
            ("If-Match", '"e"'),
            ("user-agent", "u"),
            ("Range", "r"),
        ]
        async with rude_server.serve(no_body) as server:
            store = store_at(server.url)
            async with await store.forward("GET", "/b/k", "", headers):
                pass
            await store.close()
        (request,) = server.requests
        names = request.headers["authorization"].split("SignedHeaders=")[1].split(",")[0].split(";")
        assert names == ["host", "if-match", "range", "x-amz-acl", *names[4:]]
        assert sorted(names[4:]) == ["x-amz-content-sha256", "x-amz-date"]
        assert request.headers["user-agent"] == "u"
        verify(request)

    async def test_the_client_s_own_framing_and_signature_stay_here(self):
        headers = [
            ("Authorization", "AWS4-HMAC-SHA256 Credential=theirs"),
            ("Host", "gateway"),
            ("Expect", "100-continue"),
            ("Connection", "close"),
            ("Transfer-Encoding", "chunked"),
            ("Accept-Encoding", "gzip"),
            ("Content-Length", "999"),
            ("X-Amz-Date", "20000101T000000Z"),
            ("X-Amz-Content-Sha256", "STREAMING-UNSIGNED-PAYLOAD-TRAILER"),
            ("X-Amz-Decoded-Content-Length", "3"),
            ("X-Amz-Trailer", "x-amz-checksum-crc32"),
            ("X-Amz-Security-Token", "theirs"),
            ("x-amz-meta-keep", "me"),
        ]
        async with rude_server.serve(no_body) as server:
            store = store_at(server.url)
            async with await store.forward("PUT", "/b/k", "", headers, base.Body.of(b"abc")):
                pass
            await store.close()
        (request,) = server.requests
        verify(request)
        assert sorted(request.headers) == [
            "accept-encoding",
            "authorization",
            "content-length",
            "host",
            "x-amz-content-sha256",
            "x-amz-date",
            "x-amz-meta-keep",
        ]
        assert request.headers["accept-encoding"] == "identity"
        assert request.headers["content-length"] == "3"
        assert request.headers["host"] == server.url.removeprefix("http://")

    async def test_a_repeated_header_becomes_one_field(self):
        headers = [("x-amz-meta-a", "1"), ("x-amz-meta-b", "2"), ("X-Amz-Meta-A", "3")]
        async with rude_server.serve(no_body) as server:
            store = store_at(server.url)
            await store.put("b", "k", base.EMPTY, headers)
            await store.close()
        verify(server.requests[0])
        assert server.requests[0].headers["x-amz-meta-a"] == "1,3"

    @pytest.mark.parametrize(
        ("body", "expected"),
        [
            (base.EMPTY, sigv4.EMPTY_SHA256),
            (base.Body.of(b"abc"), hashlib.sha256(b"abc").hexdigest()),
            (base.Body.of(bytes(2_000_000)), "UNSIGNED-PAYLOAD"),
            (generated(b"abc"), "UNSIGNED-PAYLOAD"),
            (base.Body(3, b"abc", sha256="f" * 64), "f" * 64),
        ],
    )
    async def test_over_http_the_hash_at_hand_is_signed(self, body: base.Body, expected: str):
        async with rude_server.serve(no_body) as server:
            store = store_at(server.url)
            await store.put("b", "k", body)
            await store.close()
        assert verify(server.requests[0]).payload_hash == expected

    async def test_a_profile_may_leave_payloads_unsigned(self):
        async with rude_server.serve(no_body) as server:
            store = store_at(server.url, unsigned_payload=True)
            await store.put("b", "k", base.Body.of(b"abc"))
            await store.close()
        assert verify(server.requests[0]).payload_hash == "UNSIGNED-PAYLOAD"

    async def test_over_https_payloads_are_unsigned(self):
        authority = trustme.CA()
        serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(serving)
        trust = ssl.create_default_context()
        authority.configure_trust(trust)
        async with rude_server.serve(no_body, tls=serving) as server:
            store = client.S3Backend(
                client.Endpoint(server.url),
                credentials.Static(KEYS),
                http.HttpClient(ssl=trust),
                now=lambda: NOW,
            )
            await store.put("b", "k", base.Body.of(b"abc"))
            await store.close()
            assert verify(server.requests[0]).payload_hash == "UNSIGNED-PAYLOAD"

    async def test_a_known_md5_is_sent(self):
        md5 = base64.b64encode(hashlib.md5(b"abc").digest()).decode()
        async with rude_server.serve(no_body) as server:
            store = store_at(server.url)
            given_header = [("Content-MD5", "of another body")]
            await store.put("b", "k", base.Body.of(b"abc", md5=md5), given_header)
            await store.close()
        verify(server.requests[0])
        assert server.requests[0].headers["content-md5"] == md5

    @pytest.mark.parametrize("checksum", Checksum)
    async def test_an_upload_carries_the_integrity_header_of_the_profile(self, checksum: Checksum):
        data = b"abc"
        md5 = base64.b64encode(hashlib.md5(data).digest()).decode()
        memory = base.Body.of(data, md5=md5)
        known = replace(generated(data), md5=md5, checksum=("crc32c", "AAAAAA=="))
        async with rude_server.serve(no_body) as server:
            store = store_at(server.url, checksum=checksum)
            for body in (memory, known, generated(data)):
                await store.put("b", "k", body)
            part = await store.forward("PUT", "/b/k", "uploadId=u&partNumber=1", [], memory)
            await part.close()
            await store.close()
        sent = [integrity(request) for request in server.requests]
        for request in server.requests:
            verify(request)
        of_bytes = {
            Checksum.NONE: {},
            Checksum.MD5: {"content-md5": md5},
            Checksum.CRC32: {"x-amz-checksum-crc32": "NSRBwg=="},
            Checksum.CRC32C: {"x-amz-checksum-crc32c": "Nks/tw=="},
            Checksum.CRC64NVME: {"x-amz-checksum-crc64nvme": "BeXKuz/B+us="},
        }[checksum]
        of_stream = {
            Checksum.MD5: {"content-md5": md5},
            Checksum.CRC32C: {"x-amz-checksum-crc32c": "AAAAAA=="},
        }.get(checksum, {})
        assert sent == [of_bytes, of_stream, {}, of_bytes]

    async def test_an_upload_under_object_lock_carries_its_md5(self):
        locked = [("x-amz-object-lock-mode", "GOVERNANCE")]
        async with rude_server.serve(no_body) as server:
            store = store_at(server.url)
            await store.put("b", "k", base.Body.of(b"abc"), locked)
            await store.close()
        assert integrity(server.requests[0]) == {"content-md5": "kAFQmDzST7DWlj99KOF/cg=="}

    async def test_an_upload_in_parts_announces_the_checksum_of_its_parts(self):
        sent = []
        for checksum in (Checksum.MD5, Checksum.CRC32C):
            for own in ([], [("x-amz-checksum-algorithm", "SHA256")]):
                async with rude_server.serve(no_body) as server:
                    store = store_at(server.url, checksum=checksum)
                    await (await store.forward("POST", "/b/k", "uploads=", own)).close()
                    await store.close()
                sent.append(integrity(server.requests[0]))
        theirs = {"x-amz-checksum-algorithm": "SHA256"}
        ours = {"x-amz-checksum-algorithm": "CRC32C", "x-amz-checksum-type": "FULL_OBJECT"}
        assert sent == [{}, theirs, ours, theirs]

    @pytest.mark.parametrize("checksum", [Checksum.NONE, Checksum.CRC32])
    async def test_documents_and_a_callers_own_checksum_are_left_alone(self, checksum: Checksum):
        body = base.Body.of(b"<Tagging/>", md5="of it")
        own = [("X-Amz-Checksum-SHA256", "theirs")]
        async with rude_server.serve(no_body) as server:
            store = store_at(server.url, checksum=checksum)
            await (await store.forward("PUT", "/b/k", "tagging=", [], body)).close()
            await (await store.forward("POST", "/b", "delete=", [], body)).close()
            await store.put("b", "k", base.Body.of(b"abc"), own)
            await store.close()
        assert [integrity(request) for request in server.requests] == [
            {"content-md5": "of it"},
            {"content-md5": "of it"},
            {"x-amz-checksum-sha256": "theirs"},
        ]

    async def test_another_identity_signs_over_the_same_connections(self):
        other = sigv4.Credentials("OTHER", "other-secret", "token")
        async with rude_server.serve(no_body) as server:
            store = store_at(server.url)
            assert store.with_identity(other) is store.with_identity(
                sigv4.Credentials("OTHER", "other-secret", "token")
            )
            await store.head("b", "k")
            await store.with_identity(other).head("b", "k")
            await store.with_identity(None).head("b", "k")
            await store.head("b", "k")
            await store.close()
            assert server.connections == 1
        first, second, third, fourth = server.requests
        assert verify(first).access_key == verify(fourth).access_key == "AKIDEXAMPLE"
        assert verify(second, "other-secret").access_key == "OTHER"
        assert second.headers["x-amz-security-token"] == "token"
        assert sorted(third.headers) == ["accept-encoding", "host"]

    async def test_identities_do_not_pile_up(self):
        store = store_at("http://127.0.0.1:9")
        for number in range(3000):
            store.with_identity(sigv4.Credentials(str(number), "s"))
        assert len(store._identities) <= 1024
        await store.close()

    async def test_credentials_are_asked_for_each_time(self):
        class Rotating:
            count = 0

            async def get(self, now: datetime) -> sigv4.Credentials:
                self.count += 1
                return sigv4.Credentials(f"KEY{self.count}", "secret")

        async with rude_server.serve(no_body) as server:
            store = client.S3Backend(
                client.Endpoint(server.url), Rotating(), http.HttpClient(), now=lambda: NOW
            )
            await store.head("b", "k")
            await store.head("b", "k")
            await store.close()
        assert [verify(r, "secret").access_key for r in server.requests] == ["KEY1", "KEY2"]


class TestEndpoint:
    @pytest.mark.parametrize(
        ("url", "host", "origin", "prefix"),
        [
            ("http://localhost:8333", "localhost:8333", "http://localhost:8333", ""),
            ("http://localhost:8333/", "localhost:8333", "http://localhost:8333", ""),
            ("http://S3.Example.com:80", "s3.example.com", "http://s3.example.com", ""),
            ("https://s3.example.com:443/x/", "s3.example.com", "https://s3.example.com", "/x"),
            ("https://s3.example.com:80", "s3.example.com:80", "https://s3.example.com:80", ""),
            ("http://[::1]:9000", "[::1]:9000", "http://[::1]:9000", ""),
        ],
    )
    def test_an_address_is_taken_apart(self, url: str, host: str, origin: str, prefix: str):
        endpoint = client.Endpoint(url)
        assert (endpoint.host, endpoint.origin, endpoint.prefix) == (host, origin, prefix)
        assert endpoint.is_encrypted is origin.startswith("https")

    @pytest.mark.parametrize(
        "url", ["", "localhost:9000", "s3://bucket", "http://", "http://h:x", "http://h/?q=1"]
    )
    def test_what_is_no_address_is_refused(self, url: str):
        with pytest.raises(ValueError, match=r"."):
            client.Endpoint(url)

    async def test_a_prefix_is_part_of_every_signed_path(self):
        async with rude_server.serve(no_body) as server:
            store = store_at(server.url + "/s3/")
            await store.head("b", "k")
            await store.close()
        assert server.requests[0].target == b"/s3/b/k"
        verify(server.requests[0])


def object_answer(status: int = 206, **fields: str) -> rude_server.Script:
    headers = {"ETag": '"e"', **{name.replace("_", "-"): value for name, value in fields.items()}}
    return answers((status, b"12345", headers))


class TestReading:
    @pytest.mark.parametrize(
        "script",
        [
            object_answer(200),
            object_answer(200, Content_Range="bytes 5-9/100"),
            object_answer(206),
            object_answer(206, Content_Range="bytes 0-4/100"),
            object_answer(206, Content_Range="bytes 5-8/100"),
            object_answer(206, Content_Range="bytes 5-10/100"),
            object_answer(206, Content_Range="bytes 5-9/*"),
            object_answer(206, Content_Range="bytes 5-9/8"),
            object_answer(206, Content_Range="lines 5-9/100"),
            object_answer(206, Content_Range="bytes 5-9/100", Content_Length="3"),
            object_answer(206, Content_Range="bytes 5-9/100", ETag='"other"'),
            object_answer(206, Content_Range="bytes 5-9/100", ETag=""),
            object_answer(204),
        ],
    )
    async def test_other_bytes_than_the_range_asked_for_are_not_handed_out(
        self, script: rude_server.Script
    ):
        async with rude_server.serve(script) as server:
            store = store_at(server.url)
            with pytest.raises(base.BackendProtocolError):
                await store.get("b", "k", byte_range=(5, 10), if_match="e")
            assert store._http.in_use == 0
            await store.close()

    @pytest.mark.parametrize("content_range", ["bytes 5-9/100", "bytes 5-9/10"])
    async def test_the_range_asked_for_is_handed_out(self, content_range: str):
        async with rude_server.serve(object_answer(206, Content_Range=content_range)) as server:
            store = store_at(server.url)
            end = int(content_range.rpartition("/")[2])
            async with await store.get(
                "b", "k", byte_range=(5, 10 if end == 100 else 50), if_match="e"
            ) as stream:
                assert await stream.read(10) == b"12345"
            await store.close()
        request = server.requests[0]
        assert request.headers["range"] in ("bytes=5-9", "bytes=5-49")
        assert request.headers["if-match"] == '"e"'

    async def test_an_object_of_unknown_length_is_not_read(self):
        async def script(exchange: Exchange) -> None:
            await exchange.send(
                b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n"
                b"1\r\nx\r\n0\r\n\r\n"
            )

        async with rude_server.serve(script) as server:
            store = store_at(server.url)
            with pytest.raises(base.BackendProtocolError, match="without Content-Length"):
                await store.get("b", "k")
            await store.close()

    async def test_an_object_recoded_on_the_way_is_not_read(self):
        script = object_answer(200, ETag='W/"e"', Content_Encoding="gzip")
        async with rude_server.serve(script) as server:
            store = store_at(server.url)
            with pytest.raises(base.BackendProtocolError, match="re-encoded"):
                await store.get("b", "k")
            await store.close()

    async def test_a_truncated_object_is_an_error_after_its_bytes(self):
        async def script(exchange: Exchange) -> None:
            await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345")
            exchange.close()

        async with rude_server.serve(script) as server:
            store = store_at(server.url)
            async with await store.get("b", "k") as stream:
                with pytest.raises(base.BackendProtocolError, match="ended early"):
                    await stream.read(100)
            await store.close()

    async def test_a_listing_that_was_compressed_on_the_way_is_refused(self):
        script = answers((200, b"\x1f\x8b", {"Content-Encoding": "gzip"}))
        async with rude_server.serve(script) as server:
            store = store_at(server.url)
            with pytest.raises(base.BackendProtocolError, match="gzip"):
                await store.list("b", "list-type=2")
            await store.close()
        assert server.requests[0].target == b"/b?list-type=2"

    async def test_a_listing_has_a_limit(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(base, "LIST_LIMIT", 1000)
        async with rude_server.serve(answers((200, bytes(1001), {}))) as server:
            store = store_at(server.url)
            with pytest.raises(base.BackendProtocolError, match="larger than 1000"):
                await store.list("b", "")
            await store.close()


class TestRefusals:
    @pytest.mark.parametrize(
        ("status", "body", "code", "message"),
        [
            (
                404,
                b"<Error><Code>NoSuchBucket</Code><Message>m</Message></Error>",
                "NoSuchBucket",
                "m",
            ),
            (404, b"", "NoSuchKey", ""),
            (403, b"<html>forbidden</html>", "AccessDenied", ""),
            (403, b"\xff\xfe", "AccessDenied", ""),
            (412, b"", "PreconditionFailed", ""),
            (304, b"", "NotModified", ""),
            (301, b"", "PermanentRedirect", ""),
            (416, b"", "InvalidRange", ""),
            (400, b"", "InvalidRequest", ""),
            (418, b"", "InvalidRequest", ""),
            (501, b"", "NotImplemented", ""),
            (599, b"", "InternalError", ""),
        ],
    )
    async def test_every_refusal_has_a_code(
        self, status: int, body: bytes, code: str, message: str
    ):
        async with rude_server.serve(answers((status, body, {"x-amz-request-id": "r"}))) as server:
            store = store_at(server.url)
            with pytest.raises(base.BackendAnswer) as caught:
                await store.get("b", "k")
            answer = caught.value
            assert (answer.status, answer.code, answer.message) == (status, code, message)
            assert answer.headers["x-amz-request-id"] == "r"
            if not code.startswith("Invalid"):
                errors.S3Error(code, status=status)
            assert store._http.in_use == 0
            await store.close()

    async def test_a_refusal_without_its_body_is_still_that_refusal(self):
        async def script(exchange: Exchange) -> None:
            await exchange.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 10\r\n\r\n<E")
            exchange.close()

        async with rude_server.serve(script) as server:
            store = store_at(server.url)
            with pytest.raises(base.BackendAnswer) as caught:
                await store.list("b", "")
            assert (caught.value.status, caught.value.body) == (403, b"")
            await store.close()

    async def test_a_huge_error_page_is_not_read(self):
        async with rude_server.serve(answers((403, bytes(1_000_000), {}))) as server:
            store = store_at(server.url)
            with pytest.raises(base.BackendAnswer) as caught:
                await store.head("b", "k")
            assert caught.value.status == 403
            with pytest.raises(base.BackendAnswer) as caught:
                await store.delete("b", "k")
            assert (caught.value.status, caught.value.body) == (403, b"")
            await store.close()

    async def test_forward_returns_a_refusal(self):
        async with rude_server.serve(answers((409, b"<Error/>", {}))) as server:
            store = store_at(server.url)
            async with await store.forward("PUT", "/b", "acl", ()) as stream:
                assert (stream.head.status, await stream.read(100)) == (409, b"<Error/>")
            await store.close()
        assert server.requests[0].target == b"/b?acl"


class TestRepeating:
    @pytest.mark.parametrize(
        "fault", ["close", "reset", "stall", BUSY, (500, b"", {}), (502, b"", {})]
    )
    async def test_a_safe_request_is_sent_again(
        self, fault: tuple[int, bytes, Mapping[str, str]] | str
    ):
        async with rude_server.serve(answers(fault, fault, OK)) as server:
            store = store_at(server.url, timeout=0.5 if fault == "stall" else 60.0)
            assert (await store.head("b", "k")).etag == "e"
            await store.close()
            assert len(server.requests) == 3

    async def test_a_replayable_body_is_sent_whole_each_time(self):
        for body in (base.Body.of(b"abc"), generated(b"abc")):
            async with rude_server.serve(answers("close", BUSY, OK)) as server:
                store = store_at(server.url)
                await store.put("b", "k", body)
                await store.close()
                assert [request.body for request in server.requests] == [b"abc"] * 3

    @pytest.mark.parametrize("fault", ["close", "reset", BUSY])
    async def test_an_unsafe_request_is_sent_once(
        self, fault: tuple[int, bytes, Mapping[str, str]] | str
    ):
        async with rude_server.serve(answers(fault)) as server:
            store = store_at(server.url)
            create = [("if-none-match", "*")]
            for sending in (
                store.put("b", "k", base.Body.of(b"abc"), create),
                store.put("b", "k", generated(b"abc", replayable=False)),
                store.delete("b", "k", headers=[("if-match", '"e"')]),
            ):
                with pytest.raises((base.BackendUnavailable, base.BackendAnswer)):
                    await sending
            assert len(server.requests) == 3
            complete = store.forward("POST", "/b/k", "uploadId=u", (), base.Body.of(b"<C/>"))
            if isinstance(fault, str):
                with pytest.raises(base.BackendUnavailable):
                    await complete
            else:
                async with await complete as stream:
                    assert stream.head.status == 503
            assert len(server.requests) == 4
            await store.close()

    async def test_the_keep_alive_race_is_lost_once_by_safe_requests_only(self):
        async def script(exchange: Exchange) -> None:
            if exchange.number_on_connection > 1:
                exchange.reset()  # as a store does that closed the idle connection just now
            else:
                await exchange.answer(200, b"", {"ETag": '"e"'})

        async with rude_server.serve(script) as server:
            store = store_at(server.url)
            for _ in range(5):
                await store.head("b", "k")
            assert server.connections == 5
            with pytest.raises(base.BackendUnavailable):
                await store.put("b", "k", base.EMPTY, [("if-none-match", "*")])
            await store.put("b", "k", base.EMPTY, [("if-none-match", "*")])
            await store.close()

    async def test_what_was_never_sent_may_be_sent_again(self):
        async with rude_server.serve(no_body) as server:
            url = server.url
        store = store_at(url)

        async def revive() -> None:
            while True:
                try:
                    server = await asyncio.start_server(
                        rude._handle, "127.0.0.1", int(url.rpartition(":")[2])
                    )
                except OSError:
                    await asyncio.sleep(0)
                    continue
                async with server:
                    await store.put("b", "k", generated(b"abc", replayable=False))
                return

        rude = rude_server.RudeServer(no_body)
        with pytest.raises(base.BackendUnavailable) as caught:
            await store.put("b", "k", generated(b"abc", replayable=False))
        assert caught.value.unsent
        await revive()
        assert [request.body for request in rude.requests] == [b"abc"]
        await store.close()
        await rude.stop()

    async def test_the_last_refusal_is_the_answer(self):
        async with rude_server.serve(answers(BUSY)) as server:
            store = store_at(server.url)
            with pytest.raises(base.BackendAnswer) as caught:
                await store.get("b", "k")
            assert (caught.value.status, caught.value.code) == (503, "SlowDown")
            async with await store.forward("GET", "/b/k", "tagging", ()) as stream:
                assert await stream.read(1000) == BUSY[1]
            assert len(server.requests) == 6
            await store.close()

    async def test_a_retry_after_beyond_the_deadline_ends_the_attempts(self):
        async with rude_server.serve(answers((503, b"", {"Retry-After": "3600"}))) as server:
            store = store_at(server.url)
            with pytest.raises(base.BackendAnswer):
                await store.get("b", "k")
            assert len(server.requests) == 1
            await store.close()

    async def test_a_retry_after_is_honoured(self):
        async with rude_server.serve(answers((503, b"", {"Retry-After": "0"}), OK)) as server:
            store = store_at(server.url)
            await store.head("b", "k")
            await store.close()
            assert len(server.requests) == 2

    async def test_missing_credentials_are_unavailable_and_nothing_is_sent(self):
        async with rude_server.serve(no_body) as server:
            store = client.S3Backend(
                client.Endpoint(server.url), credentials.Refreshing(()), http.HttpClient(), PATIENT
            )
            with pytest.raises(base.BackendUnavailable, match="no credentials"):
                await store.head("b", "k")
            await store.close()
            assert server.requests == []


class TestDeleting:
    async def test_keys_go_in_pages_with_a_checksum_each(self):
        async with rude_server.serve(answers((200, b"<DeleteResult/>", {}))) as server:
            store = store_at(server.url)
            assert await store.delete_many("b", [f"k{number}" for number in range(2001)]) == []
            assert await store.delete_many("b", []) == []
            await store.close()
        assert [request.body.count(b"<Key>") for request in server.requests] == [1000, 1000, 1]
        for request in server.requests:
            verify(request)
            digest = hashlib.md5(request.body).digest()
            assert request.headers["content-md5"] == base64.b64encode(digest).decode()
            assert request.target == b"/b?delete="
            assert b"<Quiet>true</Quiet>" in request.body

    async def test_what_was_not_deleted_is_told(self):
        result = (
            b'<DeleteResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            b"<Error><Key>a&amp;b</Key><Code>AccessDenied</Code><Message>no</Message></Error>"
            b"<Error><Key>c</Key></Error></DeleteResult>"
        )
        async with rude_server.serve(answers((200, result, {}))) as server:
            store = store_at(server.url)
            assert await store.delete_many("b", ["a&b", "c"]) == [
                base.DeleteFailure("a&b", "AccessDenied", "no"),
                base.DeleteFailure("c", "InternalError", ""),
            ]
            await store.close()

    async def test_keys_no_document_can_name_are_deleted_one_by_one(self):
        async def script(exchange: Exchange) -> None:
            if exchange.request.method == "POST":
                await exchange.answer(200, b"<DeleteResult/>")
            elif b"%02" in exchange.request.target:
                await exchange.answer(403, b"<Error><Code>AccessDenied</Code></Error>")
            else:
                await exchange.answer(204)

        async with rude_server.serve(script) as server:
            store = store_at(server.url)
            failures = await store.delete_many("b", ["a\x01", "plain", "b\x02"])
            assert failures == [base.DeleteFailure("b\x02", "AccessDenied", "")]
            await store.close()
        assert [request.target for request in server.requests] == [
            b"/b?delete=",
            b"/b/a%01",
            b"/b/b%02",
        ]

    @pytest.mark.parametrize("body", [b"", b"<html/>", b"not xml", b"<Error/>"])
    async def test_an_answer_that_is_no_result_is_not_success(self, body: bytes):
        async with rude_server.serve(answers((200, body, {}))) as server:
            store = store_at(server.url)
            with pytest.raises(base.BackendProtocolError):
                await store.delete_many("b", ["k"])
            await store.close()

    async def test_a_refused_page_is_an_answer(self):
        async with rude_server.serve(answers((403, b"", {}))) as server:
            store = store_at(server.url)
            with pytest.raises(base.BackendAnswer):
                await store.delete_many("b", ["k"])
            await store.close()


class TestPing:
    @pytest.mark.parametrize("status", [200, 400, 403, 404])
    async def test_any_answer_below_500_is_a_sign_of_life(self, status: int):
        async with rude_server.serve(answers((status, b"", {}))) as server:
            store = store_at(server.url)
            await store.ping()
            await store.close()

    @pytest.mark.parametrize("fault", [BUSY, "close", "stall"])
    async def test_no_life_is_told_at_once(self, fault: tuple[int, bytes, Mapping[str, str]] | str):
        async with rude_server.serve(answers(fault)) as server:
            store = store_at(server.url, timeout=0.5 if fault == "stall" else 60.0)
            with pytest.raises(base.BackendError):
                await store.ping()
            await store.close()
            assert len(server.requests) == 1
