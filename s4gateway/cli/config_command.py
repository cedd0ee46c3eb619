"""`s4 config`: what the gateway would run with, and where each value comes from.

Nothing here is a secret: keys live in the environment, a profile or the credentials file, and the
configuration holds at most that file's path.
"""

import json
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from s4gateway.cli import settings


@click.command("config")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="How to print.",
)
@settings.settings_options
def config(form: str, config_file: str | None, **flags: Any) -> int:
    """Show every setting with its effective value and origin (default, file, environment, flag).

    Takes the gateway's own options, so it shows what the same command line would run with. Exits
    with status 2, and all problems, when the gateway would refuse the configuration.
    """
    loaded = settings.load(config_file, flags)
    rows = list(loaded.rows())
    if form == "json":
        values = {key: {"value": value, "origin": origin} for key, value, origin in rows}
        click.echo(json.dumps(values, indent=2))
        return 0
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("setting", "value", "origin"):
        table.add_column(title, no_wrap=True, overflow="ignore")
    for key, value, origin in rows:
        table.add_row(key, Text(value or "-"), str(origin))
    width = 2 + sum(max(map(len, column)) + 2 for column in zip(*rows, strict=True))
    Console(width=max(width, 40), soft_wrap=True).print(table)
    return 0
