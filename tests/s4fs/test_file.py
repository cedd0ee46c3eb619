"""Open files: what they fetch and when, and that they behave as files do."""

import io
import itertools
import pickle
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from s4gateway.codecs.face import encode_s4_object
from s4gateway.s4fs import reader
from s4gateway.s4fs.reader import Reader
from s4gateway.s4fs.store import FsspecStore
from s4gateway.wire.index import FrameIndex
from tests import corpus
from tests.objects import world
from tests.s4fs.bucket import BUCKET, Bucket, put, reading

TEXT = corpus.text(400_000)
CHUNK = 10_000
PATH = f"{BUCKET}/object"


@pytest.fixture(params=["framed", "passthrough"])
def below(request: pytest.FixtureRequest) -> Bucket:
    bucket = Bucket()
    if request.param == "passthrough":
        obj = encode_s4_object(TEXT, "passthrough")
        put(bucket, "object", obj["body"], obj["metadata"])
    else:
        framed(bucket)
    return bucket


def framed(bucket: Bucket) -> world.Framed:
    """Frames much smaller than our writers make, so that there are many; their index is known."""
    body = world.framed(world.cut(TEXT, CHUNK))
    metadata = world.manifest(TEXT, body.stored, framed=True).to_metadata()
    index = FrameIndex.from_entries(body.entries, total_padded=len(body.stored))
    put(bucket, "object", body.stored, metadata, index)
    return body


def test_it_reads_as_the_same_bytes_in_memory_do(below: Bucket):
    draw = random.Random(5)
    with reading(below).open(PATH) as file, io.BytesIO(TEXT) as memory:
        for _ in range(400):
            match draw.randrange(6):
                case 0:
                    offset = draw.randrange(len(TEXT) + 100)
                    assert file.seek(offset) == memory.seek(offset)
                case 1:
                    assert file.readline() == memory.readline()
                case 2:
                    one, two = bytearray(3000), bytearray(3000)
                    assert file.readinto(one) == memory.readinto(two)
                    assert one == two
                case 3:
                    back = -draw.randrange(len(TEXT))
                    assert file.seek(back, 2) == memory.seek(back, 2)
                case 4:
                    size = draw.choice([0, 1, 100, 50_000])
                    assert file.read(size) == memory.read(size)
                case _:
                    assert file.tell() == memory.tell()


def test_lines_and_text_come_out_as_from_a_local_file(below: Bucket, tmp_path: Path):
    (tmp_path / "local").write_bytes(TEXT)
    fs = reading(below)
    with fs.open(PATH) as file, (tmp_path / "local").open("rb") as local:
        assert list(file) == list(local)
    with fs.open(PATH, "r", encoding="utf-8", errors="replace") as file:
        assert file.read() == (tmp_path / "local").read_text(encoding="utf-8", errors="replace")


def test_it_says_what_it_is(below: Bucket):
    with reading(below).open(PATH) as file:
        assert (file.size, file.info()["size"]) == (len(TEXT), len(TEXT))
        assert (file.readable(), file.seekable(), file.writable()) == (True, True, False)
        assert file.full_name == f"s4://{PATH}"
    assert file.closed
    with pytest.raises(ValueError, match="closed"):
        file.read(1)


def test_it_survives_pickling_with_its_position():
    from s4gateway.s4fs import S4FileSystem  # noqa: PLC0415

    fs = S4FileSystem(target_protocol="memory")
    fs.fs.pipe_file("/pickled/object", TEXT)
    with fs.open("pickled/object") as file:
        file.seek(1000)
        with pickle.loads(pickle.dumps(file)) as again:  # noqa: S301 - our own bytes
            assert (again.tell(), again.read(10)) == (1000, TEXT[1000:1010])


def test_opening_reads_nothing_of_the_body(below: Bucket):
    reading(below).open(PATH).close()
    assert below.verbs("GET") == []


def test_a_look_at_the_end_fetches_the_end_only():
    below = Bucket()
    body = framed(below)
    fs = reading(below)
    fs.cat_file(PATH, 0, 1)
    below.requests.clear()
    with fs.open(PATH) as file:
        file.seek(-8, 2)
        assert file.read(8) == TEXT[-8:]
        file.seek(-5000, 2)
        assert file.read(4992) == TEXT[-5000:-8]
    assert below.fetched(PATH) == body.entries[-1].compressed_size


def test_reads_that_jump_about_fetch_nothing_beforehand():
    below = Bucket()
    body = framed(below)
    fs = reading(below)
    fs.cat_file(PATH, 0, 1)
    below.requests.clear()
    with fs.open(PATH) as file:
        for number in (20, 3, 31, 4):
            file.seek(number * CHUNK + 5)
            assert file.read(100) == TEXT[number * CHUNK + 5 :][:100]
    wanted = {20, 3, 31, 4}
    assert below.fetched(PATH) == sum(body.entries[each].compressed_size for each in wanted)


def test_a_read_that_jumps_over_a_border_fetches_both_frames_with_one_request():
    below = Bucket()
    body = framed(below)
    fs = reading(below)
    fs.cat_file(PATH, 0, 1)
    below.requests.clear()
    with fs.open(PATH) as file:
        for number in (20, 3):
            file.seek(number * CHUNK + 5)
            assert file.read(CHUNK) == TEXT[number * CHUNK + 5 :][:CHUNK]
        assert len(below.verbs("GET")) == 2
        wanted = {20, 21, 3, 4}
        assert below.fetched(PATH) == sum(body.entries[each].compressed_size for each in wanted)
        assert file.read(9) == TEXT[4 * CHUNK + 5 :][:9]


def test_reads_that_follow_each_other_fetch_every_frame_once():
    below = Bucket()
    body = framed(below)
    fs = reading(below)
    fs.cat_file(PATH, 0, 1)
    below.requests.clear()
    with fs.open(PATH) as file:
        assert b"".join(iter(lambda: file.read(4000), b"")) == TEXT
    assert below.fetched(PATH) == len(body.stored)


def _lying(body: world.Framed, number: int) -> FrameIndex:
    """An index in which one frame is longer and the next one shorter than they are."""
    entries = list(body.entries)
    one, two = entries[number : number + 2]
    moved = CHUNK * 9 // 10
    entries[number] = replace(one, original_size=one.original_size + moved)
    entries[number + 1] = replace(
        two, original_offset=two.original_offset + moved, original_size=two.original_size - moved
    )
    return FrameIndex.from_entries(entries, total_padded=len(body.stored))


@pytest.mark.parametrize("number", [3, 4])
def test_reads_beyond_what_a_wrong_index_had_fetched_ahead_are_right(number: int):
    below = Bucket()
    body = framed(below)
    lie = _lying(body, number).bind(below.etag(PATH), len(body.stored))
    below.pipe_file(f"{PATH}.s4index", lie.encode())
    fs = reading(below)
    for start in range(number * CHUNK - 500, (number + 2) * CHUNK, 700):
        fs.cat_file(PATH, 0, 1)  # of the first frame, which the index has right
        with fs.open(PATH) as file:
            assert file.read(CHUNK + 10) + file.read(CHUNK) == TEXT[: 2 * CHUNK + 10]
            file.seek(start)
            assert file.read(CHUNK) == TEXT[start : start + CHUNK]
            assert file.read() == TEXT[start + CHUNK :]


def test_threads_that_find_one_index_wrong_agree_on_the_next():
    below = Bucket()
    framed(below)
    readers = Reader(FsspecStore(below))
    content = readers.content(readers.look(PATH))  # of one frame, it seems
    looks, meeting = itertools.count(), threading.Barrier(4)

    def meet(verb: str, path: str) -> None:
        if (verb, path) == ("HEAD", f"/{PATH}") and next(looks) < meeting.parties:
            meeting.wait(60)  # all have read by the wrong index before one says so

    below.fails = meet
    with ThreadPoolExecutor(meeting.parties) as pool:
        found = [*pool.map(lambda offset: reader.load(content, offset, 1), [0, 9, 99, CHUNK])]
    assert [span for span, _ in found] == [(0, CHUNK)] * 3 + [(CHUNK, 2 * CHUNK)]
    assert all(plain.read(0, CHUNK) == TEXT[slice(*span)] for span, plain in found)


@pytest.mark.parametrize("sound", [0, 1, 20], ids=["frame", "first header", "a later header"])
def test_a_read_that_failed_can_be_repeated(sound: int):
    below = Bucket()
    framed(below)
    below.rm_file(f"{PATH}.s4index")
    answers = iter([None] * sound + [OSError("a broken connection")])
    with reading(below).open(PATH) as file:
        below.fails = lambda verb, path: next(answers, None) if verb == "GET" else None
        file.seek(7 * CHUNK)
        with pytest.raises(OSError, match="a broken connection"):
            file.read(10)
        assert file.read(10) == TEXT[7 * CHUNK :][:10]


def test_reads_that_follow_each_other_in_a_verbatim_object_grow():
    below = Bucket()
    obj = encode_s4_object(TEXT, "passthrough")
    put(below, "object", obj["body"], obj["metadata"])
    with reading(below).open(PATH) as file:
        assert b"".join(iter(lambda: file.read(1000), b"")) == TEXT
    assert below.fetched(PATH) == len(TEXT)
    assert len(below.verbs("GET")) < 8


def test_a_long_read_of_a_verbatim_object_fetches_what_is_asked_for():
    below = Bucket()
    obj = encode_s4_object(TEXT, "passthrough")
    put(below, "object", obj["body"], obj["metadata"])
    with reading(below).open(PATH) as file:
        file.seek(100_000)
        assert file.read(150_000) == TEXT[100_000:250_000]
    assert below.fetched(PATH) == 150_000
