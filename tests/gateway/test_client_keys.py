import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4gateway.gateway.client_keys import (
    BackendIdentity,
    ClientKey,
    ClientKeys,
    ClientKeysError,
)
from s4gateway.s3.sigv4 import Credentials

FILE = """
anonymous-read-buckets = ["public"]

[keys.AKIDFULL]
secret = "correct horse battery"

[keys.AKIDTEAM]
secret = "staple staple"
buckets = ["logs", "shared/team-a/"]
read-only = true
backend = "own"
"""


def test_a_file_of_keys_is_read_with_their_limits():
    keys = ClientKeys.parse(FILE)
    full, team = keys.lookup("AKIDFULL"), keys.lookup("AKIDTEAM")
    assert full is not None
    assert team is not None
    assert keys.secret_of("AKIDFULL") == "correct horse battery"
    assert (full.read_only, full.backend) == (False, BackendIdentity.GATEWAY)
    assert (team.read_only, team.signs_backend) == (True, True)
    assert keys.lookup("AKIDNONE") is None
    assert keys.secret_of("AKIDNONE") is None
    assert keys.is_open("public")
    assert not keys.is_open("logs")


def test_scopes_hold_buckets_and_prefixes_apart():
    team = ClientKeys.parse(FILE).lookup("AKIDTEAM")
    assert team is not None
    assert team.may_reach("logs", "anything")
    assert team.may_reach("logs", None)
    assert team.may_reach("shared", "team-a/x")
    assert not team.may_reach("shared", "team-ab")
    assert not team.may_reach("shared", None)
    assert not team.may_reach("logs2", "x")
    assert team.may_reach(None, None)
    assert team.may_list("shared", "team-a/2026")
    assert not team.may_list("shared", "team")
    assert not team.may_list("shared", "")
    assert team.may_see("shared")
    assert not team.may_see("other")


def test_a_key_without_scopes_reaches_everything():
    full = ClientKeys.parse(FILE).lookup("AKIDFULL")
    assert full is not None
    assert full.may_reach("any", None)
    assert full.may_list("any", "")
    assert full.may_see("any")


def test_every_problem_is_reported_in_one_pass_and_no_secret_with_it():
    broken = """
    anonymous-read-buckets = "public"
    colour = "blue"
    [keys."has space"]
    secret = "long enough"
    [keys.SHORT]
    secret = "s3cret"
    [keys.WRONG]
    secret = "topsecretvalue"
    secert = "topsecretvalue"
    buckets = ["ok", "/x", 7]
    read-only = "yes"
    backend = "theirs"
    [keys.EMPTY]
    secret = "topsecretvalue"
    buckets = []
    """
    with pytest.raises(ClientKeysError) as caught:
        ClientKeys.parse(broken)
    text = str(caught.value)
    for part in (
        "anonymous-read-buckets", "'colour'", "has space", "keys.SHORT: secret", "'secert'",
        "'/x'", "7 is neither", "read-only", "backend", "keys.EMPTY: buckets",
    ):  # fmt: skip
        assert part in text, part
    assert "s3cret" not in text
    assert "topsecretvalue" not in text


def test_a_syntax_error_names_its_place_and_not_the_line():
    with pytest.raises(ClientKeysError) as caught:
        ClientKeys.parse('[keys.A]\nsecret = "topsecret\n')
    assert "line 2" in str(caught.value)
    assert "topsecret" not in str(caught.value)


def test_a_file_without_keys_is_refused():
    with pytest.raises(ClientKeysError):
        ClientKeys.parse("")


@pytest.mark.parametrize("content", [None, b"\xff", b"[keys.A]\nsecret = 1"])
def test_problems_of_a_file_begin_with_its_name(tmp_path: Path, content: bytes | None):
    path = tmp_path / "keys.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ClientKeysError) as caught:
        ClientKeys.load(path)
    assert all(problem.startswith(f"{path}: ") for problem in caught.value.problems)


def test_no_repr_shows_a_secret():
    keys = ClientKeys.parse(FILE)
    shown = repr(keys) + repr(keys.lookup("AKIDFULL")) + repr(keys.lookup("AKIDTEAM"))
    assert "horse" not in shown
    assert "staple" not in shown


def test_the_backends_own_pair_is_the_one_of_the_moment():
    pair = [Credentials("OLD", "first secret"), Credentials("NEW", "second secret", "token")]
    keys = ClientKeys(backend_pair=lambda: ClientKey.of(pair[0]))
    assert keys.secret_of("OLD") == "first secret"
    del pair[0]
    assert keys.lookup("OLD") is None
    renewed = keys.lookup("NEW")
    assert renewed is not None
    assert (renewed.secret, renewed.session_token) == ("second secret", "token")
    assert not renewed.signs_backend


@given(st.text())
def test_no_text_crashes_the_parser(text: str):
    with contextlib.suppress(ClientKeysError):
        ClientKeys.parse(text)


@pytest.mark.parametrize("text", ["a = " + "[" * 5000, "a = " + "9" * 5000])
def test_what_the_parser_gives_up_on_is_not_toml(text: str):
    with pytest.raises(ClientKeysError, match="not TOML"):
        ClientKeys.parse(text)
