import pytest

from s4gateway.codecs import encoder, training
from s4gateway.codecs.base import CodecError
from s4gateway.codecs.zstd import Zstd
from s4gateway.codecs.zstd_dict import MAX_DICTIONARY_SIZE, ZstdDict
from s4gateway.wire.codec_id import CodecId
from tests import corpus, events

ORDERS = events.orders(300)
DICTIONARY = training.train(ORDERS[:200])


def test_the_dictionary_is_a_trained_one_within_the_size_asked_for():
    small = training.train(ORDERS, max_size=2048)
    assert small.startswith(bytes.fromhex("37a430ec"))
    assert len(small) <= 2048
    assert len(DICTIONARY) <= training.DEFAULT_SIZE


def test_the_same_samples_give_the_same_dictionary():
    assert training.train(ORDERS[:200]) == DICTIONARY


def test_what_a_dictionary_encodes_it_decodes():
    codec = ZstdDict(DICTIONARY)
    trial = encoder.try_dictionary(ORDERS[250], Zstd(), codec)
    assert trial.frame.header.codec is CodecId.CPU_ZSTD_DICT
    stored = b"".join(trial.frame.payload)
    assert b"".join(codec.decompressor(len(ORDERS[250])).feed(stored)) == ORDERS[250]


@pytest.mark.parametrize("count", range(training.MIN_SAMPLES))
def test_too_few_samples_are_told_with_both_numbers(count: int):
    with pytest.raises(training.NotEnoughSamples) as raised:
        training.train(ORDERS[:count])
    assert (raised.value.found, raised.value.minimum) == (count, training.MIN_SAMPLES)


def test_the_fewest_samples_are_enough():
    assert training.train(ORDERS[: training.MIN_SAMPLES])


def test_empty_samples_do_not_count():
    with pytest.raises(training.NotEnoughSamples, match="6 usable samples, at least 7"):
        training.train([*ORDERS[:6], *[b""] * 100])


def test_samples_too_small_to_share_anything_are_told():
    with pytest.raises(training.UntrainableSamples, match="7 samples of 7 bytes in all"):
        training.train([b"a"] * 7)


@pytest.mark.parametrize("size", [-1, 0, training.MIN_SIZE - 1, MAX_DICTIONARY_SIZE + 1])
def test_a_size_no_dictionary_can_have_is_refused_before_anything_is_read(size: int):
    def unread():
        pytest.fail("samples were read")
        yield b""

    with pytest.raises(training.DictionarySizeError) as raised:
        training.train(unread(), size)
    assert (raised.value.requested, raised.value.cap) == (size, MAX_DICTIONARY_SIZE)


@pytest.mark.parametrize("size", [training.MIN_SIZE, MAX_DICTIONARY_SIZE])
def test_the_smallest_and_the_largest_size_are_possible(size: int):
    assert 0 < len(training.train(ORDERS, size)) <= size


def test_samples_of_noise_give_a_dictionary_or_a_typed_error():
    try:
        dictionary = training.train([corpus.noise(100, seed) for seed in range(50)])
    except training.UntrainableSamples:
        return
    worth = training.evaluate([corpus.noise(300, seed) for seed in range(100, 120)], dictionary)
    assert worth.wins == 0


def test_worth_is_measured_on_stored_objects_with_their_headers():
    body = ORDERS[250]
    worth = training.evaluate([body], DICTIONARY, level=5)
    plain = encoder.encode_body(body, Zstd(5), 1 << 20)
    frame = encoder.try_dictionary(body, Zstd(5), ZstdDict(DICTIONARY, 5)).frame
    assert worth.original_bytes == len(body)
    assert worth.plain_bytes == plain.stored_size
    assert worth.dict_bytes == frame.stored_size < plain.stored_size
    assert (worth.objects, worth.wins, worth.win_rate) == (1, 1, 1.0)
    assert not worth.loses(0.5)


def test_what_does_not_shrink_is_counted_as_it_came_and_is_no_win():
    bodies = [b"x", corpus.noise(500)]
    worth = training.evaluate(bodies, DICTIONARY)
    assert worth.plain_bytes == worth.dict_bytes == worth.original_bytes == 501
    assert worth.wins == 0
    assert worth.loses(0.0)


def test_a_dictionary_of_other_data_loses():
    worth = training.evaluate(events.strangers(20), DICTIONARY)
    assert worth.win_rate < 0.5
    assert worth.dict_bytes <= worth.plain_bytes < worth.original_bytes
    assert worth.loses(0.5)


def test_of_no_bodies_nothing_is_said():
    worth = training.evaluate([], DICTIONARY)
    assert (worth.objects, worth.win_rate) == (0, 0.0)
    assert worth.loses(0.5)


def test_bytes_that_are_no_dictionary_are_refused():
    with pytest.raises(CodecError, match="dictionary-invalid"):
        training.evaluate(ORDERS, b"")
