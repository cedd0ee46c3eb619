import asyncio
import contextlib
import gzip
from collections.abc import AsyncIterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4gateway.tools import dict_status, prometheus_text
from s4gateway.tools.dict_status import ScrapeError, build, difference, read_counters
from tests import rude_server


def page(
    prefix: str = "b/p/",
    wins: float = 0,
    losses: float = 0,
    sizes: tuple[int, int, int] = (0, 0, 0),
) -> str:
    original, with_dict, plain = sizes
    return (
        "# TYPE s4_dict_put_total counter\n"
        f's4_dict_put_total{{prefix="{prefix}",outcome="win"}} {wins}\n'
        f's4_dict_put_total{{outcome="loss",prefix="{prefix}"}} {losses}\n'
        f's4_dict_put_bytes_total{{prefix="{prefix}",kind="original"}} {original}\n'
        f's4_dict_put_bytes_total{{prefix="{prefix}",kind="dict"}} {with_dict}\n'
        f's4_dict_put_bytes_total{{prefix="{prefix}",kind="plain"}} {plain}\n'
    )


def status_of(text: str, warn_win_rate: float = 0.5) -> dict_status.DictStatus:
    return build(read_counters(prometheus_text.parse(text.encode())), warn_win_rate)


def test_rates_ratios_and_fetches_are_those_of_the_counters():
    text = page("b/p/", 30, 10, (1000, 250, 800)) + page("a/", 1, 0, (10, 5, 9))
    text += 's4_dict_fetch_total{result="ok"} 3\ns4_dict_fetch_total{result="err"} 2\n'
    status = status_of(text)
    assert [each.prefix for each in status.prefixes] == ["a/", "b/p/"]
    found = status.prefixes[1]
    assert (found.wins, found.losses, found.win_rate, found.dict_ratio) == (30, 10, 0.75, 0.25)
    assert (found.original_bytes, found.dict_bytes, found.plain_bytes) == (1000, 250, 800)
    assert (status.dict_fetch_ok, status.dict_fetch_err) == (3, 2)
    assert not status.stale
    assert status.warnings == ()


def test_a_rate_below_the_threshold_is_stale_and_one_at_it_is_not():
    assert status_of(page(wins=49, losses=51)).stale
    assert not status_of(page(wins=50, losses=50)).stale
    assert status_of(page(wins=50, losses=50), warn_win_rate=0.51).stale


def test_the_warning_tells_prefix_rate_puts_threshold_and_what_to_do():
    status = status_of(page("b/old/", 1, 3) + page("b/new/", 3, 1))
    (warning,) = status.warnings
    assert "prefix b/old/: win rate 0.25 over 4 PUTs is below 0.5" in warning
    assert "dictionary may be stale; consider retraining (s4 train-dict)" in warning


def test_without_traffic_nothing_is_stale_and_nothing_divided_by_zero():
    status = status_of(page())
    assert (status.prefixes[0].win_rate, status.prefixes[0].dict_ratio) == (0.0, 0.0)
    assert not status.stale


def test_a_gateway_without_dictionaries_has_no_prefixes_and_a_note():
    status = status_of('s4_requests_total{op="put"} 3\n')
    assert status.prefixes == ()
    assert not status.stale
    assert "no dictionary is configured" in status.notes[0]


def test_cumulative_counters_come_with_a_note_that_they_are():
    assert any("since the gateway started" in note for note in status_of(page(wins=1)).notes)


@pytest.mark.parametrize("text", ["", "<html>log in</html>", "up 1\nprocess_cpu_seconds_total 3\n"])
def test_a_page_of_another_program_is_an_error_not_good_health(text: str):
    with pytest.raises(ScrapeError, match="is the URL right"):
        status_of(text)


def test_values_that_are_no_counts_are_left_out():
    text = page(wins=1) + (
        's4_dict_put_total{prefix="b/p/",outcome="loss"} NaN\n'
        's4_dict_put_total{prefix="b/p/",outcome="loss"} +Inf\n'
        's4_dict_put_total{prefix="b/p/",outcome="loss"} -5\n'
        's4_dict_put_total{prefix="b/p/"} 7\n'
        's4_dict_put_total{outcome="win"} 7\n'
        "s4_dict_fetch_total 7\n"
        's4_dict_put_bytes_total{prefix="b/p/",kind="dict"} 1e300\n'
    )
    found = status_of(text).prefixes[0]
    assert (found.wins, found.losses) == (1, 0)
    assert found.dict_bytes == int(1e300)


def test_the_same_series_of_several_processes_is_added_up():
    assert status_of(page(wins=2) + page(wins=3)).prefixes[0].wins == 5


_SERIES = st.sampled_from([dict_status.PUTS, dict_status.BYTES, dict_status.FETCHES, "s4_up"])
_LABELS = st.dictionaries(
    st.sampled_from(["prefix", "outcome", "kind", "result", "x"]),
    st.sampled_from(["win", "loss", "dict", "original", "ok", "b/p", "é\n"]),
)


@given(st.lists(st.builds(prometheus_text.Sample, _SERIES, _LABELS, st.floats())))
def test_any_samples_give_a_report_or_a_scrape_error(samples: list[prometheus_text.Sample]):
    try:
        status = build(read_counters(samples))
    except ScrapeError:
        return
    assert all(0 <= each.win_rate <= 1 for each in status.prefixes)


# --- windows


def test_the_difference_of_a_counter_that_began_anew_is_its_value():
    earlier, later = {("a",): 10.0, ("b",): 5.0}, {("a",): 4.0, ("b",): 7.0, ("c",): 1.0}
    assert difference(later, earlier) == {("a",): 4.0, ("b",): 2.0, ("c",): 1.0}


@contextlib.asynccontextmanager
async def serving(*answers: bytes) -> AsyncIterator[rude_server.RudeServer]:
    async def script(exchange: rude_server.Exchange) -> None:
        await exchange.answer(200, answers[min(exchange.number, len(answers)) - 1])

    async with rude_server.serve(script) as server:
        yield server


async def test_a_window_judges_what_happened_between_two_scrapes():
    waited: list[float] = []

    async def pause(seconds: float) -> None:
        waited.append(seconds)

    before, after = page(wins=0, losses=1000), page(wins=90, losses=1010)
    async with serving(before.encode(), after.encode()) as server:
        status = await dict_status.run(server.url, window=60, pause=pause)
    assert waited == [60]
    assert (status.prefixes[0].wins, status.prefixes[0].losses) == (90, 10)
    assert not status.stale
    assert status.window_seconds == 60


# --- scraping


async def test_one_scrape_asks_once_for_the_path_given_and_for_no_encoding():
    async with serving(page(wins=3).encode()) as server:
        status = await dict_status.run(f"{server.url}/metrics?x=1")
    assert status.prefixes[0].wins == 3
    (request,) = server.requests
    assert request.target == b"/metrics?x=1"
    assert request.headers["accept-encoding"] == "identity"


async def test_proxies_of_the_environment_are_not_asked(monkeypatch: pytest.MonkeyPatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with serving(page(wins=3).encode()) as server:
        assert (await dict_status.run(server.url)).prefixes[0].wins == 3


async def _fails(answer: Sequence[object], match: str, seconds: float = 10) -> None:
    async def script(exchange: rude_server.Exchange) -> None:
        status, body, headers = answer
        await exchange.answer(status, body, headers)  # type: ignore[arg-type]

    async with rude_server.serve(script) as server:
        with pytest.raises(ScrapeError, match=match):
            await dict_status.scrape(server.url, seconds)


@pytest.mark.parametrize("status", [301, 403, 404, 500, 503])
async def test_any_other_status_than_2xx_is_an_error(status: int):
    await _fails((status, page(wins=1).encode(), {"Location": "/"}), f"status {status}")


async def test_an_encoded_answer_is_an_error():
    body = gzip.compress(page(wins=1).encode())
    await _fails((200, body, {"Content-Encoding": "gzip"}), "content encoding")


async def test_an_endless_answer_is_cut_off():
    async def script(exchange: rude_server.Exchange) -> None:
        await exchange.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        piece = b"100000\r\n" + b"#" * 0x100000 + b"\r\n"
        while True:
            await exchange.send(piece)

    async with rude_server.serve(script) as server:
        with pytest.raises(ScrapeError, match="more than 16777216 bytes"):
            await dict_status.scrape(server.url)


async def test_a_server_that_says_nothing_is_given_up():
    async def script(exchange: rude_server.Exchange) -> None:
        await exchange.freeze()

    async with rude_server.serve(script) as server:
        with pytest.raises(ScrapeError, match=r"no answer within 0\.2 s"):
            await dict_status.scrape(server.url, 0.2)


async def test_a_server_that_trickles_is_given_up_by_the_whole_time_it_takes():
    async def script(exchange: rude_server.Exchange) -> None:
        await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        while True:
            await exchange.send(b"#")
            await asyncio.sleep(0.02)

    async with rude_server.serve(script) as server:
        with pytest.raises(ScrapeError, match=r"no answer within 0\.3 s"):
            await dict_status.scrape(server.url, 0.3)


async def test_an_answer_that_breaks_off_is_an_error():
    async def script(exchange: rude_server.Exchange) -> None:
        await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\ns4_up 1\n")
        exchange.close()

    async with rude_server.serve(script) as server:
        with pytest.raises(ScrapeError):
            await dict_status.scrape(server.url)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "metrics",
        "127.0.0.1:1/metrics",
        "ftp://127.0.0.1/metrics",
        "http://",
        "http://[::1/metrics",
        "http://127.0.0.1:99999/",
        "http://127.0.0.1:1/metrics",
        "http://\udcff/",
        "http://a\x00b/",
        "http://xn--\u2603.invalid:1/",
    ],
)
async def test_a_url_that_leads_nowhere_is_a_scrape_error(url: str):
    with pytest.raises(ScrapeError):
        await dict_status.scrape(url, 5)


async def test_a_password_in_the_url_is_not_told():
    with pytest.raises(ScrapeError) as raised:
        await dict_status.scrape("http://user:secret@127.0.0.1:1/metrics", 5)
    assert "secret" not in str(raised.value)
    assert "http://127.0.0.1:1/metrics" in str(raised.value)
