"""Where keys come from, and never being without: endpoints on loopback, files in tmp_path."""

import asyncio
import json
import logging
import traceback
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qs

import pytest

from s4gateway.backend import base, credentials
from s4gateway.s3 import sigv4
from tests import rude_server
from tests.rude_server import Exchange

NOW = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


def keys(number: int) -> sigv4.Credentials:
    return sigv4.Credentials(f"KEY{number}", "secret", "token")


class Counted:
    """A source that gives KEY1, KEY2, ... for `life`, or fails while `broken`."""

    name = "counted"

    def __init__(self, life: timedelta | None = HOUR) -> None:
        self.life = life
        self.loads = 0
        self.broken = False
        self.gate = asyncio.Event()
        self.gate.set()

    async def load(self, now: datetime) -> credentials.Lease | None:
        self.loads += 1
        await self.gate.wait()
        if self.broken:
            raise base.BackendUnavailable("counted does not answer", unsent=True)
        return credentials.Lease(keys(self.loads), None if self.life is None else now + self.life)


class Absent:
    name = "absent"

    async def load(self, now: datetime) -> credentials.Lease | None:
        return None


def refreshing(source: credentials.Source, jitter: float = 0.0) -> credentials.Refreshing:
    return credentials.Refreshing([source], jitter=lambda: jitter)


class TestRefreshing:
    async def test_keys_are_fetched_once_and_kept(self):
        source = Counted()
        provider = refreshing(source)
        for minutes in (0, 1, 44):
            assert await provider.get(NOW + timedelta(minutes=minutes)) == keys(1)
        assert source.loads == 1

    async def test_keys_are_replaced_before_they_end(self):
        provider = refreshing(Counted())
        await provider.get(NOW)
        assert await provider.get(NOW + timedelta(minutes=45)) == keys(2)

    async def test_jitter_spreads_the_moment_over_half_the_window(self):
        for jitter, first in ((0.0, 45.0), (0.5, 48.75), (0.999, 52.4925)):
            provider = refreshing(Counted(), jitter)
            await provider.get(NOW)
            assert await provider.get(NOW + timedelta(minutes=first - 0.01)) == keys(1)
            assert await provider.get(NOW + timedelta(minutes=first + 0.01)) == keys(2)

    async def test_keys_of_one_minute_are_replaced_every_half_minute(self):
        source = Counted(timedelta(minutes=1))
        provider = refreshing(source)
        for second in range(600):
            moment = NOW + timedelta(seconds=second)
            assert await provider.get(moment) == keys(source.loads)
        assert source.loads == 20

    async def test_keys_without_end_stay(self):
        source = Counted(None)
        provider = refreshing(source)
        await provider.get(NOW)
        assert await provider.get(NOW + timedelta(days=999)) == keys(1)

    async def test_many_callers_make_one_fetch(self):
        source = Counted()
        source.gate.clear()
        provider = refreshing(source)
        waiting = [asyncio.ensure_future(provider.get(NOW)) for _ in range(50)]
        await asyncio.sleep(0)
        source.gate.set()
        assert await asyncio.gather(*waiting) == [keys(1)] * 50
        assert source.loads == 1

    async def test_nobody_waits_for_a_refresh_while_the_keys_still_work(self):
        source = Counted()
        provider = refreshing(source)
        await provider.get(NOW)
        source.gate.clear()
        later = NOW + timedelta(minutes=50)
        refresher = asyncio.ensure_future(provider.get(later))
        await asyncio.sleep(0)
        assert await provider.get(later) == keys(1)
        source.gate.set()
        assert await refresher == keys(2)
        assert await provider.get(later) == keys(2)

    async def test_a_cancelled_fetch_is_taken_over_by_the_next_caller(self):
        source = Counted()
        source.gate.clear()
        provider = refreshing(source)
        first, second = (asyncio.ensure_future(provider.get(NOW)) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        source.gate.set()
        assert await second == keys(2)

    async def test_a_failed_refresh_is_no_harm_until_the_end(
        self, caplog: pytest.LogCaptureFixture
    ):
        source = Counted()
        provider = refreshing(source)
        await provider.get(NOW)
        source.broken = True
        with caplog.at_level(logging.WARNING):
            for second in range(0, 900, 1):
                assert await provider.get(NOW + timedelta(minutes=45, seconds=second)) == keys(1)
        assert "not refreshed" in caplog.text
        assert "secret" not in caplog.text
        assert source.loads <= 1 + 90
        with pytest.raises(base.BackendUnavailable):
            await provider.get(NOW + HOUR)
        source.broken = False
        assert await provider.get(NOW + HOUR + timedelta(seconds=5)) == keys(source.loads)

    async def test_callers_that_queued_share_the_failure(self):
        source = Counted()
        source.broken = True
        provider = refreshing(source)
        results = await asyncio.gather(
            *[provider.get(NOW) for _ in range(50)], return_exceptions=True
        )
        assert all(isinstance(result, base.BackendUnavailable) for result in results)
        assert source.loads == 1

    async def test_keys_that_have_already_ended_are_no_keys(self):
        with pytest.raises(base.BackendUnavailable, match="expired"):
            await refreshing(Counted(timedelta(0))).get(NOW)

    async def test_the_first_source_that_is_set_up_is_used(self):
        source = Counted()
        provider = credentials.Refreshing([Absent(), source, Counted()])
        assert await provider.get(NOW) == keys(1)

    async def test_no_source_is_told_by_name(self):
        with pytest.raises(base.BackendUnavailable, match="looked in: absent") as caught:
            await credentials.Refreshing([Absent()]).get(NOW)
        assert not caught.value.retryable


async def chain(environ: dict[str, str], home: Path) -> sigv4.Credentials:
    disabled = {"AWS_EC2_METADATA_DISABLED": "true"}
    return await credentials.default_chain(disabled | environ, home).get(NOW)


class TestEnvironment:
    async def test_variables_come_first(self, tmp_path: Path):
        environ = {"AWS_ACCESS_KEY_ID": "A", "AWS_SECRET_ACCESS_KEY": "S"}
        assert await chain(environ, tmp_path) == sigv4.Credentials("A", "S")
        environ["AWS_SESSION_TOKEN"] = "T"
        assert await chain(environ, tmp_path) == sigv4.Credentials("A", "S", "T")

    async def test_half_a_pair_is_none(self, tmp_path: Path):
        with pytest.raises(base.BackendUnavailable, match="environment, shared files"):
            await chain({"AWS_ACCESS_KEY_ID": "A", "AWS_SECRET_ACCESS_KEY": ""}, tmp_path)


class TestSharedFiles:
    @pytest.fixture
    def home(self, tmp_path: Path) -> Path:
        (tmp_path / ".aws").mkdir()
        (tmp_path / ".aws/credentials").write_text(
            "[default]\naws_access_key_id = D\naws_secret_access_key = d%d\n"
            "[work]\naws_access_key_id=W\naws_secret_access_key=w\naws_session_token=t\n"
        )
        (tmp_path / ".aws/config").write_text(
            "[default]\nregion = eu-west-1\n"
            "[profile other]\naws_access_key_id = O\naws_secret_access_key = o\n"
        )
        return tmp_path

    async def test_a_profile_is_in_either_file(self, home: Path):
        assert await chain({}, home) == sigv4.Credentials("D", "d%d")
        assert await chain({"AWS_PROFILE": "work"}, home) == sigv4.Credentials("W", "w", "t")
        assert await chain({"AWS_PROFILE": "other"}, home) == sigv4.Credentials("O", "o")

    async def test_the_environment_names_other_files(self, home: Path, tmp_path: Path):
        elsewhere = tmp_path / "elsewhere"
        elsewhere.write_text("[default]\naws_access_key_id = E\naws_secret_access_key = e\n")
        environ = {"AWS_SHARED_CREDENTIALS_FILE": str(elsewhere)}
        assert await chain(environ, home) == sigv4.Credentials("E", "e")
        assert await chain({"AWS_CONFIG_FILE": str(elsewhere)}, tmp_path / "nobody") == (
            sigv4.Credentials("E", "e")
        )

    async def test_a_named_profile_that_is_nowhere_is_an_error(self, home: Path):
        with pytest.raises(base.BackendUnavailable, match="'typo'"):
            await chain({"AWS_PROFILE": "typo"}, home)

    @pytest.mark.parametrize(
        "content",
        [
            b"no section\n",
            b"[default\n",
            b"\xff\xfe\x00",
            b"aws_secret_access_key = SECRET\n",
            b"[default]\naws_access_key_id = A\naws_secret_access_key SECRET\n",
            b"[default]\naws_access_key_id = A\naws_secret_access_key =\nSECRET\n",
        ],
    )
    async def test_a_broken_file_is_an_error_that_quotes_nothing(self, home: Path, content: bytes):
        (home / ".aws/credentials").write_bytes(content)
        with pytest.raises(base.BackendUnavailable, match="cannot be read") as caught:
            await chain({}, home)
        assert "SECRET" not in "".join(traceback.format_exception(caught.value))

    async def test_the_two_files_are_not_mixed(self, home: Path):
        (home / ".aws/config").write_text(
            "[default]\naws_access_key_id = T\naws_secret_access_key = t\n"
            "aws_session_token = STALE\n"
        )
        assert await chain({}, home) == sigv4.Credentials("D", "d%d")

    @pytest.mark.parametrize("way", ["role_arn", "credential_process", "sso_session"])
    async def test_no_other_identity_stands_in_for_a_profile(self, home: Path, way: str):
        (home / ".aws/config").write_text(f"[profile role]\n{way} = something\n")
        with pytest.raises(base.BackendUnavailable, match=f"'role': {way} is not supported"):
            await chain({"AWS_PROFILE": "role"}, home)

    async def test_keys_that_are_empty_are_none(self, home: Path):
        (home / ".aws/credentials").write_text(
            "[default]\naws_access_key_id =\naws_secret_access_key =\n"
        )
        with pytest.raises(base.BackendUnavailable, match="no credentials"):
            await chain({}, home)

    async def test_a_rotated_file_is_read_again(self, home: Path):
        provider = credentials.Refreshing([credentials.SharedFiles({}, home)])
        assert (await provider.get(NOW)).access_key == "D"
        path = home / ".aws/credentials"
        path.write_text(path.read_text().replace("= D", "= D2"))
        assert (await provider.get(NOW + timedelta(seconds=59))).access_key == "D"
        assert (await provider.get(NOW + timedelta(seconds=60))).access_key == "D2"
        path.unlink()
        assert (await provider.get(NOW + timedelta(seconds=120))).access_key == "D2"


def document(number: int = 1, expires: str = "2026-01-01T01:00:00Z") -> bytes:
    values = {"AccessKeyId": f"KEY{number}", "SecretAccessKey": "secret", "Token": "token"}
    return json.dumps(values | {"Expiration": expires, "Code": "Success"}).encode()


def says(*bodies: bytes, status: int = 200) -> Callable[[Exchange], "asyncio.Future[None]"]:
    async def script(exchange: Exchange) -> None:
        await exchange.answer(status, bodies[min(exchange.number, len(bodies)) - 1])

    return script  # type: ignore[return-value]


UNUSABLE = [
    b"",
    b"[]",
    b"not json",
    b"{}",
    b'{"AccessKeyId": "A"}',
    b'{"AccessKeyId": "A", "SecretAccessKey": "S", "Expiration": "soon"}',
    b'{"AccessKeyId": "A", "SecretAccessKey": "S", "Expiration": 5}',
]


class TestWebIdentity:
    RESULT = (
        '<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">'
        "<AssumeRoleWithWebIdentityResult><SubjectFromWebIdentityToken>x"
        "</SubjectFromWebIdentityToken><Credentials><SessionToken>token</SessionToken>"
        "<SecretAccessKey>secret</SecretAccessKey><Expiration>{expires}</Expiration>"
        "<AccessKeyId>KEY{number}</AccessKeyId></Credentials></AssumeRoleWithWebIdentityResult>"
        "</AssumeRoleWithWebIdentityResponse>"
    )

    def environ(self, url: str, token: Path) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL_STS": url,
            "AWS_ROLE_ARN": "arn:aws:iam::1:role/r",
            "AWS_WEB_IDENTITY_TOKEN_FILE": str(token),
        }

    async def test_the_token_is_read_anew_for_every_lease(self, tmp_path: Path):
        token = tmp_path / "token"

        async def script(exchange: Exchange) -> None:
            expires = (NOW + timedelta(minutes=exchange.number)).strftime("%Y-%m-%dT%H:%M:%SZ")
            body = self.RESULT.format(number=exchange.number, expires=expires)
            await exchange.answer(200, body.encode())

        async with rude_server.serve(script) as server:
            source = credentials.WebIdentity(self.environ(server.url, token))
            provider = refreshing(source)
            token.write_text("first\n")
            assert await provider.get(NOW) == keys(1)
            token.write_text("second")
            assert await provider.get(NOW + timedelta(seconds=31)) == keys(2)
        first, second = [parse_qs(request.body.decode()) for request in server.requests]
        assert first == {
            "Action": ["AssumeRoleWithWebIdentity"],
            "Version": ["2011-06-15"],
            "RoleArn": ["arn:aws:iam::1:role/r"],
            "RoleSessionName": ["s4gateway"],
            "WebIdentityToken": ["first"],
        }
        assert second["WebIdentityToken"] == ["second"]

    @pytest.mark.parametrize("body", [b"", b"<x/>", b"<!DOCTYPE x><x/>", b"{}"])
    async def test_an_answer_without_keys_is_an_error(self, tmp_path: Path, body: bytes):
        (tmp_path / "token").write_text("t")
        async with rude_server.serve(says(body)) as server:
            with pytest.raises(base.BackendUnavailable, match="web identity"):
                await chain(self.environ(server.url, tmp_path / "token"), tmp_path)

    async def test_a_missing_token_is_an_error(self, tmp_path: Path):
        with pytest.raises(base.BackendUnavailable, match="cannot be read"):
            await chain(self.environ("http://127.0.0.1:9", tmp_path / "token"), tmp_path)

    @pytest.mark.parametrize(
        ("environ", "url"),
        [
            ({}, "https://sts.amazonaws.com/"),
            ({"AWS_REGION": "eu-west-1"}, "https://sts.eu-west-1.amazonaws.com/"),
            ({"AWS_DEFAULT_REGION": "eu-west-2"}, "https://sts.eu-west-2.amazonaws.com/"),
        ],
    )
    def test_the_regional_endpoint_is_asked(self, environ: dict[str, str], url: str):
        assert credentials.WebIdentity(environ)._endpoint() == url


class TestContainer:
    async def test_the_endpoint_is_asked_with_its_token(self, tmp_path: Path):
        token = tmp_path / "token"
        async with rude_server.serve(says(document())) as server:
            environ = {
                "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{server.url}/v1/credentials?id=1",
                "AWS_CONTAINER_AUTHORIZATION_TOKEN": "from-environment",
            }
            assert await chain(environ, tmp_path) == keys(1)
            token.write_text("from-file\n")
            environ["AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"] = str(token)
            assert await chain(environ, tmp_path) == keys(1)
        assert [request.headers["authorization"] for request in server.requests] == [
            "from-environment",
            "from-file",
        ]
        assert server.requests[0].target == b"/v1/credentials?id=1"

    async def test_keys_are_not_fetched_over_an_open_network(self, tmp_path: Path):
        environ = {"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://example.com/keys"}
        with pytest.raises(base.BackendUnavailable, match=r"example\.com"):
            await chain(environ, tmp_path)

    @pytest.mark.parametrize("body", UNUSABLE)
    async def test_an_answer_without_keys_is_an_error(self, tmp_path: Path, body: bytes):
        async with rude_server.serve(says(body)) as server:
            environ = {"AWS_CONTAINER_CREDENTIALS_FULL_URI": server.url}
            with pytest.raises(base.BackendUnavailable, match="without usable credentials"):
                await chain(environ, tmp_path)

    async def test_a_refusal_is_an_error_without_its_body(self, tmp_path: Path):
        async with rude_server.serve(says(b"secret words", status=403)) as server:
            environ = {"AWS_CONTAINER_CREDENTIALS_FULL_URI": server.url}
            with pytest.raises(base.BackendUnavailable, match=r"answered 403$"):
                await chain(environ, tmp_path)

    @pytest.mark.parametrize("token", ["SECRET\n", "SECRET\u2026"])
    async def test_a_token_that_is_no_header_is_not_quoted(self, tmp_path: Path, token: str):
        async with rude_server.serve(says(document())) as server:
            environ = {
                "AWS_CONTAINER_CREDENTIALS_FULL_URI": server.url,
                "AWS_CONTAINER_AUTHORIZATION_TOKEN": token,
            }
            with pytest.raises(base.BackendUnavailable, match="is its token sound") as caught:
                await chain(environ, tmp_path)
        assert "SECRET" not in str(caught.value)

    async def test_a_dead_endpoint_is_an_error_that_may_pass(self, tmp_path: Path):
        async with rude_server.serve(says(b"")) as server:
            pass
        environ = {"AWS_CONTAINER_CREDENTIALS_FULL_URI": server.url}
        with pytest.raises(base.BackendUnavailable, match="does not answer") as caught:
            await chain(environ, tmp_path)
        assert caught.value.retryable


class TestInstanceMetadata:
    @staticmethod
    async def script(exchange: Exchange) -> None:
        request = exchange.request
        match request.method, request.target:
            case "PUT", b"/latest/api/token":
                assert request.headers["x-aws-ec2-metadata-token-ttl-seconds"] == "21600"
                await exchange.answer(200, b"session")
            case "GET", b"/latest/meta-data/iam/security-credentials/":
                assert request.headers["x-aws-ec2-metadata-token"] == "session"
                await exchange.answer(200, b"the-role\n")
            case "GET", b"/latest/meta-data/iam/security-credentials/the-role":
                assert request.headers["x-aws-ec2-metadata-token"] == "session"
                await exchange.answer(200, document())
            case _:
                await exchange.answer(404)

    async def test_the_role_of_the_instance_is_found(self, tmp_path: Path):
        async with rude_server.serve(self.script) as server:
            environ = {
                "AWS_EC2_METADATA_SERVICE_ENDPOINT": server.url + "/",
                "AWS_EC2_METADATA_DISABLED": "false",
            }
            assert await chain(environ, tmp_path) == keys(1)
        assert len(server.requests) == 3

    async def test_where_there_is_no_such_service_there_is_no_such_source(self):
        async with rude_server.serve(self.script) as server:
            pass
        environ = {"AWS_EC2_METADATA_SERVICE_ENDPOINT": server.url}
        assert await credentials.InstanceMetadata(environ).load(NOW) is None

    async def test_an_instance_without_role_is_an_error(self):
        async def script(exchange: Exchange) -> None:
            await exchange.answer(200 if exchange.request.method == "PUT" else 404)

        async with rude_server.serve(script) as server:
            environ = {"AWS_EC2_METADATA_SERVICE_ENDPOINT": server.url}
            with pytest.raises(base.BackendUnavailable, match="instance metadata answered 404"):
                await credentials.InstanceMetadata(environ).load(NOW)


async def test_static_keys_stay():
    assert await credentials.Static(keys(1)).get(NOW) == keys(1)
    assert await credentials.Static(None).get(NOW) is None


def test_no_secret_is_in_a_repr():
    environ = {"AWS_SECRET_ACCESS_KEY": "secret", "AWS_SESSION_TOKEN": "token"}
    for value in (
        credentials.Lease(keys(1), NOW),
        credentials.Static(keys(1)),
        credentials.Environment(environ),
        credentials.SharedFiles(environ, Path("/nowhere")),
        credentials.Container(environ),
    ):
        assert "secret" not in repr(value)
        assert "token" not in repr(value)
