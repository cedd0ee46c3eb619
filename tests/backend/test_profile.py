import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4gateway.backend import profile
from s4gateway.backend.profile import BackendProfile, Checksum


def test_what_is_not_stated_is_found_out_and_md5_is_sent():
    assert BackendProfile() == BackendProfile(
        uniform_parts=False, conditional_writes=None, checksums=Checksum.MD5
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("uniform-parts", BackendProfile(uniform_parts=True)),
        ("no-conditional-writes", BackendProfile(conditional_writes=False)),
        (" Conditional-Writes, ", BackendProfile(conditional_writes=True)),
        ("checksums=none uniform-parts", BackendProfile(True, None, Checksum.NONE)),
        ("checksums=crc32,checksums=crc32", BackendProfile(checksums=Checksum.CRC32)),
    ],
)
def test_words_stand_between_commas_or_spaces(text: str, expected: BackendProfile):
    assert BackendProfile.parse(text) == expected


@given(
    st.builds(
        BackendProfile,
        st.booleans(),
        st.sampled_from([None, True, False]),
        st.sampled_from(Checksum),
    )
)
def test_a_profile_is_written_as_it_is_read(written: BackendProfile):
    assert BackendProfile.parse(str(written)) == written


def test_every_wrong_word_is_named():
    with pytest.raises(ValueError, match="nothing known") as caught:
        BackendProfile.parse("uniform-part,checksums=md6,what")
    said = str(caught.value)
    for part in ("'uniform-part'", "did you mean uniform-parts?", "'checksums=md6'", "'what'"):
        assert part in said


@pytest.mark.parametrize(
    "text", ["conditional-writes,no-conditional-writes", "checksums=md5,checksums=none", "", " ,"]
)
def test_nothing_and_a_contradiction_are_no_profile(text: str):
    with pytest.raises(ValueError, match=r"says two things|is empty"):
        BackendProfile.parse(text)


def test_only_checksums_that_s3_names_so_have_an_algorithm():
    assert [each for each in Checksum if each.algorithm is None] == [Checksum.NONE, Checksum.MD5]


@pytest.mark.parametrize(
    ("code", "message", "word"),
    [
        ("InvalidPart", "All non-trailing parts must have the same length.", "uniform-parts"),
        ("InvalidPart", "One or more of the specified parts could not be found.", None),
        ("NotImplemented", "Header x-amz-checksum-crc32 not implemented", "checksums=md5"),
        (
            "InvalidRequest",
            "Content-MD5 OR x-amz-checksum- HTTP header is required for Put Object requests",
            "checksums=crc32c",
        ),
        ("BadDigest", "x-amz-checksum-crc32 does not match", None),
        ("NoSuchKey", "", None),
    ],
)
def test_a_refusal_that_another_profile_would_avoid_names_it(
    code: str, message: str, word: str | None
):
    assert profile.advice(code, message) == word
    if word is not None:
        BackendProfile.parse(word)
