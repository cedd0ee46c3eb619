"""Do the dictionaries of a running gateway still pay? Told from the counters it exposes.

    s4_dict_put_total{prefix,outcome}       PUTs that tried the dictionary: win or loss
    s4_dict_put_bytes_total{prefix,kind}    their bytes: original, dict, plain
    s4_dict_fetch_total{result}             dictionaries fetched for reads: ok or err

Rule: the answer is a stranger's. It is read within ten seconds in all and up to a bound, through no
proxy, and whatever it holds gives a report or a ScrapeError. The counters began with the gateway
process; with a window, only what happened between two scrapes is judged.
"""

import asyncio
import math
import ssl
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

import httpx

from s4gateway.tools import prometheus_text
from s4gateway.tools.prometheus_text import Sample

WARN_WIN_RATE: Final = 0.5
RETRAIN: Final = "dictionary may be stale; consider retraining (s4 train-dict)"
PUTS: Final = "s4_dict_put_total"
BYTES: Final = "s4_dict_put_bytes_total"
FETCHES: Final = "s4_dict_fetch_total"

_SECONDS: Final = 10.0
_PAGE_LIMIT: Final = 16 * 1024 * 1024  # bytes; a gateway's page has some ten thousand
_OURS: Final = "s4_"
_LABELS: Final[Mapping[str, tuple[str, ...]]] = {
    PUTS: ("prefix", "outcome"),
    BYTES: ("prefix", "kind"),
    FETCHES: ("result",),
}

# What a counter said, by its name and the labels that matter here.
Counters = Mapping[tuple[str, ...], float]
Pause = Callable[[float], Awaitable[None]]


class ScrapeError(Exception):
    """The metrics page was not answered, or the answer is none."""


@dataclass(frozen=True, slots=True)
class PrefixStatus:
    """What a dictionary did for the PUTs below one `<bucket>/<prefix>`; sizes in bytes.

    `dict_bytes` and `plain_bytes` are payloads made with and without it, on wins and losses alike;
    `dict_ratio` is dict_bytes / original_bytes, `win_rate` wins per PUT, both 0.0 without traffic.
    """

    prefix: str
    wins: int
    losses: int
    win_rate: float
    original_bytes: int
    dict_bytes: int
    plain_bytes: int
    dict_ratio: float
    stale: bool


@dataclass(frozen=True, slots=True)
class DictStatus:
    """Every prefix that had a dictionary, and what to warn of.

    `window_seconds` is None when the counters are those since the gateway started.
    """

    prefixes: tuple[PrefixStatus, ...]
    dict_fetch_ok: int
    dict_fetch_err: int
    warn_win_rate: float
    window_seconds: float | None
    warnings: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def stale(self) -> bool:
        """Whether any dictionary should be looked at."""
        return any(each.stale for each in self.prefixes)


async def run(
    url: str,
    warn_win_rate: float = WARN_WIN_RATE,
    window: float | None = None,
    pause: Pause = asyncio.sleep,
) -> DictStatus:
    """Scrape the metrics page at `url` and judge; with `window`, twice, that many seconds apart.

    Raises ScrapeError.
    """
    counters = read_counters(await scrape(url))
    if window is not None:
        await pause(window)
        counters = difference(read_counters(await scrape(url)), counters)
    return build(counters, warn_win_rate, window)


def build(
    counters: Counters, warn_win_rate: float = WARN_WIN_RATE, window: float | None = None
) -> DictStatus:
    """Judge every prefix in the counters.

    >>> page = b'''s4_dict_put_total{prefix="b/p",outcome="win"} 3
    ... s4_dict_put_total{prefix="b/p",outcome="loss"} 1'''
    >>> status = build(read_counters(prometheus_text.parse(page)), warn_win_rate=0.8)
    >>> status.prefixes[0].win_rate, status.stale
    (0.75, True)
    """
    names = {key[1] for key in counters if key[0] in {PUTS, BYTES}}
    prefixes = tuple(_judge(name, counters, warn_win_rate) for name in sorted(names))
    notes = [] if prefixes else ["no dictionary is configured there, or none was tried yet"]
    if prefixes and window is None:
        notes.append(
            "counted since the gateway started: after a rotation an old dictionary's losses stay "
            "in, and removed prefixes are still shown; --window judges the present"
        )
    return DictStatus(
        prefixes,
        int(counters.get((FETCHES, "ok"), 0)),
        int(counters.get((FETCHES, "err"), 0)),
        warn_win_rate,
        window,
        tuple(_warning(each, warn_win_rate) for each in prefixes if each.stale),
        tuple(notes),
    )


def _judge(prefix: str, counters: Counters, warn_win_rate: float) -> PrefixStatus:
    wins = int(counters.get((PUTS, prefix, "win"), 0))
    losses = int(counters.get((PUTS, prefix, "loss"), 0))
    original, with_dict, plain = (
        int(counters.get((BYTES, prefix, kind), 0)) for kind in ("original", "dict", "plain")
    )
    puts = wins + losses
    win_rate = wins / puts if puts else 0.0
    return PrefixStatus(
        prefix=prefix,
        wins=wins,
        losses=losses,
        win_rate=win_rate,
        original_bytes=original,
        dict_bytes=with_dict,
        plain_bytes=plain,
        dict_ratio=with_dict / original if original else 0.0,
        stale=puts > 0 and win_rate < warn_win_rate,
    )


def _warning(each: PrefixStatus, threshold: float) -> str:
    return (
        f"prefix {each.prefix}: win rate {each.win_rate:.2f} over {each.wins + each.losses} PUTs "
        f"is below {threshold:g}: {RETRAIN}"
    )


def read_counters(samples: Iterable[Sample]) -> Counters:
    """Return the dictionary counters among `samples`; raises ScrapeError when there are none of s4.

    The same series twice, as several processes behind one page give it, is added up.
    """
    counters: dict[tuple[str, ...], float] = {}
    is_ours = False
    for sample in samples:
        is_ours = is_ours or sample.name.startswith(_OURS)
        key = _key(sample)
        if key is not None and math.isfinite(sample.value) and sample.value >= 0:
            counters[key] = counters.get(key, 0) + sample.value
    if not is_ours:
        raise ScrapeError("the answer holds no metrics of a gateway (s4_...): is the URL right?")
    return counters


def _key(sample: Sample) -> tuple[str, ...] | None:
    wanted = _LABELS.get(sample.name)
    if wanted is None or not all(label in sample.labels for label in wanted):
        return None
    return (sample.name, *(sample.labels[label] for label in wanted))


def difference(later: Counters, earlier: Counters) -> Counters:
    """Return what was counted in between; a counter that fell began anew with its process.

    >>> difference({("a",): 5, ("b",): 2}, {("a",): 3, ("b",): 4})
    {('a',): 2, ('b',): 2}
    """
    return {
        key: value - before if value >= (before := earlier.get(key, 0)) else value
        for key, value in later.items()
    }


async def scrape(url: str, seconds: float = _SECONDS) -> Iterable[Sample]:
    """Return the samples of the page at `url`, read within `seconds`; raises ScrapeError."""
    shown = _shown(url)
    try:
        _check(url)
        async with asyncio.timeout(seconds):
            page = await _get(url, seconds)
    except ScrapeError as error:
        raise ScrapeError(f"{shown}: {error}") from error
    except TimeoutError as error:
        raise ScrapeError(f"{shown}: no answer within {seconds:g} s") from error
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
        raise ScrapeError(f"{shown}: {str(error) or type(error).__name__}") from error
    return prometheus_text.parse(page)


def _check(url: str) -> None:
    parts = httpx.URL(url)
    if parts.scheme not in {"http", "https"} or not parts.host:
        raise ScrapeError("give a URL as in http://127.0.0.1:8014/metrics")
    if parts.port is not None and not 0 < parts.port < 65536:
        raise ScrapeError(f"there is no port {parts.port}")


async def _get(url: str, seconds: float) -> bytes:
    context = ssl.create_default_context()
    async with (
        httpx.AsyncClient(trust_env=False, verify=context, timeout=seconds) as client,
        client.stream("GET", url, headers={"accept-encoding": "identity"}) as answer,
    ):
        if answer.status_code // 100 != 2:
            raise ScrapeError(f"the answer has status {answer.status_code}")
        if answer.headers.get("content-encoding", "identity") != "identity":
            raise ScrapeError("the answer has a content encoding nobody asked for")
        page = bytearray()
        async for piece in answer.aiter_raw():
            page += piece
            if len(page) > _PAGE_LIMIT:
                raise ScrapeError(f"the answer has more than {_PAGE_LIMIT} bytes")
        return bytes(page)


def _shown(url: str) -> str:
    """The URL without the password it may hold."""
    try:
        parts = urlsplit(url)
        return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    except ValueError:
        return "the URL"
