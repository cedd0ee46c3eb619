from s4gateway.codecs.base import CodecError
from s4gateway.objects import errors
from s4gateway.objects.decoding import as_object_error
from s4gateway.wire.errors import FrameError


def test_every_object_error_says_which_kind_it_is():
    assert issubclass(errors.DamagedObject, errors.ObjectError)
    assert issubclass(errors.UnreadableObject, errors.ObjectError)
    assert not issubclass(errors.DamagedObject, errors.UnreadableObject)


def test_what_is_not_here_is_told_from_what_is_broken():
    for code in ("codec-unavailable", "unknown-codec", "dictionary-missing"):
        assert isinstance(as_object_error(CodecError(code, "")), errors.UnreadableObject)
    for code in ("codec-io", "bomb", "size-mismatch", "crc-mismatch"):
        assert isinstance(as_object_error(CodecError(code, "")), errors.DamagedObject)
    assert isinstance(as_object_error(FrameError("bad-magic", "")), errors.DamagedObject)
