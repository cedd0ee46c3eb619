import copy
import pickle

import pytest

from s4gateway.wire import errors


def test_message_says_code_and_fact():
    error = errors.SidecarError("bad-magic", "expected S4IX, found b'NOPE'")
    assert (error.code, error.detail) == ("bad-magic", "expected S4IX, found b'NOPE'")
    assert str(error) == "bad-magic: expected S4IX, found b'NOPE'"


@pytest.mark.parametrize("kind", [errors.FrameError, errors.SidecarError, errors.ManifestError])
def test_every_kind_is_a_wire_error(kind: type[errors.WireError]):
    assert issubclass(kind, errors.WireError)


def test_unknown_codec_is_a_frame_error_that_names_the_number():
    error = errors.CodecIdError(99)
    assert isinstance(error, errors.FrameError)
    assert (error.code, error.codec_id) == ("unknown-codec", 99)
    assert "99" in str(error)


@pytest.mark.parametrize("error", [errors.CodecIdError(9), errors.FrameError("too-short", "x")])
def test_errors_survive_copying_and_pickling(error: errors.WireError):
    for again in (copy.copy(error), pickle.loads(pickle.dumps(error))):  # noqa: S301
        assert type(again) is type(error)
        assert (again.code, str(again)) == (error.code, str(error))
