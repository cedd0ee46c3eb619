import errno
import itertools
import os
import stat
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from s4gateway.state import files
from tests.state import disk

LIMIT = 1000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.json"


def _names(path: Path) -> set[str]:
    return {entry.name for entry in path.parent.iterdir()}


def test_what_was_written_is_read(path: Path):
    assert files.read(path, LIMIT) is None
    for content in (b"one", b"", b"x" * LIMIT):
        files.write_atomic(path, content, LIMIT)
        assert files.read(path, LIMIT) == content
    assert _names(path) == {path.name}


def test_more_than_the_limit_is_neither_written_nor_read(path: Path):
    files.write_atomic(path, b"old", LIMIT)
    with pytest.raises(files.StateFileWrite, match=f"larger than {LIMIT} bytes"):
        files.write_atomic(path, b"x" * (LIMIT + 1), LIMIT)
    assert files.read(path, LIMIT) == b"old"
    path.write_bytes(b"x" * (LIMIT + 1))
    with pytest.raises(files.StateFileParse, match=f"larger than {LIMIT} bytes"):
        files.read(path, LIMIT)


def test_what_is_no_file_is_said_and_not_waited_for(path: Path):
    path.mkdir()
    with pytest.raises(files.StateFileRead, match="is a directory"):
        files.read(path, LIMIT)
    path.rmdir()
    os.mkfifo(path)
    with pytest.raises(files.StateFileRead, match="is not a regular file"):
        files.read(path, LIMIT)
    with pytest.raises(files.StateFileRead, match="is not a regular file"):
        files.read(Path("/dev/zero"), LIMIT)
    with pytest.raises(files.StateFileRead, match="Not a directory"):
        files.read(path / "below", LIMIT)


def test_a_new_file_is_private_and_an_old_one_keeps_its_mode(path: Path):
    files.write_atomic(path, b"1", LIMIT)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o644)
    files.write_atomic(path, b"2", LIMIT)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_a_disk_that_takes_a_byte_at_a_time_gets_them_all(
    path: Path, monkeypatch: pytest.MonkeyPatch
):
    calls = disk.install(monkeypatch)
    calls.write = lambda descriptor, data: os.write(descriptor, data[:1])  # type: ignore[attr-defined]
    files.write_atomic(path, b"0123456789", LIMIT)
    assert path.read_bytes() == b"0123456789"


def test_bytes_and_name_are_synchronised_in_this_order(path: Path, monkeypatch: pytest.MonkeyPatch):
    calls = disk.install(monkeypatch)
    files.write_atomic(path, b"new", LIMIT)
    steps = [name for name in calls.calls if name in {"write", "fsync", "replace"}]
    assert steps == ["write", "fsync", "replace", "fsync"]


@pytest.mark.parametrize("wrong", [errno.ENOSPC, errno.EIO, -errno.EIO])
@pytest.mark.parametrize("existed", [False, True])
def test_whatever_call_fails_the_file_is_the_old_one_or_the_new_one_and_the_error_tells(
    path: Path, monkeypatch: pytest.MonkeyPatch, wrong: int, existed: bool
):
    calls = disk.install(monkeypatch)
    for at in itertools.count(1):
        path.unlink(missing_ok=True)
        if existed:
            path.write_bytes(b"old")
            path.chmod(0o640)
        calls.calls.clear()
        calls.decide = lambda _name, number, at=at: wrong if number == at else None
        if (error := _error_of_writing(path)) is None:
            break
        there = path.read_bytes() if path.exists() else b""
        assert there == (b"new" if error.replaced else b"old" if existed else b"")
        assert error.cause == os.strerror(abs(wrong))
        assert _names(path) <= {path.name}
    assert at > 7, "every call was to fail once"


def _error_of_writing(path: Path) -> files.StateFileWrite | None:
    try:
        files.write_atomic(path, b"new", LIMIT)
    except files.StateFileWrite as error:
        return error
    return None


def test_a_directory_that_cannot_be_synchronised_is_no_error(
    path: Path, monkeypatch: pytest.MonkeyPatch
):
    calls = disk.install(monkeypatch)
    calls.decide = lambda name, _: (
        errno.EINVAL if name == "fsync" and "replace" in calls.calls else None
    )
    files.write_atomic(path, b"new", LIMIT)
    assert path.read_bytes() == b"new"


def test_a_place_where_files_cannot_be_made_is_said(tmp_path: Path):
    files.check_writable(tmp_path / "state")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(files.StateFileWrite, match="No such file or directory"):
        files.check_writable(tmp_path / "none" / "state")


def test_setting_aside_never_takes_a_name_that_is_taken(path: Path):
    now = datetime(2025, 3, 4, 5, 6, 7, 89, UTC)
    moved = []
    for content in (b"one", b"two", b"three"):
        path.write_bytes(content)
        moved.append(files.set_aside(path, now))
    assert moved[0].name == "state.json.corrupt-20250304T050607.000089Z"
    assert [each.read_bytes() for each in moved] == [b"one", b"two", b"three"]
    assert not path.exists()
    with pytest.raises(files.StateFileWrite, match="cannot be set aside"):
        files.set_aside(path, now)


def test_only_what_killed_writers_of_this_file_left_is_removed(path: Path):
    mine = path.with_name(f".{path.name}.{'0' * 16}.tmp")
    others = [
        path.with_name(name)
        for name in (
            f".other.json.{'0' * 16}.tmp", f".{path.name}.{'0' * 15}.tmp", f"{path.name}.tmp",
            f".{path.name}.{'0' * 16}.tmp.keep",
        )
    ]  # fmt: skip
    for each in (mine, *others):
        each.touch()
    files.remove_leftovers(path)
    assert _names(path) == {each.name for each in others}


def test_a_lock_excludes_others_of_the_same_process_too(path: Path):
    one, other = files.LockFile(path), files.LockFile(path)
    refused = pytest.raises(files.StateFileWrite, match="another process holds the lock")
    with one.held(), refused, other.held(0.01):
        pass
    with other.held(0.01):
        pass
    one.close()
    other.close()
    other.close()


def test_a_lock_file_that_was_removed_locks_nothing_any_more(path: Path):
    one, other = files.LockFile(path), files.LockFile(path)
    counted = []

    def count() -> None:
        for _ in range(20):
            with one.held():
                counted.append(len(counted))

    with other.held():
        path.unlink()
    worker = threading.Thread(target=count)
    worker.start()
    for _ in range(20):
        with other.held():
            counted.append(len(counted))
            path.unlink()
    worker.join()
    assert counted == list(range(40))
    one.close()
    other.close()


def test_a_lock_where_no_file_can_be_is_an_error_with_the_path(tmp_path: Path):
    with pytest.raises(files.StateFileWrite, match=str(tmp_path / "none" / "lock")):
        files.LockFile(tmp_path / "none" / "lock")
