"""Options that tools share, and the way from a command line to a Backend and back to a status.

Rule: a tool speaks to the store directly, never through the gateway, with the credentials the
gateway itself would use. What is about the store has the gateway's own flags, environment variables
and file, from the one table in gateway/config.py. This is the only place outside the gateway's
composition root that builds an S3Backend.
"""

import asyncio
import math
import os
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from s4gateway.backend.base import Backend, BackendAnswer, BackendError
from s4gateway.cli.settings import Command, ConfigurationProblem, flag, load
from s4gateway.gateway import config as settings
from s4gateway.gateway.config import GatewayConfig
from s4gateway.gateway.config_sources import FILE_VARIABLE
from s4gateway.tools.durations import parse_duration
from s4gateway.tools.target import Target

_STORE: Final = (
    "endpoint_url",
    "region",
    "backend_profile",
    "backend_connect_timeout_seconds",
    "backend_read_timeout_seconds",
)
_POOL: Final = 64  # connections to the store

_Result = TypeVar("_Result")
Work = Callable[[Backend], Awaitable[_Result]]


class _Target(click.ParamType):  # type: ignore[type-arg]
    name = "target"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Target:
        if isinstance(value, Target):
            return value
        try:
            return Target.parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class _Duration(click.ParamType):  # type: ignore[type-arg]
    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> timedelta:
        if isinstance(value, timedelta):
            return value
        try:
            return parse_duration(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class _Price(click.ParamType):  # type: ignore[type-arg]
    name = "price"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        try:
            price = float(value)
        except ValueError:
            price = math.nan
        if not (math.isfinite(price) and price >= 0):
            self.fail(f"{value!r} is no price: give a number from 0 up", param, ctx)
        return price


TARGET: Final = _Target()
DURATION: Final = _Duration()
PRICE: Final = _Price()


def backend_options(*more: str, required: bool = True) -> Callable[[Command], Command]:
    """Add the options that name the store; the command gets a GatewayConfig called `config`.

    `more` are further fields of the gateway's table this tool takes, such as "zstd_level". With
    `required` False the store may be left unnamed, and the command asks `require_store` for it.
    """
    chosen = [option for option in settings.OPTIONS if option.field in {*_STORE, *more}]
    names = [option.field for option in chosen]

    def decorate(command: Command) -> Command:
        def loading(config_file: str | None, **parameters: Any) -> Any:
            given = {name: parameters.pop(name) for name in names}
            loaded = load(config_file, given).config
            if required:
                require_store(loaded)
            return command(config=loaded, **parameters)

        loading.__name__, loading.__doc__ = command.__name__, command.__doc__
        loading.__click_params__ = getattr(command, "__click_params__", [])  # type: ignore[attr-defined]
        wrapped: Command = loading
        for option in reversed(chosen):
            wrapped = flag(option)(wrapped)
        return click.option(
            "--config",
            "config_file",
            metavar="FILE",
            help=f"The gateway's settings in TOML.  [env: {FILE_VARIABLE}]",
        )(wrapped)

    return decorate


def require_store(config: GatewayConfig) -> None:
    """Raise ConfigurationProblem unless the configuration names a store."""
    if config.endpoint_url is None:
        raise ConfigurationProblem("--endpoint-url: missing; give the S3 server's URL")


def format_option(command: Command) -> Command:
    """Add --format; the value is "table" or "json" and arrives as `form`."""
    return click.option(
        "--format",
        "form",
        type=click.Choice(["table", "json"]),
        default="table",
        show_default=True,
        help="How to print.",
    )(command)


def concurrency_option(default: int) -> Callable[[Command], Command]:
    """Add --concurrency."""
    return click.option(
        "--concurrency",
        type=click.IntRange(1, 256),
        default=default,
        show_default=True,
        metavar="N",
        help="Objects worked on at once.",
    )


def run_tool(work: Work[_Result], config: GatewayConfig) -> _Result:
    """Run `work` over the store of `config`; what the store refuses is one line and status 1."""
    return run_async(lambda: _over_store(work, config))


def run_async(work: Callable[[], Awaitable[_Result]]) -> _Result:
    """Run `work` in a loop of its own; a BackendError is one line and status 1."""

    async def main() -> _Result:
        return await work()

    try:
        return asyncio.run(main())
    except BackendError as error:
        raise click.ClickException(describe(error)) from error


def describe(error: BackendError) -> str:
    """What went wrong at the store, and what to do about what operators often meet."""
    text = f"the store: {error}"
    if isinstance(error, BackendAnswer):
        if error.code == "NoSuchBucket":
            return f"{text}; is the bucket's name right?"
        if error.status in {401, 403}:
            return f"{text}; are the credentials those of this store, and may they do this?"
    return text


async def _over_store(work: Work[_Result], config: GatewayConfig) -> _Result:
    from s4gateway.backend import credentials  # noqa: PLC0415 - nobody's --help waits for these
    from s4gateway.backend.client import Endpoint, S3Backend  # noqa: PLC0415
    from s4gateway.backend.http import HttpClient  # noqa: PLC0415

    assert config.endpoint_url is not None
    provider = credentials.default_chain(os.environ, Path.home())
    await provider.get(datetime.now(UTC))  # a missing key is said before anything else
    http = HttpClient(
        connect_timeout=config.backend_connect_timeout_seconds,
        read_timeout=config.backend_read_timeout_seconds,
        pool_size=_POOL,
    )
    endpoint = Endpoint(config.endpoint_url, config.region)
    checksum = config.backend_profile.checksums
    backend = S3Backend(endpoint, provider, http, checksum=checksum)
    try:
        return await work(backend)
    finally:
        await backend.close()
