import io
import json
import logging
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4gateway.gateway import logs
from s4gateway.gateway.logs import Format

LOG = logging.getLogger("s4.test")


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    root, s4 = logging.getLogger(), logging.getLogger("s4")
    before = root.handlers[:], root.level, s4.level, logs.ACCESS.disabled
    flags = logging.logThreads, logging.logProcesses, logging.logMultiprocessing
    raised, direct = logging.raiseExceptions, logs._direct
    yield
    logs._direct = direct
    root.handlers[:], root.level, s4.level, logs.ACCESS.disabled = before
    logging.logThreads, logging.logProcesses, logging.logMultiprocessing = flags
    logging.raiseExceptions = raised
    logging.captureWarnings(capture=False)
    s4.manager._clear_cache()  # type: ignore[attr-defined]


def configured(form: Format, level: str = "info", *, access_log: bool = True) -> io.StringIO:
    stream = io.StringIO()
    logs.configure(form, level, access_log=access_log, stream=stream)
    return stream


def test_json_lines_carry_time_level_event_and_fields():
    stream = configured(Format.JSON)
    logs.event(LOG, logging.WARNING, "range-fallback", key='a "b"\nc', size=3, ratio=0.5)
    line = json.loads(stream.getvalue())
    assert stream.getvalue().count("\n") == 1
    assert line["level"] == "warning"
    assert line["event"] == "range-fallback"
    assert (line["key"], line["size"], line["ratio"]) == ('a "b"\nc', 3, 0.5)
    assert line["time"].endswith("Z")
    assert line["logger"] == "s4.test"


def test_pretty_lines_quote_what_could_be_mistaken():
    stream = configured(Format.PRETTY)
    logs.event(LOG, logging.INFO, "stored", key="a b\nERROR forged=1", size=3, plain="x/y")
    text = stream.getvalue()
    assert text.count("\n") == 1
    assert 'key="a b\\nERROR forged=1" size=3 plain=x/y' in text
    assert " INFO    stored " in text


@given(st.text(), st.sampled_from(Format))
def test_no_value_makes_a_second_line(text: str, form: Format):
    stream = configured(form)
    logs.event(LOG, logging.ERROR, "event", value=text)
    assert len(stream.getvalue().rstrip("\n").splitlines()) == 1 or form is Format.JSON
    assert stream.getvalue().count("\n") == 1


def test_a_traceback_is_kept_with_its_event():
    stream = configured(Format.JSON)
    try:
        int("what happened")
    except ValueError:
        logs.event(LOG, logging.ERROR, "failed", exc_info=True, request_id="0A")
    line = json.loads(stream.getvalue())
    assert "what happened" in line["exception"]
    assert line["request_id"] == "0A"


def test_the_level_is_kept_and_libraries_only_warn():
    stream = configured(Format.PRETTY, "warning")
    logs.event(LOG, logging.INFO, "quiet")
    logging.getLogger("httpx").info("chatter")
    logging.getLogger("httpx").warning("trouble %d", 7)
    assert "quiet" not in stream.getvalue()
    assert "chatter" not in stream.getvalue()
    assert "trouble 7" in stream.getvalue()


def test_the_access_line_can_be_turned_off():
    fields = {"request_id": "0A", "method": "GET", "key": "k", "status": 200}
    stream = configured(Format.JSON)
    logs.access(fields)
    line = json.loads(stream.getvalue())
    assert line["logger"] == "s4.access"
    assert list(line)[-4:] == list(fields)
    silent = configured(Format.JSON, access_log=False)
    logs.access(fields)
    logs.event(LOG, logging.INFO, "still-here")
    assert silent.getvalue().count("\n") == 1


@pytest.mark.parametrize("form", Format)
def test_the_access_line_is_the_one_a_record_would_have_made(form: Format):
    fields = {"key": 'a "b"\n\u2028é', "status": 200, "ms": 1.25, "none": None, "deep": [1, "x"]}
    stream = configured(form)
    logs.access(fields)
    logs._direct = None
    logs.access(fields)
    direct, through_logging = stream.getvalue().split("\n")[:-1]
    assert direct.partition("Z")[2] == through_logging.partition("Z")[2]  # behind the time


SECRET = "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY"


@pytest.mark.parametrize(
    "text",
    [
        f"GET /b/k?X-Amz-Credential=a&X-Amz-Signature={SECRET}&x=1",
        f"GET /b/k?AWSAccessKeyId=A&Signature={SECRET}&Expires=1",
        f"GET /b/k?x-amz-security-token={SECRET}",
        f"http://h/b?X-Amz-Signature%3D{SECRET}",
        f"authorization: AWS4-HMAC-SHA256 Credential=A/x, SignedHeaders=h, Signature={SECRET}",
        f"Authorization: AWS AKID:{SECRET}",
        f"{{'Authorization': 'Bearer {SECRET}', 'host': 'x'}}",
        f"(b'authorization', b'x') authorization=b'{SECRET}'",
        f"AWS4-HMAC-SHA256 Credential=A/1/2, Signature={SECRET}",
        f"x-amz-server-side-encryption-customer-key: {SECRET}",
        f"x-amz-copy-source-server-side-encryption-customer-key={SECRET}",
        f"X-Amz-Security-Token: {SECRET}",
        f"Credentials(access_key='A', secret='{SECRET}')",
        f'{{"secretAccessKey": "{SECRET}", "sessionToken":"{SECRET}"}}',
        f"aws_secret_access_key = {SECRET}",
        f"SIGNATURE={SECRET}",
    ],
)
@pytest.mark.parametrize("form", Format)
def test_a_secret_in_any_text_is_hidden(text: str, form: Format):
    assert SECRET not in logs.redact(text)
    stream = configured(form)
    logs.event(LOG, logging.ERROR, "text", value=text)
    LOG.error(text)
    logs.access({"query": text})
    try:
        int(text)
    except ValueError:
        LOG.exception("failed")
    assert SECRET not in stream.getvalue()
    assert logs.HIDDEN in stream.getvalue()


@pytest.mark.parametrize("name", ["authorization", "secret", "session_token", "x-amz-signature"])
def test_a_field_named_like_a_secret_is_hidden(name: str):
    stream = configured(Format.JSON)
    LOG.error("event", extra={"fields": {name: SECRET, "bucket": "b"}})
    logs.access({name: SECRET, "bucket": "b"})
    for text in stream.getvalue().splitlines():
        line = json.loads(text)
        assert (line[name], line["bucket"]) == (logs.HIDDEN, "b")


@pytest.mark.parametrize("text", ["tokens/secretary/k", "x-amz-sse-customer-key-md5", "plain"])
def test_ordinary_keys_are_left_alone(text: str):
    assert logs.redact(text) == text


def test_request_ids_do_not_repeat():
    made = {logs.new_request_id() for _ in range(10_000)}
    assert len(made) == 10_000
    assert all(
        len(each) == 16 and int(each, 16) >= 0 and each.isupper()
        for each in made
        if not each.isdigit()
    )
