"""What a measurement is given: a store, clients of it, and children that are measured alone."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import load
from bench.datasets.plain import THREADS, Script
from bench.servers import Server
from s4gateway.s3store import S3TargetConfig, Store, init_dataset_blocking, new_client
from s4gateway.s3store.clock import SystemClock

BUCKET = "bench-datasets"
_ROOT = Path(__file__).resolve().parents[2]


class Tomorrow(SystemClock):
    """The clock of this machine, a day ahead: what was written a moment ago is final by it."""

    def now_us(self) -> int:
        """Return microseconds since 1970, tomorrow."""
        return super().now_us() + 86_400_000_000


@dataclass(frozen=True, slots=True)
class World:
    """A running store and how often to measure."""

    store: Server
    folder: Path
    repetitions: int

    def client(self, server: Server | None = None) -> Any:
        """A boto3 client as both sides use it."""
        return client_of((server or self.store).target)

    def script(self, prefix: str, client: Any = None) -> Script:
        """The plain side of a dataset."""
        return Script(client or self.client(), BUCKET, prefix)

    def child(self, module: str, *arguments: object) -> Any:
        """What a program of this package prints as JSON."""
        who = self.store.target.credentials
        done = subprocess.run(
            [sys.executable, "-m", f"bench.datasets.{module}", *map(str, arguments)],
            cwd=_ROOT,
            stdout=subprocess.PIPE,
            check=True,
            env=os.environ
            | {
                "BENCH_PORT": str(self.store.target.port),
                "BENCH_ACCESS": who.access_key,
                "BENCH_SECRET": who.secret_key,
            },
        )
        return json.loads(done.stdout)


def client_of(target: load.Target) -> Any:
    """A boto3 client of a store on loopback."""
    who = target.credentials
    return new_client(
        f"http://{target.host}:{target.port}",
        connections=THREADS,
        aws_access_key_id=who.access_key,
        aws_secret_access_key=who.secret_key,
        region_name=who.region,
    )


def client_from_environment() -> Any:
    """The client of a child."""
    who = load.Credentials(os.environ["BENCH_ACCESS"], os.environ["BENCH_SECRET"])
    return client_of(load.Target(int(os.environ["BENCH_PORT"]), who))


def config(client: Any, prefix: str, **more: Any) -> S3TargetConfig:
    """A dataset partitioned by day."""
    return S3TargetConfig(
        bucket=BUCKET, prefix=prefix, client=client, partition_key_parts=("day",), **more
    )


def opened(client: Any, prefix: str, record: Any, **options: Any) -> Store[Any]:
    """A seeded dataset, opened for blocking callers."""
    init_dataset_blocking(client, BUCKET, prefix)
    return Store.open(config(client, prefix), record, **options)
