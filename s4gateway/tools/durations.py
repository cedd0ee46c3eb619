"""Lengths of time as an operator writes them: `7d`, `36h`, `90m`, `30s`."""

import re
from datetime import timedelta
from typing import Final

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_duration(text: str) -> timedelta:
    """Read a whole number of seconds, minutes, hours or days; raises ValueError.

    >>> parse_duration("36h")
    datetime.timedelta(days=1, seconds=43200)
    """
    match = re.fullmatch("([0-9]{1,12})([smhd])", text, re.ASCII)
    if match is None:
        raise ValueError(f"{text!r} is no duration: give a number and s, m, h or d, as in 7d")
    try:
        return timedelta(seconds=int(match[1]) * _UNITS[match[2]])
    except OverflowError:
        raise ValueError(f"{text!r} is too long a duration") from None
