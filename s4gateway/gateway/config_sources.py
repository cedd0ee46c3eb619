"""The effective configuration: flags, environment and file merged, and checked as a whole.

A flag wins over the environment, the environment over the file, the file over the default. What
nobody defined is an error wherever it stands, and all problems are reported together: whoever
repairs a configuration should need to start only once.
"""

import difflib
import ipaddress
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from s4gateway.gateway.config import ENVIRONMENT_PREFIX, OPTIONS, GatewayConfig, Option, show
from s4gateway.objects import dict_map

FILE_VARIABLE: Final = "S4_CONFIG"  # the twin of --config, the one setting a file cannot hold

# What Kubernetes puts into the environment of every pod beside a Service named `s4`.
_SERVICE_LINK: Final = re.compile(r"S4_(SERVICE_|PORT_[0-9]+_)")

_BY_FIELD: Final = {option.field: option for option in OPTIONS}
_BY_KEY: Final = {option.key: option for option in OPTIONS}
_BY_VARIABLE: Final = {option.variable: option for option in OPTIONS}


class ConfigError(Exception):
    """The configuration cannot be used; `problems` has one line for each reason."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class Origin(StrEnum):
    """Where an effective value came from."""

    DEFAULT = "default"
    FILE = "file"
    ENVIRONMENT = "environment"
    FLAG = "flag"


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration and where each of its values came from, by field."""

    config: GatewayConfig
    origins: Mapping[str, Origin]
    file: Path | None

    def rows(self) -> Iterator[tuple[str, str, Origin]]:
        """Key, effective value as the file would hold it, and origin of every option."""
        for option in OPTIONS:
            value = getattr(self.config, option.field)
            yield option.key, show(value), self.origins[option.field]


Flags = Mapping[str, str | bool | Sequence[str] | None]


def load(flags: Flags, environment: Mapping[str, str], file: Path | None = None) -> Loaded:
    """Merge the sources, by field name in `flags`; raises ConfigError with every problem found.

    >>> load({"port": "9000"}, {"S4_PORT": "9001", "S4_HOST": "::1"}).config.port
    9000
    """
    problems: list[str] = []
    if file is None and environment.get(FILE_VARIABLE):
        file = Path(environment[FILE_VARIABLE])
    values: dict[str, Any] = {}
    origins = dict.fromkeys(_BY_FIELD, Origin.DEFAULT)
    sources = (
        (Origin.FILE, _from_file(file, problems)),
        (Origin.ENVIRONMENT, _from_environment(environment, problems)),
        (Origin.FLAG, _from_flags(flags)),
    )
    for origin, source in sources:
        for option, spelling, texts in source:
            origins[option.field] = origin
            try:
                values[option.field] = _parse(option, texts)
            except ValueError as error:
                shown = ", ".join(texts)
                problems.append(f"{spelling}: {shown!r} {error}")
    config = GatewayConfig(**values)
    problems.extend(_contradictions(config))
    if problems:
        raise ConfigError(problems)
    return Loaded(config, origins, file)


def _parse(option: Option, texts: Sequence[str]) -> Any:
    if option.repeatable:
        return tuple(dict.fromkeys(option.parse(text) for text in texts))
    return option.parse(texts[0])


_Source = Iterator[tuple[Option, str, Sequence[str]]]


def _from_flags(flags: Flags) -> _Source:
    for name, value in flags.items():
        option = _BY_FIELD[name]
        if value is None or value == ():
            continue
        texts = (str(value),) if isinstance(value, (str, bool)) else tuple(value)
        yield option, option.flag, texts


def _from_environment(environment: Mapping[str, str], problems: list[str]) -> _Source:
    for variable, text in environment.items():
        if not variable.startswith(ENVIRONMENT_PREFIX) or variable == FILE_VARIABLE or not text:
            continue  # an empty variable is how compose files and shells say "not set"
        option = _BY_VARIABLE.get(variable)
        if _SERVICE_LINK.match(variable) or (variable == "S4_PORT" and "://" in text):
            problems.append(
                f"{variable}: set by Kubernetes for a Service named s4, not a setting of the"
                " gateway; give the pod enableServiceLinks: false"
            )
        elif option is None:
            problems.append(f"{variable}: unknown variable{_suggest(variable, _BY_VARIABLE)}")
        else:
            texts = tuple(text.replace(",", " ").split()) if option.repeatable else (text,)
            yield option, variable, texts


def _from_file(file: Path | None, problems: list[str]) -> _Source:
    if file is None:
        return
    try:
        table = tomllib.loads(file.read_text("utf-8"))
    except OSError as error:
        problems.append(f"{file}: {error.strerror}")
        return
    except ValueError as error:  # TOMLDecodeError and UnicodeDecodeError
        problems.append(f"{file}: not TOML: {error}")
        return
    for key, value in table.items():
        option = _BY_KEY.get(key)
        if option is None:
            problems.append(f"{file}: unknown key {key!r}{_suggest(key, _BY_KEY)}")
        elif (texts := _texts(option, value)) is None:
            problems.append(f"{file}: {key}: {_expected(option)} expected")
        else:
            yield option, f"{file}: {key}", texts


def _texts(option: Option, value: object) -> Sequence[str] | None:
    """A TOML value as the parsers take it; None when its type is not the option's."""
    if option.repeatable:
        items = value if isinstance(value, list) else [value]
        texts = tuple(item for item in items if isinstance(item, str))
        return texts if len(texts) == len(items) else None
    if option.boolean:
        return (str(value),) if isinstance(value, bool) else None
    if isinstance(value, (int, float, str)) and not isinstance(value, bool):
        return (str(value),)
    return None


def _expected(option: Option) -> str:
    if option.repeatable:
        return "a list of strings"
    return "true or false" if option.boolean else "a string or a number"


def _suggest(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def is_loopback(host: str) -> bool:
    """Whether only this machine can connect to `host`.

    >>> is_loopback("127.1.2.3"), is_loopback("::"), is_loopback("localhost")
    (True, False, True)
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _contradictions(config: GatewayConfig) -> Iterator[str]:
    """What no single option can know."""
    if config.endpoint_url is not None and config.embedded is not None:
        yield "--endpoint-url, --embedded: give one of them, not both"
    try:
        dict_map.parse_flags(config.zstd_dict)
    except dict_map.DictMapError as error:
        yield from (f"--zstd-dict: {problem}" for problem in error.problems)
    if (config.tls_cert is None) != (config.tls_key is None):
        missing = "--tls-key" if config.tls_key is None else "--tls-cert"
        yield f"{missing}: missing; --tls-cert and --tls-key belong together"
    if config.credentials is None and not (config.insecure_bind_any or is_loopback(config.host)):
        yield (
            f"--host: {config.host!r} reaches beyond this machine, and without --credentials"
            " clients share the backend's own key pair; give --credentials FILE, or accept it with"
            " --insecure-bind-any"
        )


def require_backend(config: GatewayConfig) -> None:
    """Raise ConfigError unless the configuration names where to store."""
    if config.endpoint_url is None and config.embedded is None:
        raise ConfigError(("--endpoint-url: missing; give the S3 server's URL, or --embedded DIR",))
