"""One codec per number, and two refusals that are not the same."""

import pytest

from s4gateway.codecs.registry import Registry
from s4gateway.codecs.zstd_dict import ZstdDict
from s4gateway.wire.codec_id import CodecId
from tests.contracts.codec_contract import refused

HERE = [CodecId.PASSTHROUGH, CodecId.CPU_ZSTD, CodecId.CPU_GZIP]
GPU = [codec for codec in CodecId if codec.needs_gpu]


@pytest.mark.parametrize("codec", HERE)
def test_known_codecs_are_one_instance_each(codec):
    registry = Registry()
    assert registry.get(codec).id is codec
    assert registry.get(codec) is registry.get(int(codec))


def test_the_level_reaches_zstd():
    assert Registry(level=9).get(CodecId.CPU_ZSTD).level == 9


def test_five_codecs_need_a_gpu():
    assert len(GPU) == 5
    for codec in GPU:
        with refused("codec-unavailable"):
            Registry().get(codec)


def test_the_refusal_names_the_codec():
    with pytest.raises(Exception, match="nvcomp-bitcomp needs the GPU build"):
        Registry().get(CodecId.NVCOMP_BITCOMP)


@pytest.mark.parametrize("number", [9, 255, 2**32 - 1, -1])
def test_numbers_without_meaning_are_unknown(number):
    with refused("unknown-codec"):
        Registry().get(number)


def test_dictionary_frames_need_their_dictionary():
    with refused("dictionary-missing"):
        Registry().get(CodecId.CPU_ZSTD_DICT)
    codec = ZstdDict(b"some dictionary")
    assert Registry().get(CodecId.CPU_ZSTD_DICT, codec) is codec


def test_a_dictionary_changes_nothing_for_other_frames():
    codec = ZstdDict(b"some dictionary")
    assert Registry().get(CodecId.CPU_ZSTD, codec).id is CodecId.CPU_ZSTD
    with refused("codec-unavailable"):
        Registry().get(CodecId.DIETGPU_ANS, codec)
