"""The gateway's settings as command-line options, and the way from a command line to a config.

Rule: flags are not written down here. They are derived from the one table in gateway/config.py,
reach it as text, and are judged there together with the environment and the file, so that all that
is wrong is said in one pass, in the same words wherever it stood.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from s4gateway.gateway import config, config_sources
from s4gateway.gateway.config_sources import FILE_VARIABLE, ConfigError, Loaded


class ConfigurationProblem(click.ClickException):
    """One line for each problem; the status of a wrong command line."""

    exit_code = 2


Command = Callable[..., Any]


def settings_options(command: Command) -> Command:
    """Add --config and a flag for every setting; the values arrive as keyword arguments."""
    for option in reversed(config.OPTIONS):
        command = flag(option)(command)
    return click.option(
        "--config",
        "config_file",
        metavar="FILE",
        help=f"Settings in TOML, keys as the flags without dashes.  [env: {FILE_VARIABLE}]",
    )(command)


def load(config_file: str | None, flags: dict[str, Any]) -> Loaded:
    """Merge flags, environment and file; raises ConfigurationProblem with every problem."""
    try:
        file = Path(config_file) if config_file else None
        return config_sources.load(flags, os.environ, file)
    except ConfigError as error:
        raise ConfigurationProblem(str(error)) from error


def flag(option: config.Option) -> Callable[[Command], Command]:
    """Return the decorator that adds one setting as an option."""
    default = config.show(option.default)
    notes = [f"env: {option.variable}"]
    if default:
        notes.append(f"default: {default}")
    if option.repeatable:
        notes.append("repeatable")
    text = f"{option.help}  [{'; '.join(notes)}]"
    if option.boolean:
        names = f"{option.flag}/--no-{option.key}"
        return click.option(names, option.field, default=None, help=text)
    return click.option(
        option.flag,
        option.field,
        default=None,
        multiple=option.repeatable,
        metavar=option.metavar,
        help=text,
    )
