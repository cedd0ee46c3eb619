"""The gateway's own keys: where they come from, and having the next ones before these expire.

The sources and their order are those of the AWS SDKs: environment, shared files, web identity
(IRSA), container endpoint (ECS, EKS Pod Identity), EC2 instance metadata (IMDSv2). Temporary
keys are replaced well before their end, at a moment that differs between processes; one request
fetches, the others go on with the keys that still work, and a fetch that fails is no harm until
the keys have really expired.
https://docs.aws.amazon.com/sdkref/latest/guide/standardized-credentials.html
"""

import asyncio
import configparser
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import httpx

from s4gateway.backend import base
from s4gateway.s3 import errors, xml
from s4gateway.s3.sigv4 import Credentials

_LOG = logging.getLogger(__name__)

_REFRESH_WINDOW = timedelta(minutes=15)  # AWS SDKs begin to refresh this long before the end
_FILE_LIFE = timedelta(minutes=1)  # a shared file is read again after this; tools rotate it
_RETRY_AFTER_FAILURE = timedelta(seconds=10)
_FAILURE_LIFE = timedelta(seconds=2)  # callers that queued behind a failed fetch share its failure
_TIMEOUT = 5.0  # seconds for one request to a credential endpoint
_IMDS_TIMEOUT = 1.0  # outside EC2 the address swallows packets
_IMDS = "http://169.254.169.254"
_ECS = "http://169.254.170.2"
# What else a profile may get its keys by, and none of which is done here.
_OTHER_WAYS = frozenset({"credential_process", "role_arn", "sso_session", "sso_start_url"})
_TRUSTED_PLAIN_HOSTS = frozenset(
    {"127.0.0.1", "localhost", "::1", "169.254.170.2", "169.254.170.23", "fd00:ec2::23"}
)


class Provider(Protocol):
    """Gives the credentials to sign with at a moment."""

    async def get(self, now: datetime) -> Credentials | None:
        """Return credentials valid at `now`; None means: do not sign.

        Raises BackendUnavailable when there are none.
        """
        ...


@dataclass(frozen=True, slots=True)
class Static:
    """Credentials that never change."""

    credentials: Credentials | None

    async def get(self, now: datetime) -> Credentials | None:
        """Return them."""
        return self.credentials


@dataclass(frozen=True, slots=True)
class Lease:
    """Credentials and when they end; None: they do not."""

    credentials: Credentials
    expires: datetime | None = None
    reread: datetime | None = None  # when to ask the source again although nothing has expired


class Source(Protocol):
    """A place credentials come from."""

    @property
    def name(self) -> str:
        """What messages call it."""
        ...

    async def load(self, now: datetime) -> Lease | None:
        """Return a lease; None when this source is not set up here.

        Raises BackendUnavailable when it is set up and does not answer.
        """
        ...


class Refreshing:
    """A provider over sources: the first one that is set up is used from then on.

    `jitter` draws from [0, 1) and spreads refreshes over the window before the end.
    """

    def __init__(
        self, sources: Sequence[Source], jitter: Callable[[], float] = random.random
    ) -> None:
        self._sources = tuple(sources)
        self._jitter = jitter
        self._lock = asyncio.Lock()
        self._lease: Lease | None = None
        self._refresh_at: datetime | None = None
        self._failure = ""
        self._failed_until = datetime.min.replace(tzinfo=UTC)

    async def get(self, now: datetime) -> Credentials:
        """Return credentials valid at `now`, fetching them when they are about to end."""
        lease = self._lease
        if lease is not None:
            if self._refresh_at is None or now < self._refresh_at:
                return lease.credentials
            if self._lock.locked() and _is_valid(lease, now):
                return lease.credentials
        async with self._lock:
            return await self._refresh(now)

    async def _refresh(self, now: datetime) -> Credentials:
        lease = self._lease
        if lease is not None and (self._refresh_at is None or now < self._refresh_at):
            return lease.credentials
        if now < self._failed_until:
            raise base.BackendUnavailable(self._failure, unsent=True)
        try:
            fresh = await self._load(now)
        except base.BackendUnavailable as error:
            if lease is None or not _is_valid(lease, now):
                self._failure, self._failed_until = str(error), now + _FAILURE_LIFE
                raise
            _LOG.warning("credentials not refreshed, the present ones go on", exc_info=True)
            self._refresh_at = now + _RETRY_AFTER_FAILURE
            return lease.credentials
        self._lease = fresh
        self._refresh_at = self._due(fresh, now)
        return fresh.credentials

    async def _load(self, now: datetime) -> Lease:
        for source in self._sources:
            lease = await source.load(now)
            if lease is not None:
                if not _is_valid(lease, now):
                    msg = f"credentials from {source.name} have expired"
                    raise base.BackendUnavailable(msg, unsent=True)
                self._sources = (source,)
                return lease
        names = ", ".join(source.name for source in self._sources)
        msg = f"no credentials for the store; looked in: {names}"
        raise base.BackendUnavailable(msg, retryable=False, unsent=True)

    def _due(self, lease: Lease, now: datetime) -> datetime | None:
        if lease.expires is None:
            return lease.reread
        # Short leases keep most of their life; the jitter spreads a fleet over half the window.
        window = min(_REFRESH_WINDOW, (lease.expires - now) / 2)
        due = lease.expires - window * (1 - self._jitter() / 2)
        return due if lease.reread is None else min(due, lease.reread)


def _is_valid(lease: Lease, now: datetime) -> bool:
    return lease.expires is None or now < lease.expires


@dataclass(frozen=True, slots=True)
class Environment:
    """AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN."""

    environ: Mapping[str, str] = field(repr=False)
    name: str = "environment"

    async def load(self, now: datetime) -> Lease | None:
        """Read the variables."""
        access_key = self.environ.get("AWS_ACCESS_KEY_ID")
        secret = self.environ.get("AWS_SECRET_ACCESS_KEY")
        if not access_key or not secret:
            return None
        token = self.environ.get("AWS_SESSION_TOKEN") or None
        return Lease(Credentials(access_key, secret, token))


@dataclass(frozen=True, slots=True)
class SharedFiles:
    """The profile of ~/.aws/credentials and ~/.aws/config, or the files the environment names."""

    environ: Mapping[str, str] = field(repr=False)
    home: Path
    name: str = "shared files"

    async def load(self, now: datetime) -> Lease | None:
        """Read the profile's keys; a profile that is named but absent is an error."""
        profile = self.environ.get("AWS_PROFILE") or "default"
        section = self._section(profile)
        if not (section.get("aws_access_key_id") and section.get("aws_secret_access_key")):
            msg = ""
            if "AWS_PROFILE" in self.environ and not section:
                msg = f"profile {profile!r} is in no shared credentials file"
            elif unknown := sorted(_OTHER_WAYS & section.keys()):
                # Another identity must not stand in for the one that was asked for.
                msg = f"profile {profile!r}: {unknown[0]} is not supported, give it keys"
            if msg:
                raise base.BackendUnavailable(msg, retryable=False, unsent=True)
            return None
        credentials = Credentials(
            section["aws_access_key_id"],
            section["aws_secret_access_key"],
            section.get("aws_session_token") or None,
        )
        return Lease(credentials, reread=now + _FILE_LIFE)

    def _section(self, profile: str) -> dict[str, str]:
        keys = self.environ.get("AWS_SHARED_CREDENTIALS_FILE") or self.home / ".aws/credentials"
        config = self.environ.get("AWS_CONFIG_FILE") or self.home / ".aws/config"
        named = profile if profile == "default" else f"profile {profile}"
        own = _ini_section(Path(keys), profile)
        # Keys and token are one set: a token beside other keys would spoil them.
        return own if own.get("aws_access_key_id") else _ini_section(Path(config), named) | own


def _ini_section(path: Path, name: str) -> dict[str, str]:
    parser = configparser.RawConfigParser(strict=False)
    try:
        parser.read_string(path.expanduser().read_text("utf-8"), source=str(path))
    except FileNotFoundError:
        return {}
    except OSError as error:
        problem = error.strerror or "unreadable"
    except UnicodeDecodeError:
        problem = "not UTF-8"
    except configparser.Error as error:  # its text quotes the line, which may be a secret
        lines = [getattr(error, "lineno", None), *(at for at, _ in getattr(error, "errors", ()))]
        known = [str(line) for line in lines if line]
        problem = f"not an INI file{f', line {known[0]}' if known else ''}"
    else:
        return dict(parser[name]) if parser.has_section(name) else {}
    msg = f"credentials file {path} cannot be read: {problem}"
    raise base.BackendUnavailable(msg, retryable=False, unsent=True)


@dataclass(frozen=True, slots=True)
class WebIdentity:
    """STS AssumeRoleWithWebIdentity with the token file of a Kubernetes service account (IRSA).

    https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html
    """

    environ: Mapping[str, str] = field(repr=False)
    name: str = "web identity"

    async def load(self, now: datetime) -> Lease | None:
        """Exchange the token, read anew each time, for keys of the role."""
        token_file = self.environ.get("AWS_WEB_IDENTITY_TOKEN_FILE")
        role = self.environ.get("AWS_ROLE_ARN")
        if not token_file or not role:
            return None
        form = {
            "Action": "AssumeRoleWithWebIdentity",
            "Version": "2011-06-15",
            "RoleArn": role,
            "RoleSessionName": self.environ.get("AWS_ROLE_SESSION_NAME") or "s4gateway",
            "WebIdentityToken": _read_token(token_file),
        }
        answer = await _request("POST", self._endpoint(), self.name, data=form)
        try:
            root = xml.parse(answer.content)
        except errors.S3Error as error:
            raise _malformed(self.name) from error
        result = root.find("AssumeRoleWithWebIdentityResult") or root
        keys = result.find("Credentials") or result
        values = {each.tag: each.text for each in keys.children}
        return _lease(self.name, values, token="SessionToken")  # noqa: S106 - a field name

    def _endpoint(self) -> str:
        explicit = self.environ.get("AWS_ENDPOINT_URL_STS")
        if explicit:
            return explicit
        region = self.environ.get("AWS_REGION") or self.environ.get("AWS_DEFAULT_REGION")
        return f"https://sts.{region}.amazonaws.com/" if region else "https://sts.amazonaws.com/"


@dataclass(frozen=True, slots=True)
class Container:
    """The credential endpoint of ECS tasks and EKS Pod Identity.

    https://docs.aws.amazon.com/sdkref/latest/guide/feature-container-credentials.html
    """

    environ: Mapping[str, str] = field(repr=False)
    name: str = "container endpoint"

    async def load(self, now: datetime) -> Lease | None:
        """Ask the endpoint the environment names; plain HTTP only where it cannot be overheard."""
        relative = self.environ.get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")
        full = self.environ.get("AWS_CONTAINER_CREDENTIALS_FULL_URI")
        url = _ECS + relative if relative else full
        if not url:
            return None
        parts = urlsplit(url)
        if parts.scheme != "https" and parts.hostname not in _TRUSTED_PLAIN_HOSTS:
            msg = f"AWS_CONTAINER_CREDENTIALS_FULL_URI is neither https nor local: {parts.hostname}"
            raise base.BackendUnavailable(msg, retryable=False, unsent=True)
        token_file = self.environ.get("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE")
        token = (
            _read_token(token_file)
            if token_file
            else self.environ.get("AWS_CONTAINER_AUTHORIZATION_TOKEN")
        )
        headers = {"authorization": token} if token else {}
        answer = await _request("GET", url, self.name, headers=headers)
        return _lease(self.name, _json(answer, self.name))


@dataclass(frozen=True, slots=True)
class InstanceMetadata:
    """The role of an EC2 instance, by IMDSv2 only.

    https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instance-metadata-security-credentials.html
    """

    environ: Mapping[str, str] = field(repr=False)
    name: str = "instance metadata"
    _roles: str = field(default="/latest/meta-data/iam/security-credentials/", repr=False)

    async def load(self, now: datetime) -> Lease | None:
        """Ask for a session token, the role's name and its keys; None where there is no IMDS."""
        if self.environ.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true":
            return None
        endpoint = (self.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT") or _IMDS).rstrip("/")
        ttl = {"x-aws-ec2-metadata-token-ttl-seconds": "21600"}
        try:
            answer = await _request(
                "PUT", f"{endpoint}/latest/api/token", self.name, headers=ttl, timeout=_IMDS_TIMEOUT
            )
        except base.BackendUnavailable:
            return None
        session = {"x-aws-ec2-metadata-token": answer.text}
        answer = await _request("GET", endpoint + self._roles, self.name, headers=session)
        role = answer.text.partition("\n")[0].strip()
        answer = await _request("GET", endpoint + self._roles + role, self.name, headers=session)
        return _lease(self.name, _json(answer, self.name))


def default_chain(environ: Mapping[str, str], home: Path) -> Refreshing:
    """The sources of the AWS SDKs in their order, reading `environ` and `home` and no others."""
    return Refreshing(
        (
            Environment(environ),
            SharedFiles(environ, home),
            WebIdentity(environ),
            Container(environ),
            InstanceMetadata(environ),
        )
    )


async def _request(
    method: str,
    url: str,
    source: str,
    *,
    headers: Mapping[str, str] | None = None,
    data: Mapping[str, str] | None = None,
    timeout: float = _TIMEOUT,
) -> httpx.Response:
    """One request to a credential endpoint: no environment proxies, no redirects."""
    try:
        async with httpx.AsyncClient(trust_env=False, timeout=timeout) as client:
            answer = await client.request(method, url, headers=headers, data=data)
    except (httpx.LocalProtocolError, UnicodeError) as error:  # its text quotes the token
        problem = f"cannot be asked ({type(error).__name__}): is its token sound?"
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        problem = f"does not answer: {str(error) or type(error).__name__}"
    else:
        if answer.status_code == 200:
            return answer
        problem = f"answered {answer.status_code}"
    raise base.BackendUnavailable(f"{source} {problem}", unsent=True)


def _read_token(path: str) -> str:
    try:
        return Path(path).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        msg = f"token file {path} cannot be read: {error}"
        raise base.BackendUnavailable(msg, retryable=False, unsent=True) from error


def _json(answer: httpx.Response, source: str) -> Mapping[str, Any]:
    try:
        values = answer.json()
    except ValueError as error:
        raise _malformed(source) from error
    if not isinstance(values, dict):
        raise _malformed(source)
    return values


def _lease(source: str, values: Mapping[str, Any], token: str = "Token") -> Lease:  # noqa: S107
    try:
        access_key, secret = values["AccessKeyId"], values["SecretAccessKey"]
        expiration = values.get("Expiration")
        expires = datetime.fromisoformat(expiration).astimezone(UTC) if expiration else None
    except (KeyError, TypeError, ValueError) as error:
        raise _malformed(source) from error
    return Lease(Credentials(access_key, secret, values.get(token) or None), expires)


def _malformed(source: str) -> base.BackendUnavailable:
    return base.BackendUnavailable(f"{source} answered without usable credentials", unsent=True)
