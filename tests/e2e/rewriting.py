"""What the tests of rewriting tools share: a bucket of others' objects, and clients in the way."""

import hashlib
import random
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from tests import corpus

MIB = 1024 * 1024
DESCRIBED = {
    "ContentType": "text/x-log",
    "CacheControl": "max-age=60",
    "ContentDisposition": "attachment",
    "ContentEncoding": "utf-8",
    "ContentLanguage": "de",
    "Expires": datetime(2033, 11, 6, 8, 49, 37, tzinfo=UTC),
    "Metadata": {"colour": "blue", "name": "x-1"},
}


def bodies() -> dict[str, bytes]:
    """One of each: small, large, incompressible, empty, with an odd key."""
    return {
        "small": corpus.text(3_000),
        "large": corpus.log(9 * MIB),
        "noise": corpus.noise(300_000),
        "empty": b"",
        "dir/ä+%2F b": corpus.text(200_000),
        "medium": corpus.log(2 * MIB, seed=4),
    }


def fill(direct: Any, bucket: str, found: dict[str, bytes], **more: Any) -> None:
    """Store them past the gateway."""
    for key, body in found.items():
        direct.put_object(Bucket=bucket, Key=key, Body=body, **more)


def state(direct: Any, bucket: str, keys: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Everything the store says about objects, their bytes and tags included."""
    found = {}
    for key in keys:
        answer = direct.get_object(Bucket=bucket, Key=key)
        with answer.pop("Body") as body:
            answer["Body"] = body.read()
        del answer["ResponseMetadata"], answer["LastModified"]
        answer["Tags"] = direct.get_object_tagging(Bucket=bucket, Key=key)["TagSet"]
        found[key] = answer
    return found


def times(direct: Any, bucket: str) -> dict[str, tuple[str, Any, int]]:
    """ETag, time and size of every object, as the store lists them."""
    pages = direct.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    return {
        each["Key"]: (each["ETag"], each["LastModified"], each["Size"])
        for page in pages
        for each in page.get("Contents", ())
    }


def signed_body(key: str, number: int, size: int) -> bytes:
    """A compressible body that names itself and ends with its own digest."""
    text = f"{key} {number}\n".encode() * (size // (len(key) + 8))
    return text + hashlib.sha256(text).hexdigest().encode()


def is_whole(body: bytes) -> bool:
    return hashlib.sha256(body[:-64]).hexdigest().encode() == body[-64:]


@dataclass
class Writers:
    """Clients that overwrite keys in a loop; `last` is what each key's writer was answered last."""

    clients: list[Any]
    bucket: str
    last: dict[str, bytes]
    stop: threading.Event = field(default_factory=threading.Event)
    writes: int = 0
    torn: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def __enter__(self) -> "Writers":
        keys = sorted(self.last)
        shares = [keys[at :: len(self.clients)] for at in range(len(self.clients))]
        self._threads = [
            threading.Thread(target=self._write, args=(client, share, at))
            for at, (client, share) in enumerate(zip(self.clients, shares, strict=True))
        ]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        for thread in self._threads:
            thread.join()

    def _write(self, client: Any, keys: list[str], seed: int) -> None:
        """Each key has one writer, so that what was answered last is what must be there."""
        draw = random.Random(seed)
        number = 0
        try:
            while not self.stop.is_set():
                number += 1
                key = draw.choice(keys)
                body = signed_body(key, number, draw.choice((2_000, 60_000, 300_000)))
                client.put_object(Bucket=self.bucket, Key=key, Body=body)
                self.last[key] = body
                self.writes += 1
        except Exception as error:
            self.failures.append(repr(error))
