import pytest

from s4gateway.wire import errors
from s4gateway.wire.codec_id import CodecId

TABLE = {
    0: "passthrough",
    1: "cpu-zstd",
    2: "nvcomp-zstd",
    3: "nvcomp-bitcomp",
    4: "nvcomp-gans",
    5: "dietgpu-ans",
    6: "nvcomp-gdeflate",
    7: "cpu-gzip",
    8: "cpu-zstd-dict",
}


def test_numbers_and_names_are_the_frozen_ones():
    assert {int(codec): codec.label for codec in CodecId} == TABLE


@pytest.mark.parametrize("number", TABLE)
def test_number_and_name_find_the_codec(number: int):
    codec = CodecId.from_number(number)
    assert codec == number
    assert CodecId.from_label(TABLE[number]) is codec


@pytest.mark.parametrize("label", ["", "CPU-ZSTD", "cpu_zstd", " cpu-zstd", "cpu-lz4"])
def test_other_names_find_nothing(label: str):
    assert CodecId.from_label(label) is None


@pytest.mark.parametrize("number", [9, 99, 2**32 - 1, -1])
def test_unassigned_number_is_refused(number: int):
    with pytest.raises(errors.CodecIdError) as caught:
        CodecId.from_number(number)
    assert caught.value.codec_id == number


def test_only_the_gpu_codecs_need_a_gpu():
    assert [int(codec) for codec in CodecId if codec.needs_gpu] == [2, 3, 4, 5, 6]
