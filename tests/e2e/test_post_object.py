"""PostObject: forms as browsers send them, signed in both versions, over http and https."""

import base64
import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import defusedxml.ElementTree
import httpx
import pytest

from tests import clients, corpus, forms, live
from tests.conftest import StartGateway
from tests.e2e import raw
from tests.e2e.conftest import Witness

pytestmark = pytest.mark.e2e

Signer = Callable[..., dict[str, str]]
ORIGIN = "https://app.example"
SIGNERS = pytest.mark.parametrize("sign", [forms.sign, forms.sign_v2], ids=["v4", "v2"])


@pytest.fixture
def browser(front: live.Gateway) -> Iterator[httpx.Client]:
    with httpx.Client(
        trust_env=False, verify=front.verify, base_url=front.endpoint_url, timeout=60
    ) as client:
        yield client


def post(
    gateway: live.Endpoint,
    bucket: str,
    fields: Mapping[str, str],
    *files: bytes,
    headers: Mapping[str, str] | None = None,
    **more: Any,
) -> raw.Answer:
    """A form, its fields in their order, posted without a signature of the request."""
    body = forms.encode(fields.items(), *files, **more)
    head = {
        "Host": gateway.netloc,
        "Content-Type": f"multipart/form-data; boundary={forms.BOUNDARY}",
        "Content-Length": str(len(body)),
    }
    return raw.exchange(
        gateway, raw.Request("POST", f"/{bucket}", head | dict(headers or {}), (body,))
    )


def md5(body: bytes) -> str:
    return f'"{hashlib.md5(body).hexdigest()}"'


@pytest.mark.parametrize("version", [None, "s3v4"])
@pytest.mark.parametrize("size", [0, 1000, 300_000, 9_000_000])
def test_the_form_boto3_signs_stores_its_file_compressed(
    size: int,
    version: str | None,
    front: live.Gateway,
    browser: httpx.Client,
    direct: Any,
    shared: str,
    key: str,
):
    more = {} if version is None else {"signature_version": version}
    with contextlib.closing(clients.boto3_client(front, **more)) as signer:
        signed = signer.generate_presigned_post(
            shared,
            f"{key}/${{filename}}",
            {"Content-Type": "text/plain", "x-amz-meta-owner": "me"},
            [
                ["starts-with", "$Content-Type", "text/"],
                {"x-amz-meta-owner": "me"},
                ["content-length-range", 0, 10_000_000],
            ],
        )
    body = corpus.log(size)
    answer = browser.post(
        signed["url"], data=signed["fields"], files={"file": ("C:\\logs\\a.log", body, "image/png")}
    )
    assert (answer.status_code, answer.content, answer.headers["etag"]) == (204, b"", md5(body))
    stored = f"{key}/a.log"
    assert answer.headers["location"] == f"{front.endpoint_url}{raw.path(shared, stored)}"
    read = raw.ask(front, "GET", raw.path(shared, stored))
    assert (read.status, read.body, read.headers["etag"]) == (200, body, md5(body))
    assert read.headers["content-type"] == "text/plain"
    assert read.headers["x-amz-meta-owner"] == "me"
    if size > 1000:
        assert direct.head_object(Bucket=shared, Key=stored)["ContentLength"] < size / 2
        span = raw.ask(front, "GET", raw.path(shared, stored), {"Range": "bytes=100-199"})
        assert (span.status, span.body) == (206, body[100:200])


class TestSuccess:
    @SIGNERS
    @pytest.mark.parametrize(("asked", "status"), [("200", 200), ("201", 201), ("404", 204)])
    def test_the_status_is_the_one_asked_for(
        self, asked: str, status: int, sign: Signer, front: live.Gateway, shared: str, key: str
    ):
        name = f"{key} & ü"
        form = {"bucket": shared, "key": name, "success_action_status": asked}
        answer = post(front, shared, sign(front, form.items()), b"body")
        assert (answer.status, answer.headers["etag"]) == (status, md5(b"body"))
        assert answer.headers["location"] == f"{front.endpoint_url}{raw.path(shared, name)}"
        if status != 201:
            assert answer.body == b""
            return
        assert answer.headers["content-type"] == "application/xml"
        document = defusedxml.ElementTree.fromstring(answer.body)
        assert (document.tag, {each.tag: each.text for each in document}) == (
            "PostResponse",
            {
                "Location": answer.headers["location"],
                "Bucket": shared,
                "Key": name,
                "ETag": md5(b"body"),
            },
        )

    @pytest.mark.parametrize("name", ["success_action_redirect", "redirect"])
    def test_the_browser_is_sent_on_and_told_what_was_stored(
        self, name: str, gateway: live.Gateway, shared: str, key: str
    ):
        form = {"bucket": shared, "key": key, name: "https://app.example/done?a=b"}
        answer = post(gateway, shared, forms.sign(gateway, form.items()), b"body")
        assert (answer.status, answer.body) == (303, b"")
        url = urlsplit(answer.headers["location"])
        assert (url.netloc, url.path) == ("app.example", "/done")
        assert parse_qsl(url.query) == [
            ("a", "b"),
            ("bucket", shared),
            ("key", key),
            ("etag", md5(b"body")),
        ]

    def test_the_bucket_may_stand_in_the_host(self, start_gateway: StartGateway, bucket: str):
        with start_gateway("--domain", "s3.test") as gateway:
            host = f"{bucket}.s3.test:{gateway.port}"
            form = forms.sign(gateway, {"bucket": bucket, "key": "a b"}.items())
            answer = post(gateway, "", form, b"body", headers={"Host": host})
            assert answer.status == 204
            assert answer.headers["location"] == f"http://{host}/a%20b"
            assert raw.ask(gateway, "GET", raw.path(bucket, "a b")).body == b"body"

    def test_a_page_of_an_allowed_origin_may_read_the_answer(
        self, gateway: live.Gateway, direct: Any, bucket: str
    ):
        rule = {"AllowedMethods": ["POST"], "AllowedOrigins": [ORIGIN], "ExposeHeaders": ["ETag"]}
        direct.put_bucket_cors(Bucket=bucket, CORSConfiguration={"CORSRules": [rule]})
        form = forms.sign(gateway, {"bucket": bucket, "key": "k"}.items())
        allowed = post(gateway, bucket, form, b"body", headers={"Origin": ORIGIN})
        assert allowed.status == 204
        assert allowed.headers["access-control-allow-origin"] == ORIGIN
        other = post(gateway, bucket, form, b"body", headers={"Origin": "https://other.example"})
        assert other.status == 204
        assert "access-control-allow-origin" not in other.headers


def test_what_a_put_takes_in_headers_a_form_takes_in_fields(
    front: live.Gateway, direct: Any, shared: str, key: str
):
    body = corpus.text(20_000, seed=3)
    tags = "<Tagging><TagSet><Tag><Key>team</Key><Value>a&amp;b</Value></Tag></TagSet></Tagging>"
    form = {
        "bucket": shared,
        "key": key,
        "acl": "private",
        "Cache-Control": "no-cache",
        "Content-Disposition": "attachment",
        "Content-Encoding": "x-own",
        "Content-Type": "text/x-log",
        "x-amz-meta-name": "Zürich ${filename}",
        "x-amz-meta-s4-codec": "forged",
        "x-amz-website-redirect-location": "/other",
        "tagging": tags,
        "x-amz-checksum-crc32c": raw.checksum("crc32c", body),
        "Content-MD5": base64.b64encode(hashlib.md5(body).digest()).decode(),
    }
    signed = forms.sign(front, form.items(), ["starts-with", "$x-amz-meta-name", "Zürich "])
    answer = post(front, shared, signed, body, behind=[("x-amz-acl", "public-read-write")])
    assert answer.status == 204, answer
    read = raw.ask(front, "GET", raw.path(shared, key), {"x-amz-checksum-mode": "ENABLED"})
    assert read.body == body
    wanted = {
        "cache-control": "no-cache",
        "content-disposition": "attachment",
        "content-encoding": "x-own",
        "content-type": "text/x-log",
        "x-amz-checksum-crc32c": raw.checksum("crc32c", body),
    }
    assert {name: read.headers.get(name) for name in wanted} == wanted
    name = read.headers["x-amz-meta-name"].encode("latin-1").decode()
    assert name == "Zürich file.bin"
    assert not [header for header in read.headers if header.startswith("x-amz-meta-s4")]
    stored = direct.get_object_tagging(Bucket=shared, Key=key)
    assert stored["TagSet"] == [{"Key": "team", "Value": "a&b"}]
    assert direct.head_object(Bucket=shared, Key=key)["ContentLength"] < len(body)


class TestRefusals:
    """Nothing of what is refused leaves a trace in the store."""

    @SIGNERS
    @pytest.mark.parametrize(
        ("change", "verdict"),
        [
            ({"x-amz-meta-a": "1"}, (403, "AccessDenied")),
            ({"key": "elsewhere"}, (403, "AccessDenied")),
            ({"policy": forms.policy()}, (403, "SignatureDoesNotMatch")),
            ({"policy": "e30="}, (403, "SignatureDoesNotMatch")),
            ({"key": None}, (403, "AccessDenied")),
            ({"policy": None}, (400, "InvalidArgument")),
        ],
    )
    def test_a_form_is_as_it_was_signed(
        self,
        change: dict[str, str | None],
        verdict: tuple[int, str],
        sign: Signer,
        front: live.Gateway,
        witness: Witness,
    ):
        form = sign(front, {"bucket": witness.bucket, "key": witness.key}.items())
        form |= {name: value for name, value in change.items() if value is not None}
        for name in (name for name, value in change.items() if value is None):
            del form[name]
        answer = post(front, witness.bucket, form, b"evil")
        assert answer.verdict == verdict

    @pytest.mark.parametrize(
        ("conditions", "verdict"),
        [
            ([["content-length-range", 0, 3]], (400, "EntityTooLarge")),
            ([["content-length-range", 5, 9]], (400, "EntityTooSmall")),
            ([["content-length-range", 5]], (400, "InvalidPolicyDocument")),
            ([{}], (400, "InvalidPolicyDocument")),
            ([["eq", "$acl", "private"]], (403, "AccessDenied")),
            ([{"bucket": "another"}], (403, "AccessDenied")),
        ],
    )
    @SIGNERS
    def test_a_policy_is_kept(
        self,
        conditions: list[Any],
        verdict: tuple[int, str],
        sign: Signer,
        gateway: live.Gateway,
        witness: Witness,
    ):
        fields = {"bucket": witness.bucket, "key": witness.key}
        form = sign(gateway, fields.items(), *conditions)
        assert post(gateway, witness.bucket, form, b"evil").verdict == verdict

    def test_an_expired_policy_is_refused(self, front: live.Gateway, witness: Witness):
        fields = {"bucket": witness.bucket, "key": witness.key}
        form = forms.sign(front, fields.items(), seconds=-1)
        answer = post(front, witness.bucket, form, b"evil")
        assert answer.verdict == (403, "AccessDenied")
        assert answer.field("Message") == "Invalid according to Policy: Policy expired."

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("Content-MD5", base64.b64encode(bytes(16)).decode()),
            ("x-amz-checksum-sha256", base64.b64encode(bytes(32)).decode()),
            ("x-amz-checksum-sha256", "sailor"),
            ("x-amz-checksum-crc32", raw.checksum("crc32", b"other")),
        ],
    )
    @pytest.mark.parametrize("size", [100, 1_000_000])
    def test_a_checksum_that_does_not_fit_is_refused(
        self, size: int, name: str, value: str, gateway: live.Gateway, witness: Witness
    ):
        fields = {"bucket": witness.bucket, "key": witness.key, name: value}
        form = forms.sign(gateway, fields.items())
        answer = post(gateway, witness.bucket, form, corpus.text(size, seed=1))
        assert answer.verdict == (400, "BadDigest")

    @pytest.mark.parametrize("key", ["a.s4index", ".s4mpu/75/create", ".s4dict/0123456789abcdef"])
    def test_internal_keys_are_refused_even_when_only_the_file_name_makes_them_so(
        self, key: str, gateway: live.Gateway, shared: str
    ):
        folder, _, name = key.rpartition("/")
        prefix = f"{folder}/" if folder else ""
        for fields in (
            {"bucket": shared, "key": key},
            {"bucket": shared, "key": prefix + "${filename}"},
        ):
            form = forms.sign(gateway, fields.items(), ["starts-with", "$key", ""])
            answer = post(gateway, shared, form, b"evil", file_name=name)
            assert answer.verdict == (400, "InvalidObjectName")

    @pytest.mark.parametrize(
        ("key", "verdict"),
        [
            ("k" * 1025, (400, "KeyTooLongError")),
            ("", (400, "InvalidArgument")),
            ("a\0b", (400, "InvalidObjectName")),
        ],
    )
    def test_a_key_that_is_none_is_refused(
        self, key: str, verdict: tuple[int, str], gateway: live.Gateway, shared: str
    ):
        form = forms.sign(gateway, {"bucket": shared, "key": key}.items())
        assert post(gateway, shared, form, b"evil").verdict == verdict

    @pytest.mark.parametrize("files", [(), (b"a", b"b")])
    def test_a_form_has_one_file(
        self, files: tuple[bytes, ...], gateway: live.Gateway, witness: Witness
    ):
        form = forms.sign(gateway, {"bucket": witness.bucket, "key": witness.key}.items())
        answer = post(gateway, witness.bucket, form, *files)
        assert answer.verdict == (400, "IncorrectNumberOfFilesInPostRequest")

    @pytest.mark.parametrize("size", [100, 3_000_000])
    def test_a_form_that_breaks_off_stores_nothing(
        self, size: int, front: live.Gateway, witness: Witness
    ):
        form = forms.sign(front, {"bucket": witness.bucket, "key": witness.key}.items())
        body = forms.encode(form.items(), corpus.text(size, seed=2))
        head = {
            "Host": front.netloc,
            "Content-Type": f"multipart/form-data; boundary={forms.BOUNDARY}",
            "Content-Length": str(len(body)),
        }
        whole = raw.Request("POST", f"/{witness.bucket}", head)
        with raw.Connection(front) as connection:
            connection.send(whole.head + body[:-20])
        cut = whole.with_headers(**{"Content-Length": str(len(body) - 20)})
        answer = raw.exchange(front, raw.Request("POST", cut.target, cut.headers, (body[:-20],)))
        assert answer.verdict == (400, "MalformedPOSTRequest")

    def test_what_is_no_form_is_refused(self, gateway: live.Gateway, shared: str):
        head = {"Host": gateway.netloc, "Content-Length": "3"}
        for kind, status in (("text/plain", 403), ("multipart/form-data", 400)):
            headers = head | {"Content-Type": kind}
            answer = raw.exchange(gateway, raw.Request("POST", f"/{shared}", headers, (b"a=b",)))
            assert answer.status == status


class TestWhoMay:
    def test_a_form_without_a_policy_is_anonymous(self, front: live.Gateway, witness: Witness):
        form = {"key": witness.key, "acl": "public-read"}
        assert post(front, witness.bucket, form, b"evil").verdict == (403, "AccessDenied")

    def test_no_other_anonymous_post_slips_in_as_a_form(
        self, gateway: live.Gateway, witness: Witness
    ):
        body = forms.encode([("key", witness.key)], b"evil")
        head = {
            "Host": gateway.netloc,
            "Content-Type": f"multipart/form-data; boundary={forms.BOUNDARY}",
            "Content-Length": str(len(body)),
        }
        route = {"x-amz-request-route": "a", "x-amz-request-token": "b"}
        for target, more in (
            (f"/{witness.bucket}?delete", {}),
            (f"/{witness.bucket}", route),
            (f"/{witness.bucket}?x-id=PostObject", {}),
            (f"{witness.target}?uploads", {}),
            (witness.target, {}),
        ):
            answer = raw.exchange(gateway, raw.Request("POST", target, head | more, (body,)))
            assert answer.verdict == (403, "AccessDenied"), target

    def test_a_signed_request_may_carry_an_unsigned_form_and_no_second_signature(
        self, gateway: live.Gateway, shared: str, key: str
    ):
        kind = {"Content-Type": f"multipart/form-data; boundary={forms.BOUNDARY}"}
        fields = {"bucket": shared, "key": key}
        plain = forms.encode(fields.items(), b"body")
        assert raw.ask(gateway, "POST", f"/{shared}", kind, plain).status == 204
        assert raw.ask(gateway, "GET", raw.path(shared, key)).body == b"body"
        signed = forms.encode(forms.sign(gateway, fields.items()).items(), b"evil")
        answer = raw.ask(gateway, "POST", f"/{shared}", kind, signed)
        assert answer.verdict == (400, "InvalidArgument")

    def test_the_limits_of_a_key_hold_for_the_forms_it_signs(
        self, start_gateway: StartGateway, tmp_path: Path, bucket: str
    ):
        keys = tmp_path / "keys.toml"
        keys.write_text(
            f'anonymous-read-buckets = ["{bucket}"]\n'
            f'[keys.SCOPED]\nsecret = "correct horse"\nbuckets = ["{bucket}/mine/"]\n'
            '[keys.READER]\nsecret = "battery staple"\nread-only = true\n'
        )
        keys.chmod(0o600)
        with start_gateway("--credentials", str(keys)) as gateway:
            url = gateway.endpoint_url
            scoped = live.Endpoint(url, "SCOPED", "correct horse")
            reader = live.Endpoint(url, "READER", "battery staple")
            mine, yours = ({"bucket": bucket, "key": f"{who}/a"} for who in ("mine", "yours"))
            for signer, form, status in (
                (scoped, mine, 204),
                (scoped, yours, 403),
                (reader, mine, 403),
            ):
                signed = forms.sign(signer, form.items())
                assert post(gateway, bucket, signed, b"body").status == status
            # A bucket that everybody may read is not one that everybody may write.
            assert post(gateway, bucket, {"key": "mine/b"}, b"evil").status == 403
            assert "caller=SCOPED" in gateway.read_log()

    def test_version_2_is_refused_where_the_operator_does_not_want_it(
        self, start_gateway: StartGateway, bucket: str
    ):
        with start_gateway("--no-allow-sigv2-presigned") as gateway:
            fields = {"bucket": bucket, "key": "k"}
            old = forms.sign_v2(gateway, fields.items())
            assert post(gateway, bucket, old, b"evil").verdict == (400, "InvalidRequest")
            assert post(gateway, bucket, forms.sign(gateway, fields.items()), b"x").status == 204

    def test_the_backend_decides_about_anonymous_forms_when_it_is_asked_to(
        self, start_gateway: StartGateway, tmp_path: Path
    ):
        pair = {"accessKey": "OWNER", "secretKey": "correct horse"}
        everything = ["Admin", "Read", "Write", "List"]
        owner = {"name": "owner", "credentials": [pair], "actions": everything}
        anybody = {"name": "anonymous", "actions": ["Write:open"]}
        (tmp_path / "s3.json").write_text(json.dumps({"identities": [owner, anybody]}))
        body = corpus.text(50_000, seed=4)
        with live.seaweedfs(tmp_path) as backend:
            with contextlib.closing(clients.boto3_client(backend)) as direct:
                for bucket in ("open", "shut"):
                    direct.create_bucket(Bucket=bucket)
            with start_gateway("--anonymous", "backend", backend=backend) as gateway:
                assert post(gateway, "open", {"key": "a"}, body).status == 204
                assert post(gateway, "shut", {"key": "a"}, body).verdict == (403, "AccessDenied")
                assert raw.ask(gateway, "GET", raw.path("open", "a")).body == body
                assert raw.ask(gateway, "HEAD", raw.path("shut", "a")).status == 404
