"""`s4 --endpoint-url URL`, `s4 --embedded DIR`, `s4 serve`: run the gateway until told to stop.

exit status   0 stopped, every request finished   1 could not start, or requests were cut off
              2 the configuration is wrong
"""

from typing import Any

import click

from s4gateway.cli import settings
from s4gateway.gateway import config_sources, logs


@click.command()
@settings.settings_options
def serve(config_file: str | None, **flags: Any) -> int:
    """Run the gateway.

    Every option is also an environment variable and a key of the --config file; an option wins over
    the environment, the environment over the file. SIGTERM drains, SIGHUP reloads the credentials
    file, the TLS certificate and the map of dictionaries, SIGUSR1 writes the savings ledger.
    """
    loaded = settings.load(config_file, flags)
    try:
        config_sources.require_backend(loaded.config)
    except config_sources.ConfigError as error:
        raise settings.ConfigurationProblem(str(error)) from error
    chosen = loaded.config
    logs.configure(chosen.log_format, chosen.log_level, access_log=chosen.access_log)

    from s4gateway.gateway import server  # noqa: PLC0415 - half a second nobody's --help waits for
    from s4gateway.gateway.lifecycle import StartupError  # noqa: PLC0415

    try:
        return server.run(chosen)
    except StartupError as error:
        raise click.ClickException(str(error)) from error
