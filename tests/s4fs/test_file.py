"""Open files: what they fetch and when, and that they behave as files do."""

import io
import pickle
import random
from pathlib import Path

import pytest

from s4gateway.codecs.face import encode_s4_object
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


def test_reads_that_follow_each_other_fetch_every_frame_once():
    below = Bucket()
    body = framed(below)
    fs = reading(below)
    fs.cat_file(PATH, 0, 1)
    below.requests.clear()
    with fs.open(PATH) as file:
        assert b"".join(iter(lambda: file.read(4000), b"")) == TEXT
    assert below.fetched(PATH) == len(body.stored)


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
