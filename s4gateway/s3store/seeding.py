"""A new dataset: its two timing objects, stored once.

Rule: what is stored already is never changed, because readers and writers rely on it; whoever asks
for other values is refused.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

from s4gateway.s3store import durations, errors, layout, target, timing
from s4gateway.s3store.calls import S3Calls
from s4gateway.s3store.errors import ConfigError, TimingConfigError
from s4gateway.s3store.loop_thread import LoopThread
from s4gateway.s3store.telemetry import Telemetry


async def init_dataset(
    client: Any,
    bucket: str,
    prefix: str,
    *,
    commit_timeout: str | timedelta = "15s",
    max_clock_skew: str | timedelta = "1s",
    exist_ok: bool = True,
) -> None:
    """Store the timing of a new dataset; raises ConfigError when it has another one already.

    `client` is a boto3 S3 client or a `Transport`; durations are texts such as 15s, or timedeltas.
    """
    config = target.S3TargetConfig(
        bucket=bucket, prefix=prefix, client=client, max_inflight_requests=1
    )
    async with _unopened(config) as calls:
        await _seed(
            calls,
            bucket,
            layout.Keys(prefix),
            commit_timeout=commit_timeout,
            max_clock_skew=max_clock_skew,
            exist_ok=exist_ok,
        )


@asynccontextmanager
async def _unopened(config: target.S3TargetConfig) -> AsyncIterator[S3Calls]:
    config.validate_lookup()
    calls, owned = target.connect(config, Telemetry({}, config.clock))
    try:
        yield calls
    finally:
        if owned is not None:
            await owned.aclose()


def init_dataset_blocking(client: Any, bucket: str, prefix: str, **options: Any) -> None:
    """`init_dataset` for blocking callers."""
    runner = LoopThread()
    try:
        runner.run(init_dataset(client, bucket, prefix, **options))
    finally:
        runner.close()


def commit_overwrite_deny_policy(bucket: str, prefix: str) -> dict[str, Any]:
    """Return a bucket policy that keeps commit markers as they were first written.

    With it, a second writer of a token gets 403 from a store without conditional writes, which an
    optimistic write treats like 412. Stores that know no s3:PutOverwriteObject refuse it.
    """
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Sid": "CommitMarkersAreWrittenOnce",
                "Effect": "Deny",
                "Principal": "*",
                "Action": "s3:PutOverwriteObject",
                "Resource": f"arn:aws:s3:::{bucket}/{prefix}/data/*/*.commit",
            }
        ],
    }


async def _seed(
    calls: S3Calls,
    bucket: str,
    keys: layout.Keys,
    *,
    commit_timeout: str | timedelta,
    max_clock_skew: str | timedelta,
    exist_ok: bool,
) -> None:
    """Store the two durations unless they are there; raises ConfigError.

    One after the other: whoever stores the first object decides, anybody with another value stops
    there, so that two callers never leave one value of each.
    """
    wanted = {}
    for name, given in (
        (layout.COMMIT_TIMEOUT, commit_timeout),
        (layout.MAX_CLOCK_SKEW, max_clock_skew),
    ):
        text = (
            given if isinstance(given, str) else durations.serialize(timing.nanoseconds_of(given))
        )
        try:
            wanted[name] = (timing.parse(name, text), text)
        except ValueError as problem:
            raise ConfigError(f"{name.replace('-', '_')}: {problem}") from None
    for name, (value, text) in wanted.items():
        await _seed_one(calls, bucket, keys.config(name), name, value, text, exist_ok=exist_ok)


async def _seed_one(
    calls: S3Calls, bucket: str, key: str, name: str, value: int, text: str, *, exist_ok: bool
) -> None:
    """Asked first: some stores do not honour If-None-Match, and would overwrite."""
    found = await _stored(calls, key)
    if found is None:
        try:
            await calls.put(key, text.encode(), content_type="text/plain", if_none_match=True)
        except errors.PreconditionFailed:
            found = await _stored(calls, key)
        else:
            return
    if not exist_ok:
        raise ConfigError(f"{bucket}/{key} exists already")
    try:
        same = timing.parse(name, (found or "").strip()) == value
    except ValueError as problem:
        raise TimingConfigError(bucket, key, str(problem)) from None
    if not same:
        raise ConfigError(
            f"{bucket}/{key} is {found!r} and stays so, not {text!r}: others rely on it"
        )


async def _stored(calls: S3Calls, key: str) -> str | None:
    try:
        return (await calls.get(key)).decode(errors="replace")
    except errors.NotFound:
        return None
