"""Mappings of prefixes to dictionaries: both sources, their grammar, and the longest match."""

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4gateway.codecs import encoder
from s4gateway.objects import dict_map
from s4gateway.objects.dict_map import DictMap, DictMapError, DictMapping

A, B = "a" * 16, "b" * 16


def problems_of(content: bytes, folder: Path) -> tuple[str, ...]:
    path = folder / "map.toml"
    path.write_bytes(content)
    with pytest.raises(DictMapError) as caught:
        dict_map.load(path)
    assert all(str(path) in problem for problem in caught.value.problems)
    assert all("\n" not in problem for problem in caught.value.problems)
    return caught.value.problems


@pytest.mark.parametrize(
    ("text", "bucket", "prefix"),
    [
        (f"logs/app/={A}", "logs", "app/"),
        (f"logs/={A}", "logs", ""),
        (f"logs/day=1/hour=2={A}", "logs", "day=1/hour=2"),
        (f"logs//={A}", "logs", "/"),
        (f"logs/ä b={A}", "logs", "ä b"),
    ],
)
def test_a_flag_is_cut_at_its_last_equals_sign_and_its_first_slash(
    text: str, bucket: str, prefix: str
):
    assert DictMapping.parse_flag(text) == DictMapping(bucket, prefix, A)


@pytest.mark.parametrize(
    "text",
    [
        "", "logs", "logs/", f"logs={A}", f"/app={A}", f"={A}", "logs/app=", f"logs/app={A[:15]}",
        f"logs/app={A.upper()}", f"logs/app={A}0", "logs/app=../../../etc/pwd",
        f"logs/app\n={A}", f"logs/{'x' * 1025}={A}", f"logs/app={A[:15]}٣",
    ],
)  # fmt: skip
def test_what_is_no_flag_is_refused(text: str):
    with pytest.raises(DictMapError):
        dict_map.parse_flags([text])


def test_a_flag_given_twice_counts_once_and_with_two_ids_is_refused():
    one, other = f"logs/app={A}", f"logs/app={B}"
    assert len(dict_map.parse_flags([one, one]).mappings) == 1
    with pytest.raises(DictMapError) as caught:
        dict_map.parse_flags([one, "nonsense", other])
    assert len(caught.value.problems) == 2
    assert A in caught.value.problems[1]
    assert B in caught.value.problems[1]


def test_the_longest_prefix_of_the_bucket_wins():
    found = DictMap(
        [
            DictMapping("logs", "", A),
            DictMapping("logs", "app/", B),
            DictMapping("logs", "app/db/", "c" * 16),
            DictMapping("log", "app/db/x", "d" * 16),
        ]
    )
    ids = {
        key: match.dict_id
        for key in ("x", "app", "app/", "app/x", "app/db", "app/db/", "app/db/x")
        if (match := found.match("logs", key))
    }
    assert ids == {
        "x": A, "app": A, "app/": B, "app/x": B, "app/db": B, "app/db/": "c" * 16,
        "app/db/x": "c" * 16,
    }  # fmt: skip
    assert found.match("log", "app/db/") is None
    assert found.match("other", "app/db/") is None
    assert dict_map.EMPTY.match("logs", "app/") is None


@given(st.lists(st.text("ab/", max_size=5), unique=True), st.text("ab/", max_size=8))
def test_the_match_is_what_looking_at_every_prefix_finds(prefixes: list[str], key: str):
    found = DictMap(DictMapping("b", prefix, A) for prefix in prefixes)
    matching = [prefix for prefix in prefixes if key.startswith(prefix)]
    match = found.match("b", key)
    assert (match.prefix if match else None) == max(matching, key=len, default=None)


def test_a_file_holds_one_table(tmp_path: Path):
    path = tmp_path / "map.toml"
    path.write_text(f'[mappings]\n"logs/app/" = "{A}"\n"logs/ä/" = "{B}"\n')
    assert [each.label for each in dict_map.load(path).mappings] == ["logs/app/", "logs/ä/"]
    path.write_text("[mappings]\n")
    assert dict_map.load(path).mappings == ()


def test_every_problem_of_a_file_is_told_at_once(tmp_path: Path):
    content = f"""
        dictionary = 1
        [mappings]
        "logs" = "{A}"
        "logs/a" = 7
        "logs/b" = "../{A}"
        "logs/c" = "{A}"
        [other]
    """
    found = problems_of(content.encode(), tmp_path)
    assert len(found) == 5
    for part in ("'dictionary'", "'other'", "'logs'", "'logs/a'", "'logs/b'"):
        assert any(part in problem for problem in found), (part, found)


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"", "no table [mappings]"),
        (b"mappings = 1", "not a table"),
        (b"[mappings", "not TOML"),
        (b'[mappings]\n"a/b" = "x"\n"a/b" = "x"', "not TOML"),
        (b"[mappings]\n# \xff\n", "not UTF-8"),
        (b"[mappings]\n" + b"#" * dict_map.MAX_FILE, "larger than"),
        (b"a = " + b"[" * 5000, "not TOML"),
        (b"[mappings]\n\"a/b\\u0000\" = 'aaaaaaaaaaaaaaaa'", "printed"),
    ],
    ids=["empty", "number", "cut", "twice", "latin", "huge", "deep", "nul"],
)
def test_a_file_that_is_no_map_says_why(content: bytes, part: str, tmp_path: Path):
    (problem,) = problems_of(content, tmp_path)
    assert part in problem


def test_a_file_that_is_not_there_is_a_problem(tmp_path: Path):
    for path in (tmp_path / "none.toml", tmp_path):
        with pytest.raises(DictMapError) as caught:
            dict_map.load(path)
        assert str(path) in caught.value.problems[0]


@given(st.binary(max_size=200))
def test_no_bytes_crash_the_parser(tmp_path_factory: pytest.TempPathFactory, content: bytes):
    path = tmp_path_factory.getbasetemp() / "fuzzed.toml"
    path.write_bytes(content)
    with contextlib.suppress(DictMapError):
        assert isinstance(dict_map.load(path), DictMap)


def test_a_prefix_stands_in_one_source_only_even_when_both_agree():
    flags = dict_map.parse_flags([f"logs/a={A}", f"logs/b={A}"])
    file = DictMap([DictMapping("logs", "b", A), DictMapping("logs", "c", B)])
    with pytest.raises(DictMapError) as caught:
        dict_map.merge(flags, file)
    assert len(caught.value.problems) == 1
    assert "logs/b" in caught.value.problems[0]
    merged = dict_map.merge(dict_map.parse_flags([f"logs/a={A}"]), file)
    assert [each.label for each in merged.mappings] == ["logs/a", "logs/b", "logs/c"]


def test_the_largest_body_is_one_frame():
    assert dict_map.LARGEST_BODY == encoder.MEDIUM_CHUNK
