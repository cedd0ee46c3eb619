import pytest

from s4gateway.wire import envelope


@pytest.mark.parametrize("number", range(1, 9))
def test_envelope_is_recognised_by_its_magic(number: int):
    assert envelope.recognise(f"S4E{number}\x01\x00".encode()) == f"S4E{number}"


@pytest.mark.parametrize("prefix", [b"", b"S4E", b"S4E0", b"S4E9", b"S4F2", b"S4IX", b"s4e6"])
def test_other_bytes_are_no_envelope(prefix: bytes):
    assert envelope.recognise(prefix) is None
