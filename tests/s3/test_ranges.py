import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4gateway.s3 import ranges
from s4gateway.s3.errors import S3Error
from s4gateway.s3.ranges import From, FromTo, Suffix

POSITIONS = st.integers(0, 40) | st.integers(0, 10**30)
SPANS = (
    st.builds(From, POSITIONS)
    | st.builds(Suffix, POSITIONS)
    | st.tuples(POSITIONS, POSITIONS).map(lambda pair: FromTo(min(pair), max(pair)))
)


@pytest.mark.parametrize(
    ("header", "span"),
    [
        ("bytes=0-0", FromTo(0, 0)),
        ("bytes=0-499", FromTo(0, 499)),
        ("bytes=500-", From(500)),
        ("bytes=-1", Suffix(1)),
        ("bytes=-0", Suffix(0)),
        ("BYTES=007-9", FromTo(7, 9)),
        (" bytes= 1-2\t", FromTo(1, 2)),
    ],
)
def test_one_range_is_read(header: str, span: ranges.ByteRange):
    assert ranges.parse(header) == span


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "bytes",
        "bytes=",
        "bytes=-",
        "bytes=5-2",
        "bytes=abc",
        "bytes=0-1,5-6",
        "bytes=0-1,",
        "bytes=+1-2",
        "bytes=0 - 1",
        "bytes=1--2",
        "bytes=0x1-2",
        "bytes=٣-٤",
        "bytes:0-1",
        "items=0-1",
        "0-1",
        "bytes=" + "9" * 5000 + "-",
    ],
)
def test_anything_else_is_no_range(header: str | None):
    assert ranges.parse(header) is None


@given(SPANS)
def test_a_range_reads_back_as_written(span: ranges.ByteRange):
    assert ranges.parse(str(span)) == span


@given(st.text(max_size=30) | st.text("bytes=-0123456789, ", max_size=20))
def test_no_header_is_an_error(header: str):
    ranges.parse(header)


@given(SPANS, st.integers(0, 50))
def test_a_range_selects_the_positions_rfc_9110_says(span: ranges.ByteRange, total: int):
    if isinstance(span, Suffix):  # 14.1.2: the last `length` positions, all when shorter
        wanted = [i for i in range(total) if total - i <= span.length]
    elif isinstance(span, From):  # all from first on
        wanted = [i for i in range(total) if i >= span.first]
    else:  # both ends included, as far as the representation goes
        wanted = [i for i in range(total) if span.first <= i <= span.last]
    if not wanted:
        with pytest.raises(S3Error, match="InvalidRange"):
            ranges.resolve(span, total)
        return
    start, end = ranges.resolve(span, total)
    assert list(range(start, end)) == wanted
    assert ranges.content_range(start, end, total) == f"bytes {wanted[0]}-{wanted[-1]}/{total}"


@pytest.mark.parametrize("header", ["bytes=0-", "bytes=0-0", "bytes=-1", "bytes=-0"])
def test_no_range_of_an_empty_object_can_be_satisfied(header: str):
    span = ranges.parse(header)
    assert span is not None
    with pytest.raises(S3Error) as caught:
        ranges.resolve(span, 0)
    assert caught.value.status == 416
    assert caught.value.headers == {"content-range": "bytes */0"}


def test_a_range_outside_is_refused_with_the_size():
    with pytest.raises(S3Error) as caught:
        ranges.resolve(From(230), 230)
    assert caught.value.fields == {"RangeRequested": "bytes=230-", "ActualObjectSize": "230"}
    assert caught.value.headers == {"content-range": "bytes */230"}
