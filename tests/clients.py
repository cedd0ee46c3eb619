"""Real S3 clients behind one small interface, so that one table can drive all of them.

Libraries run in this process, programs as children with an environment of their own. awscli and
s3fs pin other versions of botocore than boto3 does, so each has a virtual environment of its own,
`.venv-awscli` and `.venv-s3fs`, made by `make clients`. A client that is not installed skips the
test and says what would install it. `put` uploads with one request, whatever the size; `command` of
a program does what its arguments and its defaults say.
"""

import abc
import functools
import json
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar
from urllib.parse import unquote_plus

import boto3
import defusedxml.ElementTree
import minio
import obstore
import obstore.store
import pytest
import urllib3
from botocore.config import Config

from tests import live

Metadata = Mapping[str, str]
NONE: Metadata = MappingProxyType({})

_SECONDS = 300.0
_GIB = 1024**3


class ClientFailed(Exception):
    """A program ended with another status than 0. `output` is what it printed."""

    def __init__(self, command: list[str], status: int, output: str) -> None:
        super().__init__(f"{command[0]} ended with {status}: {output[-2000:]}")
        self.status = status
        self.output = output


@dataclass(frozen=True, slots=True)
class Stat:
    """What a client says of one object; None where it does not say."""

    key: str
    size: int
    etag: str | None = None
    content_type: str | None = None


@functools.cache
def _session() -> boto3.session.Session:
    return boto3.session.Session()


def boto3_client(endpoint: live.Endpoint, service: str = "s3", **config: Any) -> Any:
    """A boto3 client without retries, which would hide faults; `config` is botocore's Config."""
    defaults = {
        "s3": {"addressing_style": "path"},
        "retries": {"total_max_attempts": 1},
        "connect_timeout": 60,
        "read_timeout": 300,
    }
    return _session().client(
        service,
        endpoint_url=endpoint.endpoint_url,
        aws_access_key_id=endpoint.access_key,
        aws_secret_access_key=endpoint.secret_key,
        region_name=live.REGION,
        verify=str(endpoint.ca) if endpoint.ca else None,
        config=Config(**defaults | config),
    )


class Client(abc.ABC):
    """One client program or library, bound to one endpoint. `folder` is its scratch space."""

    name: ClassVar[str]
    ranges: ClassVar[bool] = True
    suffixes: ClassVar[bool] = True
    lists: ClassVar[bool] = True
    describes: ClassVar[bool] = True  # it can send user metadata that the backend takes

    def __init__(self, endpoint: live.Endpoint, folder: Path) -> None:
        self.endpoint = endpoint
        self.folder = folder

    @abc.abstractmethod
    def put(
        self, bucket: str, key: str, body: bytes, content_type: str, metadata: Metadata = NONE
    ) -> None: ...

    @abc.abstractmethod
    def get(self, bucket: str, key: str) -> bytes: ...

    def get_range(self, bucket: str, key: str, start: int, end: int) -> bytes:
        """Bytes `start` up to, not including, `end`."""
        raise AssertionError(f"{self.name} does not read ranges: see `ranges`")

    def get_suffix(self, bucket: str, key: str, count: int) -> bytes:
        """The last `count` bytes."""
        raise AssertionError(f"{self.name} does not read suffixes: see `suffixes`")

    @abc.abstractmethod
    def stat(self, bucket: str, key: str) -> Stat: ...

    @abc.abstractmethod
    def listing(self, bucket: str, prefix: str = "") -> list[Stat]: ...

    @abc.abstractmethod
    def delete(self, bucket: str, key: str) -> None: ...

    def close(self) -> None:  # noqa: B027 - most clients keep nothing
        """Close connections, if it keeps any."""

    def _run(self, command: list[str], env: dict[str, str] | None = None, text: str = "") -> bytes:
        done = subprocess.run(
            command,
            input=text.encode(),
            capture_output=True,
            timeout=_SECONDS,
            check=False,
            cwd=self.folder,
            env=live.environment(self.folder) | (env or {}),
        )
        if done.returncode != 0:
            output = (done.stdout + done.stderr).decode(errors="replace")
            raise ClientFailed(command, done.returncode, output)
        return done.stdout

    def _file(self, body: bytes = b"") -> Path:
        path = self.folder / f"{self.name}.body"
        path.write_bytes(body)
        return path


class Boto3(Client):
    """boto3 as it comes: a checksum on every upload, in a trailer over https."""

    name = "boto3"
    _config: ClassVar[dict[str, Any]] = {}

    def __init__(self, endpoint: live.Endpoint, folder: Path) -> None:
        super().__init__(endpoint, folder)
        self.client = boto3_client(endpoint, **self._config)

    def put(
        self, bucket: str, key: str, body: bytes, content_type: str, metadata: Metadata = NONE
    ) -> None:
        self.client.put_object(
            Bucket=bucket, Key=key, Body=body, ContentType=content_type, Metadata=dict(metadata)
        )

    def get(self, bucket: str, key: str) -> bytes:
        with self.client.get_object(Bucket=bucket, Key=key)["Body"] as body:
            return body.read()

    def get_range(self, bucket: str, key: str, start: int, end: int) -> bytes:
        return self._part(bucket, key, f"bytes={start}-{end - 1}")

    def get_suffix(self, bucket: str, key: str, count: int) -> bytes:
        return self._part(bucket, key, f"bytes=-{count}")

    def _part(self, bucket: str, key: str, wanted: str) -> bytes:
        answer = self.client.get_object(Bucket=bucket, Key=key, Range=wanted)
        with answer["Body"] as body:
            return body.read()

    def stat(self, bucket: str, key: str) -> Stat:
        head = self.client.head_object(Bucket=bucket, Key=key)
        return Stat(key, head["ContentLength"], head["ETag"].strip('"'), head["ContentType"])

    def listing(self, bucket: str, prefix: str = "") -> list[Stat]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return [
            Stat(entry["Key"], entry["Size"], entry["ETag"].strip('"'))
            for page in pages
            for entry in page.get("Contents", ())
        ]

    def delete(self, bucket: str, key: str) -> None:
        self.client.delete_object(Bucket=bucket, Key=key)

    def close(self) -> None:
        self.client.close()


class Boto3WhenRequired(Boto3):
    """boto3 as operators of other stores configure it: checksums only where S3 demands them."""

    name = "boto3-when-required"
    _config: ClassVar[dict[str, Any]] = {
        "request_checksum_calculation": "when_required",
        "response_checksum_validation": "when_required",
    }


class AwsCli(Client):
    """aws-cli from its own virtual environment, through `aws s3api`."""

    name = "awscli"

    def __init__(self, endpoint: live.Endpoint, folder: Path) -> None:
        super().__init__(endpoint, folder)
        self._aws = str(_installed(live.ROOT / ".venv-awscli" / "bin" / "aws", "make clients"))

    def put(
        self, bucket: str, key: str, body: bytes, content_type: str, metadata: Metadata = NONE
    ) -> None:
        options = ["--body", str(self._file(body)), "--content-type", content_type]
        if metadata:
            options += ["--metadata", json.dumps(dict(metadata))]
        self._api("put-object", bucket, key, *options)

    def get(self, bucket: str, key: str) -> bytes:
        path = self._file()
        self._api("get-object", bucket, key, str(path))
        return path.read_bytes()

    def get_range(self, bucket: str, key: str, start: int, end: int) -> bytes:
        return self._part(bucket, key, f"bytes={start}-{end - 1}")

    def get_suffix(self, bucket: str, key: str, count: int) -> bytes:
        return self._part(bucket, key, f"bytes=-{count}")

    def _part(self, bucket: str, key: str, wanted: str) -> bytes:
        path = self._file()
        self._api("get-object", bucket, key, "--range", wanted, str(path))
        return path.read_bytes()

    def stat(self, bucket: str, key: str) -> Stat:
        head = json.loads(self._api("head-object", bucket, key))
        return Stat(key, head["ContentLength"], head["ETag"].strip('"'), head["ContentType"])

    def listing(self, bucket: str, prefix: str = "") -> list[Stat]:
        arguments = ["list-objects-v2", "--bucket", bucket, "--prefix", prefix]
        page = json.loads(self.command("s3api", *arguments) or "{}")
        return [
            Stat(entry["Key"], entry["Size"], entry["ETag"].strip('"'))
            for entry in page.get("Contents", ())
        ]

    def delete(self, bucket: str, key: str) -> None:
        self._api("delete-object", bucket, key)

    def _api(self, verb: str, bucket: str, key: str, *more: str) -> bytes:
        return self.command("s3api", verb, "--bucket", bucket, "--key", key, *more)

    def command(self, *arguments: str) -> bytes:
        """What `aws` with these arguments prints."""
        env = {
            "AWS_ACCESS_KEY_ID": self.endpoint.access_key,
            "AWS_SECRET_ACCESS_KEY": self.endpoint.secret_key,
            "AWS_ENDPOINT_URL": self.endpoint.endpoint_url,
            "AWS_MAX_ATTEMPTS": "1",
            "AWS_PAGER": "",
        }
        if self.endpoint.ca:
            env["AWS_CA_BUNDLE"] = str(self.endpoint.ca)
        return self._run([self._aws, *arguments], env)


class S3cmd(Client):
    """s3cmd: its own signer, MD5 checks of its own, no ranges."""

    name = "s3cmd"
    ranges = suffixes = False
    _multipart: ClassVar[bool] = False

    def __init__(self, endpoint: live.Endpoint, folder: Path) -> None:
        super().__init__(endpoint, folder)
        self._s3cmd = str(_installed(live.program("s3cmd"), "make dev"))
        self._config = folder / "s3cmd.cfg"
        settings = {
            "access_key": endpoint.access_key,
            "secret_key": endpoint.secret_key,
            "host_base": endpoint.netloc,
            "host_bucket": endpoint.netloc,
            "bucket_location": live.REGION,
            "use_https": endpoint.secure,
            "ca_certs_file": endpoint.ca or "",
            "enable_multipart": self._multipart,
            "progress_meter": False,
            "max_retries": 1,
        }
        lines = [f"{name} = {value}" for name, value in settings.items()]
        self._config.write_text("\n".join(["[default]", *lines, ""]))

    def put(
        self, bucket: str, key: str, body: bytes, content_type: str, metadata: Metadata = NONE
    ) -> None:
        path = str(self._file(body))
        options = [f"--add-header=x-amz-meta-{name}: {value}" for name, value in metadata.items()]
        options += ["--no-mime-magic", f"--mime-type={content_type}"]
        self.command("put", *options, path, _uri(bucket, key))

    def get(self, bucket: str, key: str) -> bytes:
        path = self._file()
        self.command("get", "--force", _uri(bucket, key), str(path))
        return path.read_bytes()

    def stat(self, bucket: str, key: str) -> Stat:
        said = self.command("info", _uri(bucket, key)).decode()
        size, mime, md5 = (
            _field(rf"^\s*{name}:\s+(.+)$", said) for name in ("File size", "MIME type", "MD5 sum")
        )
        return Stat(key, int(size), md5, mime)

    def listing(self, bucket: str, prefix: str = "") -> list[Stat]:
        said = self.command("ls", "--recursive", "--list-md5", _uri(bucket, prefix)).decode()
        rows = (line.split(None, 4) for line in said.splitlines())
        return [
            Stat(uri.removeprefix(f"s3://{bucket}/"), int(size), md5)
            for _date, _time, size, md5, uri in rows
        ]

    def delete(self, bucket: str, key: str) -> None:
        self.command("del", _uri(bucket, key))

    def command(self, *arguments: str) -> bytes:
        """What `s3cmd` with these arguments prints."""
        return self._run([self._s3cmd, f"--config={self._config}", *arguments])


class Rclone(Client):
    """rclone, which checks size and MD5 of what it copied by itself."""

    name = "rclone"
    _upload_cutoff: ClassVar[str] = "5G"

    def __init__(self, endpoint: live.Endpoint, folder: Path) -> None:
        super().__init__(endpoint, folder)
        self._rclone = str(_installed(live.program("rclone"), "make dev"))
        settings = {
            "type": "s3",
            "provider": "Other",
            "access_key_id": endpoint.access_key,
            "secret_access_key": endpoint.secret_key,
            "endpoint": endpoint.endpoint_url,
            "region": live.REGION,
            "force_path_style": "true",
            "no_check_bucket": "true",
            "upload_cutoff": self._upload_cutoff,
        }
        self._env = {f"RCLONE_CONFIG_LIVE_{name.upper()}": v for name, v in settings.items()}

    def put(
        self, bucket: str, key: str, body: bytes, content_type: str, metadata: Metadata = NONE
    ) -> None:
        options = [f"--header-upload=Content-Type: {content_type}"]
        options += [f"--metadata-set={name}={value}" for name, value in metadata.items()]
        path = str(self._file(body))
        self.command("copyto", "--ignore-times", "--metadata", *options, path, _rc(bucket, key))

    def get(self, bucket: str, key: str) -> bytes:
        return self.command("cat", _rc(bucket, key))

    def get_range(self, bucket: str, key: str, start: int, end: int) -> bytes:
        return self.command("cat", f"--offset={start}", f"--count={end - start}", _rc(bucket, key))

    def get_suffix(self, bucket: str, key: str, count: int) -> bytes:
        return self.command("cat", f"--tail={count}", _rc(bucket, key))

    def stat(self, bucket: str, key: str) -> Stat:
        return self._stat(
            json.loads(self.command("lsjson", "--stat", "--hash", _rc(bucket, key))), key
        )

    def listing(self, bucket: str, prefix: str = "") -> list[Stat]:
        said = self.command("lsjson", "--recursive", "--files-only", "--hash", _rc(bucket, ""))
        found = [self._stat(entry, entry["Path"]) for entry in json.loads(said)]
        return sorted(
            (entry for entry in found if entry.key.startswith(prefix)), key=lambda entry: entry.key
        )

    def delete(self, bucket: str, key: str) -> None:
        self.command("deletefile", _rc(bucket, key))

    def _stat(self, entry: dict[str, Any], key: str) -> Stat:
        return Stat(key, entry["Size"], entry.get("Hashes", {}).get("md5"), entry["MimeType"])

    def command(self, *arguments: str) -> bytes:
        """What `rclone` with these arguments prints; the remote's name is `live`."""
        command = [self._rclone, "--config=", "--retries=1", "--low-level-retries=1"]
        if self.endpoint.ca:
            command.append(f"--ca-cert={self.endpoint.ca}")
        return self._run([*command, *arguments], self._env)


class Minio(Client):
    """minio-py: signs the payload over http, sends it unsigned over https."""

    name = "minio"
    suffixes = False

    def __init__(self, endpoint: live.Endpoint, folder: Path) -> None:
        super().__init__(endpoint, folder)
        trust = {"ca_certs": str(endpoint.ca)} if endpoint.ca else {}
        self._pool = urllib3.PoolManager(retries=False, **trust)
        self.client = minio.Minio(
            endpoint.netloc,
            access_key=endpoint.access_key,
            secret_key=endpoint.secret_key,
            secure=endpoint.secure,
            region=live.REGION,
            http_client=self._pool,
        )

    def put(
        self, bucket: str, key: str, body: bytes, content_type: str, metadata: Metadata = NONE
    ) -> None:
        with self._file(body).open("rb") as file:
            self.client.put_object(
                bucket,
                key,
                file,
                len(body),
                content_type=content_type,
                metadata=dict(metadata),
                part_size=5 * _GIB,
            )

    def get(self, bucket: str, key: str) -> bytes:
        return self._read(bucket, key)

    def get_range(self, bucket: str, key: str, start: int, end: int) -> bytes:
        return self._read(bucket, key, offset=start, length=end - start)

    def stat(self, bucket: str, key: str) -> Stat:
        found = self.client.stat_object(bucket, key)
        return Stat(key, found.size, found.etag, found.content_type)

    def listing(self, bucket: str, prefix: str = "") -> list[Stat]:
        found = self.client.list_objects(bucket, prefix=prefix, recursive=True)
        return [Stat(entry.object_name, entry.size, entry.etag) for entry in found]

    def delete(self, bucket: str, key: str) -> None:
        self.client.remove_object(bucket, key)

    def close(self) -> None:
        self._pool.clear()

    def _read(self, bucket: str, key: str, **where: int) -> bytes:
        answer = self.client.get_object(bucket, key, **where)
        try:
            return answer.read()
        finally:
            answer.close()
            answer.release_conn()


class Obstore(Client):
    """obstore: the Rust object_store crate, with its own signer and HTTP stack."""

    name = "obstore"

    def put(
        self, bucket: str, key: str, body: bytes, content_type: str, metadata: Metadata = NONE
    ) -> None:
        kind = {"Content-Type": content_type, **metadata}
        obstore.put(self._store(bucket), key, body, attributes=kind, use_multipart=False)

    def get(self, bucket: str, key: str) -> bytes:
        return obstore.get(self._store(bucket), key).bytes().to_bytes()

    def get_range(self, bucket: str, key: str, start: int, end: int) -> bytes:
        return obstore.get_range(self._store(bucket), key, start=start, end=end).to_bytes()

    def get_suffix(self, bucket: str, key: str, count: int) -> bytes:
        options = {"range": {"suffix": count}}
        return obstore.get(self._store(bucket), key, options=options).bytes().to_bytes()

    def stat(self, bucket: str, key: str) -> Stat:
        found = obstore.get(self._store(bucket), key, options={"head": True})
        etag = (found.meta["e_tag"] or "").strip('"')
        return Stat(key, found.meta["size"], etag, found.attributes.get("Content-Type"))

    def listing(self, bucket: str, prefix: str = "") -> list[Stat]:
        found = obstore.list(self._store(bucket)).collect()  # its prefixes end at slashes
        return [
            Stat(entry["path"], entry["size"], (entry["e_tag"] or "").strip('"'))
            for entry in found
            if entry["path"].startswith(prefix)
        ]

    def delete(self, bucket: str, key: str) -> None:
        obstore.delete(self._store(bucket), key)

    @functools.lru_cache(maxsize=8)  # noqa: B019 - as short-lived as the test
    def _store(self, bucket: str) -> obstore.store.S3Store:
        trust = {"root_certificate": self.endpoint.ca.read_bytes()} if self.endpoint.ca else {}
        return obstore.store.S3Store(
            bucket,
            endpoint=self.endpoint.endpoint_url,
            access_key_id=self.endpoint.access_key,
            secret_access_key=self.endpoint.secret_key,
            region=live.REGION,
            virtual_hosted_style_request=False,
            client_options={"allow_http": not self.endpoint.secure, **trust},
            retry_config={"max_retries": 0},
        )


_S3FS = """
import json, sys, s3fs
ask = json.load(sys.stdin)
fs = s3fs.S3FileSystem(skip_instance_cache=True, use_listings_cache=False, **ask["options"])
path, verb = ask["path"], ask["verb"]
if verb == "put":
    with open(ask["file"], "rb") as file:
        body = file.read()
    more = {"ContentType": ask["content_type"], "Metadata": ask["metadata"]}
    fs.pipe_file(path, body, chunksize=5 * 2**30, **more)
elif verb == "get":
    with open(ask["file"], "wb") as file:
        file.write(fs.cat_file(path, start=ask["start"], end=ask["end"]))
elif verb == "stat":
    print(json.dumps(fs.info(path), default=str))
elif verb == "list":
    print(json.dumps(list(fs.find(path, prefix=ask["prefix"], detail=True).values()), default=str))
else:
    fs.rm_file(path)
"""


class S3fs(Client):
    """s3fs from its own virtual environment, one interpreter per call."""

    name = "s3fs"

    def __init__(self, endpoint: live.Endpoint, folder: Path) -> None:
        super().__init__(endpoint, folder)
        self._python = str(_installed(live.ROOT / ".venv-s3fs" / "bin" / "python", "make clients"))

    def put(
        self, bucket: str, key: str, body: bytes, content_type: str, metadata: Metadata = NONE
    ) -> None:
        more = {"content_type": content_type, "metadata": dict(metadata)}
        self._ask("put", bucket, key, file=str(self._file(body)), **more)

    def get(self, bucket: str, key: str) -> bytes:
        return self._read(bucket, key, None, None)

    def get_range(self, bucket: str, key: str, start: int, end: int) -> bytes:
        return self._read(bucket, key, start, end)

    def get_suffix(self, bucket: str, key: str, count: int) -> bytes:
        return self._read(bucket, key, -count, None)

    def stat(self, bucket: str, key: str) -> Stat:
        return self._stat(json.loads(self._ask("stat", bucket, key)), bucket)

    def listing(self, bucket: str, prefix: str = "") -> list[Stat]:
        found = json.loads(self._ask("list", bucket, "", prefix=prefix))
        return [self._stat(entry, bucket) for entry in found]

    def delete(self, bucket: str, key: str) -> None:
        self._ask("delete", bucket, key)

    def _stat(self, entry: dict[str, Any], bucket: str) -> Stat:
        key = entry["name"].removeprefix(f"{bucket}/")
        return Stat(key, entry["size"], entry["ETag"].strip('"'), entry.get("ContentType"))

    def _read(self, bucket: str, key: str, start: int | None, end: int | None) -> bytes:
        path = self._file()
        self._ask("get", bucket, key, file=str(path), start=start, end=end)
        return path.read_bytes()

    def _ask(self, verb: str, bucket: str, key: str, **more: Any) -> bytes:
        trust = {"verify": str(self.endpoint.ca)} if self.endpoint.ca else {}
        options = {
            "key": self.endpoint.access_key,
            "secret": self.endpoint.secret_key,
            "endpoint_url": self.endpoint.endpoint_url,
            "client_kwargs": {"region_name": live.REGION, **trust},
            "config_kwargs": {"retries": {"total_max_attempts": 1}},
        }
        path = f"{bucket}/{key}" if key else bucket
        ask = {"verb": verb, "path": path, "options": options, **more}
        return self._run([self._python, "-c", _S3FS], text=json.dumps(ask))


class Curl(Client):
    """curl with SigV4 presigned URLs: somebody else's HTTP client, no S3 code at all."""

    name = "curl"
    _signature: ClassVar[str] = "s3v4"

    def __init__(self, endpoint: live.Endpoint, folder: Path) -> None:
        super().__init__(endpoint, folder)
        self._curl = str(_installed(live.program("curl"), "your system's package manager"))
        self._signer = boto3_client(endpoint, signature_version=self._signature)

    def put(
        self, bucket: str, key: str, body: bytes, content_type: str, metadata: Metadata = NONE
    ) -> None:
        more = {"ContentType": content_type, "Metadata": dict(metadata)}
        url = self.presign("put_object", Bucket=bucket, Key=key, **more)
        headers = ["--header", f"Content-Type: {content_type}"]
        if self._signature == "s3v4":  # SigV2 puts them into the query
            for name, value in metadata.items():
                headers += ["--header", f"x-amz-meta-{name}: {value}"]
        self._fetch("--upload-file", str(self._file(body)), *headers, url)

    def get(self, bucket: str, key: str) -> bytes:
        return self._fetch(self.presign("get_object", Bucket=bucket, Key=key))

    def get_range(self, bucket: str, key: str, start: int, end: int) -> bytes:
        url = self.presign("get_object", Bucket=bucket, Key=key)
        return self._fetch("--range", f"{start}-{end - 1}", url)

    def get_suffix(self, bucket: str, key: str, count: int) -> bytes:
        url = self.presign("get_object", Bucket=bucket, Key=key)
        return self._fetch("--range", f"-{count}", url)

    def stat(self, bucket: str, key: str) -> Stat:
        said = self._fetch("--head", self.presign("head_object", Bucket=bucket, Key=key)).decode()
        size, etag, mime = (
            _field(rf"(?im)^{name}:\s*(.*?)\r?$", said)
            for name in ("content-length", "etag", "content-type")
        )
        return Stat(key, int(size), etag.strip('"'), mime)

    def listing(self, bucket: str, prefix: str = "") -> list[Stat]:
        said = self._fetch(self.presign("list_objects_v2", Bucket=bucket, Prefix=prefix))
        entries = defusedxml.ElementTree.fromstring(said).iterfind("{*}Contents")
        return [
            Stat(
                unquote_plus(entry.findtext("{*}Key", "")),  # the signer asks for encoding-type
                int(entry.findtext("{*}Size", "")),
                entry.findtext("{*}ETag", "").strip('"'),
            )
            for entry in entries
        ]

    def delete(self, bucket: str, key: str) -> None:
        self._fetch("--request", "DELETE", self.presign("delete_object", Bucket=bucket, Key=key))

    def close(self) -> None:
        self._signer.close()

    def presign(self, verb: str, **parameters: Any) -> str:
        url: str = self._signer.generate_presigned_url(verb, Params=parameters, ExpiresIn=600)
        return url

    def _fetch(self, *arguments: str) -> bytes:
        command = [self._curl, "--silent", "--show-error", "--fail-with-body", "--path-as-is"]
        if self.endpoint.ca:
            command += ["--cacert", str(self.endpoint.ca)]
        return self._run([*command, *arguments])


class CurlSigV2(Curl):
    """curl with the SigV2 presigned URLs that boto3 makes for custom endpoints by default."""

    name = "curl-sigv2"
    lists = False  # SeaweedFS refuses the SigV2 signature of a bucket without a key
    describes = False  # and that of metadata, which stand in the query
    _signature = "s3"


CLIENTS: dict[str, type[Client]] = {
    kind.name: kind
    for kind in (
        Boto3,
        Boto3WhenRequired,
        AwsCli,
        S3cmd,
        Rclone,
        Minio,
        Obstore,
        S3fs,
        Curl,
        CurlSigV2,
    )
}


def zstd_decode(stored: bytes, folder: Path, dictionary: bytes | None = None) -> bytes:
    """The stock `zstd` program's opinion of some concatenated zstd frames."""
    zstd = _installed(live.program("zstd"), "your system's package manager")
    packed, plain = folder / "stock.zst", folder / "stock"
    packed.write_bytes(stored)
    more: list[str | Path] = []
    if dictionary is not None:
        more = ["-D", folder / "stock.dict"]
        (folder / "stock.dict").write_bytes(dictionary)
    subprocess.run(
        [zstd, "--decompress", "--quiet", "--force", "--long=27", *more, packed, "-o", plain],
        check=True,
        timeout=_SECONDS,
    )
    return plain.read_bytes()


def _installed(program: Path | None, how: str) -> Path:
    if program is None or not program.exists():
        pytest.skip(f"client not installed: {how}")
    return program


def _uri(bucket: str, key: str) -> str:
    return f"s3://{bucket}/{key}"


def _rc(bucket: str, key: str) -> str:
    return f"live:{bucket}/{key}"


def _field(pattern: str, said: str) -> str:
    found = re.search(pattern, said, re.MULTILINE)
    assert found, f"no {pattern} in {said!r}"
    return found[1].strip()
