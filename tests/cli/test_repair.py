"""Command lines of the sidecar tools, `s4 verify` and `s4 doctor` that cannot be meant."""

import pytest

from s4gateway.cli import main

_STORE = ("--endpoint-url", "http://127.0.0.1:1")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("verify-sidecar", "bucket", *_STORE), "names no object"),
        (("repair-sidecar", "/key", *_STORE), "no bucket"),
        (("verify-sidecar", "s3://bucket/key", *_STORE), "is a URL"),
        (("verify-sidecar", "b/k", "--max-body-bytes", "-1", *_STORE), "--max-body-bytes"),
        (("verify-sidecar", "b/k"), "--endpoint-url: missing"),
        (("sweep-orphan-sidecars", "bucket/prefix", *_STORE), "is no bucket"),
        (("sweep-orphan-sidecars", "", *_STORE), "is no bucket"),
        (("sweep-orphan-sidecars", "b", "--delete-undecodable", *_STORE), "needs --delete"),
        (("sweep-orphan-sidecars", "b", "--concurrency", "0", *_STORE), "--concurrency"),
        (("verify", "", *_STORE), "no bucket"),
        (("verify", "bucket"), "--endpoint-url: missing"),
        (("verify", "bucket", "--format", "xml", *_STORE), "--format"),
        (("doctor", "bucket/prefix", *_STORE), "is no bucket"),
        (("doctor", "bucket", "--endpoint-url", "ftp://x"), "--endpoint-url"),
    ],
)
def test_a_wrong_command_line_is_status_2(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
):
    with pytest.raises(SystemExit) as ended:
        main.main(arguments)
    printed = capsys.readouterr()
    assert (ended.value.code, printed.out) == (2, "")
    assert said in printed.err
    assert all(line.startswith(("s4: ", "Try ")) for line in printed.err.splitlines())


@pytest.mark.parametrize(
    "arguments", [("verify-sidecar", "b/k"), ("sweep-orphan-sidecars", "b"), ("doctor", "b")]
)
def test_a_store_that_does_not_answer_is_one_line_and_status_1(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with pytest.raises(SystemExit) as ended:
        main.main((*arguments, *_STORE))
    printed = capsys.readouterr()
    assert (ended.value.code, printed.out) == (1, "")
    assert printed.err.startswith("s4: the store: ")
    assert len(printed.err.splitlines()) == 1
