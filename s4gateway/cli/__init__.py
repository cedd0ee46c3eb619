"""Words on the command line, one call, a rendered report, an exit code."""
