from pathlib import Path

import pytest

from s4gateway.backend.base import BackendAnswer
from s4gateway.backend.memory import MemoryBackend
from s4gateway.codecs import training
from s4gateway.objects import dictionaries
from s4gateway.tools import dict_export
from tests import events
from tests.objects.world import BUCKET, put_stored

DICTIONARY = training.train(events.orders(50), 2048)
OTHER = training.train(events.orders(50, seed=3), 2048)


@pytest.fixture
async def store() -> MemoryBackend:
    store = MemoryBackend.with_buckets(BUCKET)
    for each in (DICTIONARY, OTHER):
        await dictionaries.publish(store, BUCKET, each)
    put_stored(store, ".s4dict/readme", b"no dictionary")
    put_stored(store, "object", b"x")
    return store


def path_of(folder: Path, dictionary: bytes) -> Path:
    return folder / f"{dictionaries.fingerprint(dictionary)}.dict"


def files(folder: Path) -> set[Path]:
    return set(folder.iterdir())


async def test_every_dictionary_of_the_bucket_becomes_a_file(store: MemoryBackend, tmp_path: Path):
    report = await dict_export.run(store, BUCKET, tmp_path)
    assert path_of(tmp_path, DICTIONARY).read_bytes() == DICTIONARY
    assert path_of(tmp_path, OTHER).read_bytes() == OTHER
    assert len(files(tmp_path)) == len(report.dictionaries) == 2
    assert report.failed == 0
    assert {each.stat().st_mode & 0o777 for each in files(tmp_path)} == {0o600}
    assert all(each.is_new and each.size > 0 for each in report.dictionaries)


async def test_only_the_ones_asked_for_are_copied(store: MemoryBackend, tmp_path: Path):
    wanted = dictionaries.fingerprint(OTHER)
    report = await dict_export.run(store, BUCKET, tmp_path, [wanted, wanted])
    assert [each.id for each in report.dictionaries] == [wanted]
    assert files(tmp_path) == {path_of(tmp_path, OTHER)}


async def test_a_file_with_other_bytes_is_left_as_it_is(store: MemoryBackend, tmp_path: Path):
    path_of(tmp_path, OTHER).write_bytes(b"mine")
    report = await dict_export.run(store, BUCKET, tmp_path)
    assert path_of(tmp_path, OTHER).read_bytes() == b"mine"
    assert report.failed == 1
    (failed,) = [each for each in report.dictionaries if each.problem]
    assert "File exists" in (failed.problem or "")
    assert path_of(tmp_path, DICTIONARY).read_bytes() == DICTIONARY


async def test_a_second_run_finds_everything_done(store: MemoryBackend, tmp_path: Path):
    await dict_export.run(store, BUCKET, tmp_path)
    report = await dict_export.run(store, BUCKET, tmp_path)
    assert report.failed == 0
    assert not any(each.is_new for each in report.dictionaries)


async def test_a_link_is_not_followed_to_overwrite_what_it_names(
    store: MemoryBackend, tmp_path: Path
):
    mine = tmp_path / "mine"
    path_of(tmp_path, OTHER).symlink_to(mine)
    report = await dict_export.run(store, BUCKET, tmp_path, [dictionaries.fingerprint(OTHER)])
    assert report.failed == 1
    assert not mine.exists()


@pytest.mark.parametrize("damage", [b"", DICTIONARY[:-1], OTHER, b"x" * (1024**2 + 1)])
async def test_bytes_that_are_not_the_dictionary_never_become_a_file(tmp_path: Path, damage: bytes):
    store = MemoryBackend.with_buckets(BUCKET)
    wanted = dictionaries.fingerprint(DICTIONARY)
    put_stored(store, f".s4dict/{wanted}", damage)
    report = await dict_export.run(store, BUCKET, tmp_path)
    assert report.failed == 1
    assert wanted in (report.dictionaries[0].problem or "")
    assert files(tmp_path) == set()


async def test_a_dictionary_that_is_not_there_is_told(store: MemoryBackend, tmp_path: Path):
    report = await dict_export.run(store, BUCKET, tmp_path, ["f" * 16])
    assert "does not exist" in (report.dictionaries[0].problem or "")


async def test_a_bucket_without_dictionaries_says_so(tmp_path: Path):
    report = await dict_export.run(MemoryBackend.with_buckets(BUCKET), BUCKET, tmp_path)
    assert (report.dictionaries, report.failed) == ((), 0)
    assert "holds no dictionaries" in report.notes[0]


async def test_a_bucket_that_is_not_there_is_raised(tmp_path: Path):
    with pytest.raises(BackendAnswer):
        await dict_export.run(MemoryBackend(), BUCKET, tmp_path)


async def test_a_directory_that_cannot_be_written_is_a_failure_for_each(
    store: MemoryBackend, tmp_path: Path
):
    report = await dict_export.run(store, BUCKET, tmp_path / "nowhere")
    assert report.failed == 2
