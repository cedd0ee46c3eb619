import os
import threading
import time
from pathlib import Path

import pytest

from s4gateway.objects.unnamed_file import UnnamedFile
from tests.objects import world


def test_what_is_appended_is_read_back_from_anywhere(tmp_path: Path):
    before = world.open_files()
    file = UnnamedFile(tmp_path)
    file.append([b"one", bytearray(b"two"), memoryview(b"-three-")[1:-1]])
    file.append([])
    assert file.read(100, 0) == b"onetwothree"
    assert file.read(3, 3) == b"two"
    assert file.read(3, 100) == b""
    assert list(tmp_path.iterdir()) == []
    file.close()
    file.close()
    assert world.open_files() == before
    with pytest.raises(OSError, match="closed"):
        file.read(1, 0)
    with pytest.raises(OSError, match="closed"):
        file.append([b"x"])


def test_a_directory_that_is_not_there_is_an_error(tmp_path: Path):
    with pytest.raises(OSError, match="nowhere"):
        UnnamedFile(tmp_path / "nowhere")


def test_a_filesystem_without_unnamed_files_leaves_no_name_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delattr(os, "O_TMPFILE")
    file = UnnamedFile(tmp_path)
    file.append([b"data"])
    assert file.read(4, 0) == b"data"
    assert list(tmp_path.iterdir()) == []
    file.close()


def test_closing_under_a_writer_never_lets_it_write_into_another_file(tmp_path: Path):
    before = world.open_files()
    for _ in range(30):
        file = UnnamedFile(tmp_path)
        failures: list[OSError] = []

        def write(file: UnnamedFile = file, failures: list[OSError] = failures) -> None:
            try:
                for _ in range(200):
                    file.append([b"victim" * 1000])
            except OSError as error:
                failures.append(error)

        thread = threading.Thread(target=write)
        thread.start()
        time.sleep(0.0005)
        file.close()
        other = UnnamedFile(tmp_path)
        other.append([b"mine"])
        thread.join()
        assert other.read(100, 0) == b"mine"
        other.close()
    assert world.open_files() == before
