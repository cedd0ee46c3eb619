"""The command `s4`: a bare `s4 --endpoint-url URL` serves, a word names another command.

Rules: a command's module is imported when the command is named, so `s4 --help` is instant. A person
sees one line for each thing that is wrong, never a traceback (`--log-level debug` logs it).

    exit status   0 done   1 it failed while running   2 the command line or configuration is wrong
"""

import importlib
import logging
import sys
from collections.abc import Sequence
from typing import Final, NoReturn

import click

import s4gateway

EXIT_FAILURE: Final = 1
EXIT_USAGE: Final = 2
EXIT_INTERRUPTED: Final = 130

DEFAULT_COMMAND: Final = "serve"

# name: (where it is, its line in the list)
COMMANDS: Final = {
    "serve": ("s4gateway.cli.serve:serve", "Run the gateway (also without a command)."),
    "config": ("s4gateway.cli.config_command:config", "Show every setting and its origin."),
    "estimate": ("s4gateway.cli.estimate:estimate", "Project what a bucket would shrink to."),
    "migrate": ("s4gateway.cli.rewrite:migrate", "Compress what a bucket already holds."),
    "recompact": ("s4gateway.cli.rewrite:recompact", "Compress gateway objects harder."),
    "parquet-recompact": (
        "s4gateway.cli.parquet:parquet_recompact",
        "Compress Parquet files inside, with zstd.",
    ),
    "maintain": ("s4gateway.cli.maintain:maintain", "Carry out the rules of a policy file."),
    "savings": ("s4gateway.cli.cost:savings_command", "Report what compression saves."),
    "decode": ("s4gateway.cli.offline:decode", "Decode a stored object without a gateway."),
    "inspect": ("s4gateway.cli.offline:inspect", "Show what a stored object is made of."),
    "index": ("s4gateway.cli.offline:index", "Make the range index of a stored body."),
    "doctor": ("s4gateway.cli.doctor:doctor", "Find out what a store can do and what will bite."),
    "verify": ("s4gateway.cli.verify:verify", "Read every object and report the damaged ones."),
    "verify-sidecar": ("s4gateway.cli.repair:verify_sidecar", "Check one object's range index."),
    "repair-sidecar": (
        "s4gateway.cli.repair:repair_sidecar",
        "Make one object's range index anew.",
    ),
    "sweep-orphan-sidecars": (
        "s4gateway.cli.repair:sweep_orphan_sidecars",
        "Find indexes without an object; delete them.",
    ),
    "train-dict": (
        "s4gateway.cli.dictionaries:train",
        "Train a dictionary on objects of a bucket.",
    ),
    "dict-status": (
        "s4gateway.cli.dictionaries:status",
        "Tell whether a gateway's dictionaries still pay.",
    ),
    "dict": (
        "s4gateway.cli.dictionaries:dictionary",
        "Find unused dictionaries, copy dictionaries into files.",
    ),
    "dataset": ("s4gateway.cli.dataset:dataset", "Make, look into and check datasets."),
}

logger = logging.getLogger("s4.cli")


class CommandGroup(click.Group):
    """Commands by name, imported on use; options without a name are the default command's."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Insert the default command where none is named."""
        if not args or (args[0].startswith("-") and args[0] not in {"--help", "-h", "--version"}):
            args = [DEFAULT_COMMAND, *args]
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(module), name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=CommandGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(s4gateway.__version__, prog_name="s4")
def cli() -> None:
    """An S3-compatible gateway that compresses what you store, invisibly.

    s4 --endpoint-url URL serves the store at URL; s4 --embedded DIR needs nothing else.
    """


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run `s4` and exit; every failure is a line on stderr and a status."""
    try:
        result = cli.main(args=arguments, prog_name="s4", standalone_mode=False)
    except click.exceptions.Exit as ended:
        sys.exit(ended.exit_code)
    except click.UsageError as error:
        _complain(error.format_message())
        if error.ctx is not None:
            click.echo(f"Try '{error.ctx.command_path} --help'.", err=True)
        sys.exit(EXIT_USAGE)
    except click.ClickException as error:
        _complain(error.format_message())
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:
        sys.stderr.close()  # whoever read our output has gone; there is nobody to tell
        sys.exit(EXIT_FAILURE)
    except Exception as error:
        logger.debug("unexpected", exc_info=True)
        _complain(f"{type(error).__name__}: {error}")
        sys.exit(EXIT_FAILURE)
    sys.exit(result if isinstance(result, int) else 0)


def _complain(text: str) -> None:
    for line in text.splitlines() or [""]:
        click.echo(f"s4: {line}", err=True)
