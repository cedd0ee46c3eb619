"""Generated reference pages: `python -m tests.docs.generate` writes them, a test compares them.

    docs/reference/cli.md             every command's --help
    docs/reference/configuration.md   every row of the option table

Rule: a page is the same on every machine, so defaults that depend on the machine (cores, temporary
directory) are written as words.
"""

import copy
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import click

from s4gateway.cli import main
from s4gateway.gateway import config
from tests.docs import pages

_WIDTH: Final = 96
_COMMAND: Final = "make docs"

MACHINE_DEFAULTS: Final = {
    "codec_threads": "the cores this process may use",
    "spool_dir": "the system's temporary directory",
}

# Every option in one group; a test fails for an option that is in none.
GROUPS: Final[dict[str, tuple[str, ...]]] = {
    "Where to store, where to listen": (
        "endpoint_url", "embedded", "region", "host", "port", "domain", "admin_listen",
        "insecure_bind_any",
    ),
    "Compression": ("codec", "zstd_level", "dispatcher", "codec_threads"),
    "Dictionaries": ("zstd_dict", "zstd_dict_map", "zstd_dict_max_bytes"),
    "Clients": (
        "credentials", "allow_sigv2_presigned", "anonymous", "tls_cert", "tls_key",
        "allow_legacy_reserved_key_reads",
    ),
    "Listings": ("physical_listings", "listing_head_concurrency"),
    "Limits": (
        "max_body_bytes", "max_header_bytes", "max_concurrent_connections",
        "header_timeout_seconds", "read_timeout_seconds", "keep_alive_seconds", "drain_seconds",
    ),
    "Memory and disk": ("memory_budget_bytes", "spool_dir", "frame_cache_bytes"),
    "Savings ledger": ("savings_ledger_state_file",),
    "The way to the store": (
        "backend_profile", "backend_connect_timeout_seconds", "backend_read_timeout_seconds",
        "backend_pool_size",
    ),
    "Logs": ("log_format", "log_level", "access_log"),
}  # fmt: skip


def generated() -> dict[Path, str]:
    """Every generated page and what it should hold."""
    return {
        pages.REFERENCE / "cli.md": "".join(cli_page()),
        pages.REFERENCE / "configuration.md": "".join(configuration_page()),
    }


# --- cli.md


_CLI_INTRODUCTION: Final = """\
`s4` without a command word is `s4 serve`: `s4 --endpoint-url URL` serves. The options of `serve`
are the settings of [configuration](configuration.md), which also tells how environment variables
and a file give them. Results go to stdout, logs and complaints to stderr, one line for each thing
that is wrong.

| Exit status | Meaning |
|---|---|
| 0 | done; for `serve`: stopped, and every request was finished |
| 1 | could not start, or failed while running; for `serve` also: requests were cut off; for tools also: they found what somebody should look at |
| 2 | the command line or the configuration is wrong |
| 130 | interrupted from the keyboard; `serve` only before it served |

| Signal to `serve` | Effect |
|---|---|
| SIGTERM, SIGINT | `/ready` says 503, the port closes, running requests may finish within `--drain-seconds`; the rest is reset. A second one resets at once. |
| SIGHUP | read the credentials file, the TLS certificate and the map of dictionaries again, all or nothing |
| SIGUSR1 | write the savings ledger's state file; without a ledger nothing happens |
"""  # noqa: E501 - a table row is one line


def cli_page() -> Iterator[str]:
    """The commands with their help texts."""
    yield f"# Command line\n\nGenerated from the program's own help with `{_COMMAND}`.\n\n"
    yield _CLI_INTRODUCTION
    root = click.Context(
        main.cli, info_name="s4", terminal_width=_WIDTH, **main.cli.context_settings
    )
    yield _help("s4", root)
    for name in main.COMMANDS:
        command = main.cli.get_command(root, name)
        assert command is not None
        yield from _sections(root, name, command)


def _sections(parent: click.Context, name: str, command: click.Command) -> Iterator[str]:
    """The section of a command, and those of the commands below it."""
    serves = name == main.DEFAULT_COMMAND
    shown = _shown(command, settings=serves)
    context = click.Context(shown, parent=parent, info_name=name, terminal_width=_WIDTH)
    yield _help(context.command_path, context)
    if not serves:
        yield _further(command)
    if isinstance(command, click.Group):
        for below, each in command.commands.items():
            yield from _sections(context, below, each)


def _further(command: click.Command) -> str:
    """Which of the settings a command takes beside its own options."""
    names = {parameter.name for parameter in command.params}
    flags = [option.flag for option in config.OPTIONS if option.field in names]
    if not flags:
        return ""
    listed = ", ".join(f"`{flag}`" for flag in flags)
    what = "every setting" if len(flags) == len(config.OPTIONS) else listed
    text = f"Further options, as for [s4 serve](#s4-serve): {what}."
    return f"\n{textwrap.fill(text, 100, break_on_hyphens=False)}\n"


def _help(title: str, context: click.Context) -> str:
    return f"\n## {title}\n\n```text\n{context.get_help().rstrip()}\n```\n"


def _shown(command: click.Command, *, settings: bool) -> click.Command:
    """A command as its page shows it: with the settings or without, and no machine's defaults."""
    shown = copy.copy(command)
    fields = {option.field for option in config.OPTIONS}
    shown.params = [
        _generalised(parameter)
        for parameter in command.params
        if settings or parameter.name not in fields
    ]
    return shown


def _generalised(parameter: click.Parameter) -> click.Parameter:
    """The parameter without a default that only this machine has."""
    words = MACHINE_DEFAULTS.get(parameter.name or "")
    if words is None or not isinstance(parameter, click.Option) or parameter.help is None:
        return parameter
    default = next(row.default for row in config.OPTIONS if row.field == parameter.name)
    general = copy.copy(parameter)
    general.help = parameter.help.replace(f"default: {config.show(default)}", f"default: {words}")
    return general


# --- configuration.md


_INTRODUCTION: Final = """\
Every setting has one name in three spellings: a flag of the command line, an environment variable,
and a key of one TOML file, which `--config FILE` or `S4_CONFIG` names. A flag wins over the
environment, the environment over the file, the file over the default.

What nobody defined is an error: an unknown flag, an unknown variable that begins with `S4_`, an
unknown key in the file. All problems are reported at once, with exit status 2. An empty variable
counts as not set. `s4 config`, with the same flags, prints the effective values and where each came
from.

| Value | How to write it |
|---|---|
| SIZE | bytes, or a number with `KiB`, `MiB`, `GiB`, `TiB`, or the decimal `kB`, `MB`, `GB` |
| SECONDS | above 0, up to 86400; fractions are fine |
| COUNT, PORT | a whole number in the range the setting allows |
| true, false | flag `--name` or `--no-name`; variable `true`, `yes`, `on`, `1` or their opposites; in the file a TOML boolean |
| repeatable | the flag several times; the variable with commas or spaces between; a list in the file |
| PROFILE | words with commas between, what each of them means is told under [backends](backends.md) |

"""  # noqa: E501 - a table row is one line

_EXAMPLE: Final = """\
endpoint-url = "https://s3.eu-central-1.amazonaws.com"
region = "eu-central-1"
host = "0.0.0.0"
credentials = "/etc/s4/credentials.toml"
domain = ["s3.example.com"]
memory-budget-bytes = "512MiB"
log-format = "json"
"""

_BESIDES: Final = """\
Settings that belong together:

- `endpoint-url` or `embedded`: exactly one of them, to serve.
- `tls-cert` and `tls-key`: both or neither.
- `host` beyond loopback needs `credentials`, or `insecure-bind-any`.
- A prefix stands in `zstd-dict` or in the file of `zstd-dict-map`, not in both. The file has one
  table, `[mappings]`, of lines like `"bucket/prefix" = "0123456789abcdef"`, and at most 1 MiB.
  What is mapped is told under [dictionaries](../explanation/dictionaries.md).

`--config FILE` or `S4_CONFIG` names the file itself, so it is the one setting a file cannot hold.

`region` is also what clients have to sign for: a signature for another region is refused.
`AWS_REGION` does not set it.

The gateway's own key pair for the store is no setting. It is looked for, in this order, in
`AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY` (with `AWS_SESSION_TOKEN`), the profile
`AWS_PROFILE` of the shared credentials and configuration files, web identity
(`AWS_WEB_IDENTITY_TOKEN_FILE` with `AWS_ROLE_ARN`), the container endpoint of ECS and EKS, and the
instance metadata of EC2 (IMDSv2 only). With `--embedded` it is in `DIR/s3.json`.
A profile has to hold keys: one that assumes a role, signs on by SSO or runs a program is an error.
"""


def configuration_page() -> Iterator[str]:
    """The settings, by topic."""
    yield f"# Configuration\n\nGenerated from the option table with `{_COMMAND}`.\n\n"
    yield f"{_INTRODUCTION}```toml\n{_EXAMPLE}```\n\n{_BESIDES}"
    by_field = {option.field: option for option in config.OPTIONS}
    header = ("Flag", "Variable", "File", "Value", "Default", "Meaning")
    for title, fields in GROUPS.items():
        yield f"\n## {title}\n\n"
        yield from _table(header, [_setting(by_field[name]) for name in fields])


def _setting(option: config.Option) -> tuple[str, ...]:
    return (
        f"`--[no-]{option.key}`" if option.boolean else f"`{option.flag}`",
        f"`{option.variable}`",
        f"`{option.key}`",
        _kind(option),
        _default(option),
        option.help,
    )


def _kind(option: config.Option) -> str:
    if option.boolean:
        return "true, false"
    text = (option.metavar or "").replace("|", ", ")
    return f"{text}, repeatable" if option.repeatable else text


def _default(option: config.Option) -> str:
    words = MACHINE_DEFAULTS.get(option.field)
    if words is not None:
        return words
    text = config.show(option.default)
    if not text:
        return "not set"
    return f"`{text}` ({_binary(option.default)})" if option.metavar == "SIZE" else f"`{text}`"


def _binary(size: int) -> str:
    for factor, unit in ((config.GIB, "GiB"), (config.MIB, "MiB"), (config.KIB, "KiB")):
        if size % factor == 0:
            return f"{size // factor} {unit}"
    return f"{size} bytes"


# --- shapes


def _table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    yield f"| {' | '.join(header)} |\n|{'---|' * len(header)}\n"
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |\n"


def write() -> None:
    """Write every generated page."""
    for path, text in generated().items():
        path.write_text(text)


if __name__ == "__main__":
    write()
