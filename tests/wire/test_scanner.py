import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4gateway.wire import errors, frame, scanner
from s4gateway.wire.codec_id import CodecId
from tests.wire import strategies

Frames = list[tuple[int, frame.FrameHeader, bytes]]


def one_frame(payload: bytes, codec: CodecId = CodecId.PASSTHROUGH) -> bytes:
    return frame.FrameHeader(codec, len(payload), len(payload), 0).pack() + payload


def scan(pieces: list[bytes], **limits: int) -> tuple[Frames, str | None]:
    """Feed all pieces; the complete frames, and the code of the error that ended it."""
    frames = scanner.FrameScanner(**limits)
    complete: Frames = []
    start, payload = None, b""
    try:
        for piece in pieces:
            for event in frames.feed(piece):
                if isinstance(event, scanner.FrameStart):
                    assert start is None
                    start, payload = event, b""
                elif isinstance(event, scanner.FrameEnd):
                    assert start is not None
                    assert event.offset == start.offset
                    assert event.stored_size == frame.HEADER_SIZE + len(payload)
                    complete.append((start.offset, start.header, payload))
                    start = None
                else:
                    assert start is not None
                    assert len(event) > 0
                    payload += event
        frames.close()
    except errors.FrameError as error:
        return complete, error.code
    assert start is None
    return complete, None


def walk(body: bytes) -> tuple[Frames, str | None]:
    complete: Frames = []
    try:
        for offset, header, payload in frame.walk(body):
            complete.append((offset, header, bytes(payload)))
    except errors.FrameError as error:
        return complete, error.code
    return complete, None


@given(st.data())
def test_any_segmentation_of_a_body_reports_what_a_walk_of_the_whole_finds(data: st.DataObject):
    body = data.draw(strategies.bodies)
    found = scan(data.draw(strategies.segmentations(body)))
    assert found == walk(body)
    assert found[1] is None


@given(st.data())
def test_any_segmentation_of_broken_bytes_ends_where_a_walk_of_the_whole_ends(data: st.DataObject):
    body = data.draw(strategies.broken_bodies() | st.binary(max_size=80))
    pieces = data.draw(strategies.segmentations(body))
    assert scan(pieces, max_frame_original=2**64 - 1) == walk(body)  # a walk has no limits


def test_body_fed_byte_by_byte_is_the_same_body():
    body = frame.padding(3) + one_frame(b"hello") + frame.padding(0) + one_frame(b"")
    assert scan([body[i : i + 1] for i in range(len(body))]) == walk(body)


def test_empty_body_has_no_frames():
    assert scan([]) == ([], None)
    assert scan([b"", b""]) == ([], None)


def test_piece_inside_a_payload_is_handed_on_as_it_is():
    frames = scanner.FrameScanner()
    frames.feed(one_frame(bytes(1000))[: frame.HEADER_SIZE])
    for piece in (bytes(100), memoryview(bytes(100))):
        (event,) = frames.feed(piece)
        assert event is piece


def test_piece_across_a_frame_border_is_sliced_and_not_copied():
    body = one_frame(b"ab") + one_frame(b"cd")
    events = scanner.FrameScanner().feed(body)
    payloads = [event for event in events if isinstance(event, memoryview)]
    assert [(payload.obj is body, bytes(payload)) for payload in payloads] == [
        (True, b"ab"),
        (True, b"cd"),
    ]


def test_padding_of_any_length_is_skipped_without_events():
    frames = scanner.FrameScanner()
    assert frames.feed(frame.PADDING_MAGIC + (2**64 - 1).to_bytes(8, "little")) == []
    assert frames.feed(bytes(100_000)) == []
    with pytest.raises(errors.FrameError, match="payload-truncated"):
        frames.close()


def test_offsets_count_from_where_the_caller_says():
    frames = scanner.FrameScanner(offset=1000)
    events = frames.feed(frame.padding(8) + one_frame(b"abc"))
    assert events[0] == scanner.FrameStart(frame.FrameHeader(CodecId.PASSTHROUGH, 3, 3, 0), 1020)
    assert events[-1] == scanner.FrameEnd(1020, 31)
    assert frames.offset == 1051


def test_original_bytes_are_totalled():
    frames = scanner.FrameScanner()
    frames.feed(one_frame(b"abc") + frame.padding(5) + one_frame(b"defgh"))
    frames.close()
    assert frames.total_original == 8


@pytest.mark.parametrize(
    ("limits", "code"),
    [
        ({"max_frame_original": 9}, "manifest-size-exceeds-limit"),
        ({"max_frame_stored": 9}, "frame-size-exceeds-limit"),
    ],
)
def test_frame_above_a_limit_is_refused_at_its_header(limits: dict[str, int], code: str):
    assert scan([one_frame(bytes(9))], **limits)[1] is None
    with pytest.raises(errors.FrameError) as caught:
        scanner.FrameScanner(**limits).feed(one_frame(bytes(10))[: frame.HEADER_SIZE])
    assert caught.value.code == code


def test_fault_behind_frames_is_raised_by_the_next_call():
    for next_call in (lambda s: s.feed(b"more"), lambda s: s.feed(b""), lambda s: s.close()):
        frames = scanner.FrameScanner()
        events = frames.feed(one_frame(b"ok") + bytes(28))
        assert len(events) == 3
        with pytest.raises(errors.FrameError, match="bad-magic"):
            next_call(frames)


def test_fault_stays():
    frames = scanner.FrameScanner()
    for _ in range(2):
        with pytest.raises(errors.FrameError, match="bad-magic"):
            frames.feed(bytes(28))
    with pytest.raises(errors.FrameError, match="bad-magic"):
        frames.close()


def test_unknown_codec_is_told_with_its_number():
    stored = b"S4F2" + (9).to_bytes(4, "little") + bytes(20)
    with pytest.raises(errors.CodecIdError) as caught:
        scanner.FrameScanner().feed(stored)
    assert caught.value.codec_id == 9


@pytest.mark.parametrize(
    ("cut", "code"),
    [(3, "too-short"), (27, "too-short"), (28, "payload-truncated"), (30, "payload-truncated")],
)
def test_body_that_ends_inside_a_frame_is_told(cut: int, code: str):
    frames = scanner.FrameScanner()
    frames.feed(one_frame(b"abc")[:cut])
    with pytest.raises(errors.FrameError) as caught:
        frames.close()
    assert caught.value.code == code
