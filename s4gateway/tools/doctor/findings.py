"""One thing that was found out about a store, and how it is asked for.

Rule: a question that was not answered is "unknown", never "works"; a header that was accepted
proves nothing, only what is refused when it is wrong does.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from s4gateway.backend.base import BackendError
from s4gateway.s3.errors import S3Error


class Verdict(StrEnum):
    """How it is with one thing."""

    WORKS = "works"
    """As S3 has it."""
    NOTE = "note"
    """Different, or worth knowing; nothing has to be done."""
    BITES = "bites"
    """Will cost something some day unless it is taken care of."""
    BROKEN = "broken"
    """A gateway cannot work over this."""
    UNKNOWN = "unknown"
    """The store's answer told nothing."""
    SKIPPED = "skipped"
    """Not tried, for trying would leave traces."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found; `words` are the words of `--backend-profile` it calls for."""

    name: str
    verdict: Verdict
    detail: str
    words: tuple[str, ...] = ()


Check = Callable[[], Awaitable[Sequence[Finding]]]


async def answer(name: str, check: Check) -> list[Finding]:
    """Make a check; what the store does not answer is unknown, and the reason is said."""
    try:
        return list(await check())
    except (BackendError, S3Error) as error:
        return [Finding(name, Verdict.UNKNOWN, str(error))]
