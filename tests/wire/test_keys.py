import pytest

from s4gateway.wire import keys

ORDINARY = [
    "a",
    "data/.s4dict/x",
    "data/.s4mpu/x",
    ".s4dict",
    ".s4dictx/a",
    "a.s4index/b",
    "__s4ver__/1",
]


def test_sidecar_stands_beside_its_object():
    assert keys.sidecar_key("a/b.log") == "a/b.log.s4index"


def test_dictionary_key_is_made_from_an_id():
    assert keys.dictionary_key("0123456789abcdef") == ".s4dict/0123456789abcdef"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0123456789ABCDEF",
        "0123456789abcde",
        "0123456789abcdef\n",
        "../../etc/passwd",
        "\u0660" * 16,
    ],
)
def test_dictionary_key_is_never_made_from_anything_else(text: str):
    assert keys.dictionary_key(text) is None
    assert not keys.is_dictionary_id(text)


@pytest.mark.parametrize("key", ORDINARY)
def test_ordinary_key_is_free(key: str):
    assert not keys.is_hidden(key)
    assert not keys.is_write_reserved(key)
    assert not keys.is_read_reserved(key)


@pytest.mark.parametrize(
    "key",
    [
        "a.s4index",
        ".s4index",
        ".s4mpu/00ff/1",
        "a.__s4ver__/0123",
        ".s4dict/0123456789abcdef.s4index",
        ".s4dict/0123456789abcdef.__s4ver__/1",
    ],
)
def test_internal_key_is_hidden_and_neither_written_nor_read(key: str):
    assert keys.is_hidden(key)
    assert keys.is_write_reserved(key)
    assert keys.is_read_reserved(key)


def test_dictionary_is_hidden_and_not_written_but_read():
    key = ".s4dict/0123456789abcdef"
    assert keys.is_hidden(key)
    assert keys.is_write_reserved(key)
    assert not keys.is_read_reserved(key)


@pytest.mark.parametrize("prefix", [".s4dict/", ".s4mpu/", ".s4mpu/00ff/", "a.__s4ver__/"])
def test_prefix_of_internal_keys_only_is_hidden(prefix: str):
    assert keys.is_hidden_prefix(prefix)


@pytest.mark.parametrize("prefix", ["a/", ".s4", "a.s4index", "a.s4index/", "data/.s4dict/"])
def test_prefix_that_may_hold_other_keys_is_shown(prefix: str):
    assert not keys.is_hidden_prefix(prefix)
