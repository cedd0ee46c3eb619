"""The filesystem as programs see it: listings, sizes, writes, and what it refuses."""

import hashlib
import pickle
import threading
from collections.abc import Callable

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from s4gateway.codecs.face import decode_index, encode_s4_object
from s4gateway.s4fs import (
    S4FileSystem,
    S4InexactSizeError,
    S4MetadataUnsupportedError,
    S4ReadOnlyError,
    S4ReservedKeyError,
    S4SidecarWriteError,
    S4UnsupportedError,
    S4WriteCodecError,
)
from s4gateway.wire import manifest
from s4gateway.wire.codec_id import CodecId
from s4gateway.wire.index import FrameIndex
from tests import corpus
from tests.objects import world
from tests.s4fs.bucket import BUCKET, Bucket, put, reading, writing

TEXT = corpus.text(20_000)
LONG = corpus.text(5 * 1024 * 1024, seed=2)
PATH = f"{BUCKET}/logs/today"
FIVE = {"s4-codec", "s4-original-size", "s4-compressed-size", "s4-crc32c", "s4-framed"}


@pytest.fixture
def below() -> Bucket:
    return Bucket()


@pytest.fixture
def full(below: Bucket) -> Bucket:
    """A bucket with objects and with everything internal."""
    obj = encode_s4_object(TEXT)
    for key in ("a", "logs/today", "logs/yesterday", "data/.s4dict/theirs"):
        put(below, key, obj["body"], obj["metadata"])
    for key in ("a.s4index", ".s4dict/0123456789abcdef", ".s4mpu/75/00001", "a.__s4ver__/7"):
        put(below, key, b"internal", {})
    put(below, "foreign", b"as it was", {"color": "blue"})
    below.requests.clear()
    return below


# --- what is there

VISIBLE = ["/bucket/a", "/bucket/data/.s4dict/theirs", "/bucket/foreign", "/bucket/logs/today",
           "/bucket/logs/yesterday"]  # fmt: skip


def test_internal_names_are_nowhere_to_be_seen(full: Bucket):
    fs = reading(full)
    assert fs.find(BUCKET) == VISIBLE
    assert fs.ls(BUCKET, detail=False) == ["/bucket/a", "/bucket/data", "/bucket/foreign",
                                           "/bucket/logs"]  # fmt: skip
    assert fs.glob(f"{BUCKET}/**/*") == [
        "/bucket/a",
        "/bucket/data",
        "/bucket/data/.s4dict",
        "/bucket/data/.s4dict/theirs",
        "/bucket/foreign",
        "/bucket/logs",
        "/bucket/logs/today",
        "/bucket/logs/yesterday",
    ]
    walked = list(fs.walk(BUCKET))
    assert sorted(f"{where}/{name}" for where, _, files in walked for name in files) == VISIBLE
    assert not any(".s4dict" in names or ".s4mpu" in names for where, names, _ in walked
                   if where.endswith(BUCKET))  # fmt: skip


@pytest.mark.parametrize(
    "key", ["a.s4index", ".s4dict/0123456789abcdef", ".s4dict", ".s4mpu/75/00001", "a.__s4ver__/7"]
)
def test_an_internal_name_does_not_exist(full: Bucket, key: str):
    fs = reading(full)
    path = f"s4://{BUCKET}/{key}"
    assert not fs.exists(path)
    assert not fs.isdir(path)
    for ask in (fs.info, fs.cat_file, fs.open, fs.modified, lambda path: fs.cat_file(path, 0, 1)):
        with pytest.raises(FileNotFoundError):
            ask(path)


def test_sizes_and_etags_are_those_of_the_originals(full: Bucket):
    fs = reading(full)
    for found in (fs.info("s4://bucket/a"), fs.find(BUCKET, detail=True)["/bucket/a"],
                  fs.ls(BUCKET)[0], fs.glob("bucket/a", detail=True)["/bucket/a"]):  # fmt: skip
        assert (found["size"], found["ETag"]) == (20_000, f'"{hashlib.md5(TEXT).hexdigest()}"')
        assert (found["type"], found["s4_size_exact"]) == ("file", True)
        assert not any(name.startswith("s4-") for name in found.get("metadata", {}))
    assert fs.du(BUCKET) == 4 * 20_000 + len(b"as it was")
    assert fs.info("bucket/logs")["type"] == "directory"


def test_an_object_seen_in_one_listing_costs_nothing_in_the_next(full: Bucket):
    fs = reading(full)
    first = fs.find(BUCKET, detail=True)
    asked = len(full.verbs("HEAD"))
    assert asked
    assert fs.find(BUCKET, detail=True) == first
    # MemoryFileSystem's listings carry no ETag, so what was known cannot be told from what is new
    assert len(full.verbs("HEAD")) == 2 * asked


def test_adding_up_sizes_looks_at_the_objects_side_by_side(full: Bucket):
    fs = reading(full)
    expected = {name: fs.info(name)["size"] for name in VISIBLE}
    meeting = threading.Barrier(len(VISIBLE))  # who goes alone breaks it

    def meet(verb: str, path: str) -> None:
        if verb == "HEAD" and path in VISIBLE:
            meeting.wait(60)

    full.fails = meet
    assert fs.du(BUCKET, total=False) == expected


def test_an_object_that_may_not_be_looked_at_is_listed_with_its_stored_size(full: Bucket):
    full.fails = lambda verb, path: PermissionError(path) if path == "/bucket/a" else None
    fs = reading(full)
    found = fs.find(BUCKET, detail=True)
    assert list(found) == VISIBLE
    assert {name for name, each in found.items() if not each["s4_size_exact"]} == {"/bucket/a"}
    assert found["/bucket/a"]["size"] == len(full.stored("bucket/a"))
    with pytest.raises(PermissionError):
        fs.info("bucket/a")


def test_physical_listings_cost_no_look_at_the_objects(full: Bucket):
    fs = reading(full, physical_listings=True)
    found = fs.find(BUCKET, detail=True)["/bucket/a"]
    assert found["size"] == len(full.stored("bucket/a"))
    assert found["s4_size_exact"] is False
    assert full.verbs("HEAD") == []


def test_names_alone_cost_no_look_at_the_objects(full: Bucket):
    fs = reading(full)
    fs.find(BUCKET)
    fs.glob(f"{BUCKET}/*/*")
    list(fs.walk(BUCKET))
    assert set(full.verbs("HEAD")) <= {"/bucket"}


def test_a_range_after_info_reads_a_part_only(below: Bucket):
    writing(below).pipe_file(PATH, LONG)
    fs = reading(below)
    assert fs.info(PATH)["size"] == len(LONG)
    below.requests.clear()
    assert fs.cat_file(PATH, 5_000_000, 5_000_100) == LONG[5_000_000:5_000_100]
    assert 0 < below.fetched(PATH) < len(below.stored(PATH)) / 2


def _of_unknown_length(below: Bucket) -> world.Framed:
    """A multipart object of an older writer with something behind its frames."""
    body = world.framed(world.cut(TEXT, 5000))
    put(below, "broken", body.stored + b"garbage at the end, longer than a header",
        manifest.multipart_metadata(CodecId.CPU_ZSTD))  # fmt: skip
    return body


def test_a_size_nothing_tells_is_said_to_be_inexact_and_the_file_is_not_opened(below: Bucket):
    body = _of_unknown_length(below)
    fs = reading(below)
    info = fs.info(f"{BUCKET}/broken")
    assert (info["s4_size_exact"], info["size"]) == (False, len(body.stored) + 40)
    with pytest.raises(S4InexactSizeError, match="allow_inexact_open"):
        fs.open(f"{BUCKET}/broken")


def test_an_inexact_open_reads_what_lies_in_front_of_the_fault(below: Bucket):
    _of_unknown_length(below)
    with reading(below, allow_inexact_open=True).open(f"{BUCKET}/broken") as file:
        assert file.read() == TEXT


# --- writing


def test_a_write_is_stored_as_the_gateway_stores_it_and_reads_back(below: Bucket):
    fs = writing(below)
    fs.pipe_file(f"s4://{PATH}", TEXT)
    assert below.kept[f"/{PATH}"] == encode_s4_object(TEXT)["metadata"]
    assert set(below.kept[f"/{PATH}"]) == FIVE | {"s4-logical-etag"}
    assert below.stored(PATH) == encode_s4_object(TEXT)["body"]
    assert fs.cat_file(PATH) == TEXT
    assert below.verbs("PUT") == [f"/{PATH}"]


def test_more_than_one_frame_gets_a_sidecar_bound_to_what_was_stored(below: Bucket):
    writing(below).pipe_file(PATH, LONG)
    assert below.verbs("PUT") == [f"/{PATH}", f"/{PATH}.s4index"]
    found = decode_index(below.stored(f"{PATH}.s4index"))
    assert found["source_etag"] == below.etag(PATH)
    assert found["source_compressed_size"] == len(below.stored(PATH))
    assert len(found["entries"]) == 2


def test_a_write_of_one_frame_removes_the_sidecar_of_the_object_before(below: Bucket):
    fs = writing(below)
    fs.pipe_file(PATH, LONG)
    fs.pipe_file(PATH, TEXT)
    assert f"/{PATH}.s4index" not in below.store
    assert fs.cat_file(PATH, 10, 20) == TEXT[10:20]


@pytest.mark.parametrize("data", [b"", b"x", TEXT, LONG], ids=len)
def test_files_written_in_pieces_read_back(below: Bucket, data: bytes):
    fs = writing(below)
    with fs.open(PATH, "wb") as file:
        for start in range(0, len(data), 1000):
            assert file.write(data[start : start + 1000]) == len(data[start : start + 1000])
        assert file.tell() == len(data)
    assert fs.cat_file(PATH) == data
    assert fs.info(PATH)["ETag"] == f'"{hashlib.md5(data).hexdigest()}"'


def test_text_is_written_and_read_with_its_line_ends(below: Bucket):
    fs = writing(below)
    with fs.open(PATH, "w", encoding="utf-8", newline="") as file:
        file.write("käse\r\nbrot\n")
    assert fs.cat_file(PATH) == "käse\r\nbrot\n".encode()
    with fs.open(PATH, "r", encoding="utf-8") as file:
        assert file.readlines() == ["käse\n", "brot\n"]


def test_a_local_file_is_stored_and_fetched(below: Bucket, tmp_path):
    (tmp_path / "in").write_bytes(LONG)
    fs = writing(below)
    fs.put(str(tmp_path / "in"), f"s4://{PATH}")
    fs.get(f"s4://{PATH}", str(tmp_path / "out"))
    assert (tmp_path / "out").read_bytes() == LONG


def test_nothing_is_stored_of_a_file_that_was_left_by_an_exception(below: Bucket):
    fs = writing(below)

    def write() -> None:
        with fs.open(PATH, "wb") as file:
            file.write(TEXT)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write()
    assert below.verbs("PUT") == []


def test_nothing_is_stored_of_a_file_that_nobody_closed(below: Bucket):
    file = writing(below).open(PATH, "wb")
    file.write(TEXT)
    del file
    assert below.verbs("PUT") == []


def test_files_of_a_transaction_are_stored_at_its_end_or_not_at_all(below: Bucket):
    fs = writing(below)
    with fs.transaction:
        with fs.open(f"{BUCKET}/one", "wb") as file:
            file.write(TEXT)
        assert below.verbs("PUT") == []
    assert fs.cat_file(f"{BUCKET}/one") == TEXT

    def broken() -> None:
        with fs.transaction, fs.open(f"{BUCKET}/two", "wb") as file:
            file.write(TEXT)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        broken()
    assert not fs.exists(f"{BUCKET}/two")


def test_passthrough_stores_the_bytes_as_they_are_and_stamps_them(below: Bucket):
    fs = writing(below, write_codec="passthrough")
    fs.pipe_file(PATH, TEXT)
    assert below.stored(PATH) == TEXT
    assert below.kept[f"/{PATH}"]["s4-codec"] == "passthrough"
    assert "s4-framed" not in below.kept[f"/{PATH}"]
    assert fs.cat_file(PATH, -5, None) == TEXT[-5:]


def test_metadata_of_the_user_is_stored_and_none_that_is_ours_is_taken(below: Bucket):
    writing(below).pipe_file(PATH, TEXT, Metadata={"color": "blue", "S4-Codec": "forged"})
    assert below.kept[f"/{PATH}"] == {"color": "blue", **encode_s4_object(TEXT)["metadata"]}


def test_create_stores_only_where_nothing_is(below: Bucket):
    fs = writing(below)
    fs.pipe_file(PATH, TEXT, mode="create")
    with pytest.raises(FileExistsError):
        fs.pipe_file(PATH, b"other", mode="create")
    with pytest.raises(FileExistsError):
        fs.open(PATH, "xb")
    with fs.open(f"{PATH}2", "xb") as file:
        file.write(b"new")
        fs.pipe_file(f"{PATH}2", b"faster")
        with pytest.raises(FileExistsError):
            file.close()
    assert (fs.cat_file(PATH), fs.cat_file(f"{PATH}2")) == (TEXT, b"faster")


def test_caches_are_forgotten_whatever_happens(below: Bucket):
    fs = writing(below)
    fs.pipe_file(PATH, LONG)
    fs.cat_file(PATH, 0, 10)
    below.invalidated.clear()
    below.fails = lambda verb, path: OSError("disk full") if verb == "PUT" else None
    with pytest.raises(OSError, match="disk full"):
        fs.pipe_file(PATH, TEXT)
    assert {PATH, f"{PATH}.s4index", f"{BUCKET}/logs"} <= set(below.invalidated)


def test_a_sidecar_that_cannot_be_stored_is_told_and_the_object_is_there(below: Bucket):
    fs = writing(below)
    below.fails = lambda verb, path: (
        OSError("no") if verb == "PUT" and path.endswith(".s4index") else None
    )
    with pytest.raises(S4SidecarWriteError, match=r"is stored.*repair-sidecar") as caught:
        fs.pipe_file(PATH, LONG)
    assert isinstance(caught.value, OSError)
    assert f"{BUCKET}/logs" in below.invalidated
    assert fs.cat_file(PATH, 4_500_000, 4_500_100) == LONG[4_500_000:4_500_100]


def test_a_stale_sidecar_that_cannot_be_removed_is_no_failure(below: Bucket):
    fs = writing(below)
    fs.pipe_file(PATH, LONG)
    below.fails = lambda verb, path: PermissionError(path) if verb == "DELETE" else None
    fs.pipe_file(PATH, TEXT)
    assert fs.cat_file(PATH, 10, 20) == TEXT[10:20]
    assert f"/{PATH}.s4index" in below.store


def test_directories_need_not_be_made(below: Bucket):
    fs = writing(below)
    fs.mkdir(f"{BUCKET}/new")
    fs.makedirs(f"{BUCKET}/new/er", exist_ok=True)
    fs.touch(f"{BUCKET}/new/er/file")
    assert fs.cat_file(f"{BUCKET}/new/er/file") == b""
    assert below.verbs("PUT") == [f"/{BUCKET}/new/er/file"]


# --- refusals

WRITES: dict[str, Callable[[S4FileSystem], object]] = {
    "pipe_file": lambda fs: fs.pipe_file(PATH, b""),
    "pipe": lambda fs: fs.pipe({PATH: b""}),
    "put_file": lambda fs: fs.put_file(__file__, PATH),
    "open wb": lambda fs: fs.open(PATH, "wb"),
    "open xb": lambda fs: fs.open(PATH, "xb"),
    "touch": lambda fs: fs.touch(PATH),
    "mkdir": lambda fs: fs.mkdir(PATH),
    "makedirs": lambda fs: fs.makedirs(PATH),
}
NEVER: dict[str, Callable[[S4FileSystem], object]] = {
    "rm": lambda fs: fs.rm(PATH),
    "rm_file": lambda fs: fs.rm_file(PATH),
    "delete": lambda fs: fs.delete(PATH, recursive=True),
    "rmdir": lambda fs: fs.rmdir(PATH),
    "cp_file": lambda fs: fs.cp_file(PATH, f"{PATH}2"),
    "copy": lambda fs: fs.copy(PATH, f"{PATH}2"),
    "mv": lambda fs: fs.mv(PATH, f"{PATH}2"),
    "rename": lambda fs: fs.rename(PATH, f"{PATH}2"),
}


@pytest.mark.parametrize("name", WRITES | NEVER)
def test_without_the_flag_nothing_can_be_changed(full: Bucket, name: str):
    before = dict(full.store)
    with pytest.raises(S4ReadOnlyError, match="write_enabled=True") as caught:
        (WRITES | NEVER)[name](reading(full))
    assert isinstance(caught.value, OSError)
    assert isinstance(caught.value, NotImplementedError)
    assert full.store == before


@pytest.mark.parametrize("name", NEVER)
def test_what_would_break_objects_is_refused_and_points_to_the_gateway(full: Bucket, name: str):
    before = dict(full.store)
    with pytest.raises(S4UnsupportedError, match="gateway's endpoint") as caught:
        NEVER[name](writing(full))
    assert isinstance(caught.value, NotImplementedError)
    assert full.store == before


@pytest.mark.parametrize("mode", ["ab", "r+b", "w+b", "a"])
def test_an_object_is_not_changed_in_part(full: Bucket, mode: str):
    with pytest.raises(S4UnsupportedError, match="whole"):
        writing(full).open(PATH, mode)


@pytest.mark.parametrize(
    "key", ["a.s4index", ".s4dict/0123456789abcdef", ".s4mpu/x/1", "a.__s4ver__/1", ".s4dict"]
)
def test_reserved_keys_are_not_written(below: Bucket, key: str):
    fs = writing(below)
    path = f"s4://{BUCKET}/{key}"
    for write in (lambda: fs.pipe_file(path, b""), lambda: fs.open(path, "wb"),
                  lambda: fs.put_file(__file__, path)):  # fmt: skip
        with pytest.raises(S4ReservedKeyError, match="choose another") as caught:
            write()
        assert isinstance(caught.value, ValueError)
    assert below.verbs("PUT") == []


@pytest.mark.parametrize(
    ("path", "options", "says"),
    [
        (f"{PATH}?versionId=7", {}, "version"),
        (PATH, {"version_id": "7"}, "version"),
        (PATH, {"ServerSideEncryption": "AES256"}, "default encryption"),
        (PATH, {"SSECustomerKey": "k"}, "default encryption"),
    ],
)
def test_versions_and_encryption_of_one_write_are_refused(below, path, options, says):
    fs = writing(below)
    with pytest.raises(S4UnsupportedError, match=says):
        fs.pipe_file(path, TEXT, **options)
    with pytest.raises(S4UnsupportedError, match=says):
        fs.open(path, "wb", **options)


def test_a_filesystem_that_stores_no_metadata_is_read_and_not_written(tmp_path):
    plain = MemoryFileSystem(global_store=False, skip_instance_cache=True)
    plain.pipe_file(PATH, TEXT)
    fs = S4FileSystem(fs=plain, write_enabled=True, skip_instance_cache=True)
    assert fs.cat_file(PATH, 3, 9) == TEXT[3:9]
    with pytest.raises(S4MetadataUnsupportedError, match="s4fs_metadata_pipe_kwarg") as caught:
        fs.pipe_file(f"{PATH}2", TEXT)
    assert isinstance(caught.value, NotImplementedError)
    assert not plain.exists(f"{PATH}2")


def test_a_codec_that_is_not_written_here_is_refused_at_once(below: Bucket):
    with pytest.raises(S4WriteCodecError, match="gateway"):
        writing(below, write_codec="cpu-gzip")


def test_a_bucket_is_no_object(below: Bucket):
    with pytest.raises(IsADirectoryError):
        writing(below).pipe_file(BUCKET, b"")


def test_a_mode_nobody_knows_is_an_error(below: Bucket):
    with pytest.raises(ValueError, match="overwrite"):
        writing(below).pipe_file(PATH, b"", mode="append")


# --- construction


def test_options_of_the_filesystem_below_pass_through(tmp_path):
    fs = fsspec.filesystem("s4", target_protocol="file", auto_mkdir=True, write_enabled=True)
    assert isinstance(fs, S4FileSystem)
    assert isinstance(fs.fs, LocalFileSystem)
    assert fs.fs.auto_mkdir is True


def test_options_for_a_filesystem_that_is_given_are_refused(below: Bucket):
    with pytest.raises(ValueError, match="endpoint_url"):
        reading(below, endpoint_url="http://127.0.0.1")


def test_an_asynchronous_filesystem_is_refused():
    below = Bucket()
    below.asynchronous = True
    with pytest.raises(ValueError, match="asynchronous"):
        reading(below)
    with pytest.raises(ValueError, match="asynchronous"):
        reading(Bucket(), asynchronous=True)


def test_it_survives_pickling():
    fs = S4FileSystem(target_protocol="memory", write_enabled=True, write_codec="passthrough")
    again = pickle.loads(pickle.dumps(fs))  # noqa: S301 - our own bytes
    assert again == fs
    assert again.storage_options == fs.storage_options


def test_what_is_remembered_of_indexes_is_bounded():
    from s4gateway.s4fs.indexes import _LIMIT, Indexes  # noqa: PLC0415
    from s4gateway.s4fs.store import FsspecStore, Head  # noqa: PLC0415
    from s4gateway.wire.index import FrameEntry  # noqa: PLC0415

    indexes = Indexes(FsspecStore(Bucket()))
    index = FrameIndex.from_entries([FrameEntry(n, 1, n * 29, 29) for n in range(120_000)])
    for number in range(20):
        indexes.keep(Head(f"bucket/{number}", 1, None, str(number), {}), index)
    assert indexes._kept.weight <= _LIMIT
    assert indexes.known(Head("bucket/0", 1, None, "0", {})) is None
    assert indexes.known(Head("bucket/19", 1, None, "19", {})) is index
