"""`s4 decode`, `s4 inspect`, `s4 index` from the command line, as processes where pipes matter."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from s4gateway.cli import main
from s4gateway.wire.codec_id import CodecId
from s4gateway.wire.frame import FrameHeader
from s4gateway.wire.index import FrameIndex
from tests import corpus
from tests.objects import tailed, world
from tests.tools.stored import dictionary_frame

BODY = world.framed([corpus.text(90_000), corpus.noise(20_000)], padding=(-1, 30))
DICTIONARY = corpus.text(9_000, seed=3)


def s4(capfdbinary: pytest.CaptureFixture[bytes], *arguments: str) -> tuple[object, bytes, str]:
    with pytest.raises(SystemExit) as ended:
        main.main(arguments)
    sys.stdout.flush()
    said = capfdbinary.readouterr()
    return ended.value.code, said.out, said.err.decode()


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    path = tmp_path / "stored"
    path.write_bytes(BODY.stored)
    return path


@pytest.fixture
def head(tmp_path: Path) -> Path:
    path = tmp_path / "head.json"
    path.write_text(json.dumps({"ContentLength": len(BODY.stored), "Metadata": BODY.metadata}))
    return path


def test_decode_writes_the_original_to_a_file(capfdbinary, stored: Path, head: Path):
    output = stored.with_name("original")
    status, out, err = s4(
        capfdbinary, "decode", str(stored), "-o", str(output), "--metadata", str(head)
    )
    assert (status, out, err) == (0, b"", "")
    assert output.read_bytes() == BODY.plain
    assert sorted(each.name for each in stored.parent.iterdir()) == [
        "head.json", "original", "stored",
    ]  # fmt: skip


def test_a_failed_decode_leaves_the_file_as_it_was(capfdbinary, stored: Path):
    output = stored.with_name("original")
    output.write_bytes(b"what was there")
    damaged = bytearray(BODY.stored)
    damaged[-100] ^= 1
    stored.write_bytes(damaged)
    status, _, err = s4(capfdbinary, "decode", str(stored), "-o", str(output))
    assert status == 1
    assert err.startswith(f"s4: {stored}: crc-mismatch: ")
    assert "1 frames were written before" in err
    assert output.read_bytes() == b"what was there"
    assert len(list(stored.parent.iterdir())) == 2


def test_decode_needs_no_environment_and_no_network(stored: Path):
    program = [sys.executable, "-m", "s4gateway", "decode"]
    done = subprocess.run(
        program, input=BODY.stored, capture_output=True, check=True, env={"S4_NO_SUCH": "1"}
    )
    assert done.stdout == BODY.plain
    assert b"nothing tells how large the original was" in done.stderr


def test_whoever_reads_our_output_may_leave(stored: Path):
    stored.write_bytes(world.framed([corpus.text(4_000_000)]).stored)
    program = f"{sys.executable} -m s4gateway decode {stored} | head -c 10"
    done = subprocess.run(program, shell=True, capture_output=True, check=True)  # noqa: S602
    assert len(done.stdout) == 10
    assert b"Traceback" not in done.stderr


def test_decode_writes_into_what_is_no_file(capfdbinary, stored: Path):
    assert s4(capfdbinary, "decode", str(stored), "-o", os.devnull)[0] == 0
    assert not Path(os.devnull).is_file()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda _: b"S4E6" + bytes(50), "encrypted (S4E6)"),
        (lambda _: b"PK\x03\x04", "no frame begins here"),
        (lambda _: FrameHeader(CodecId.NVCOMP_ZSTD, 9, 4, 0).pack() + b"FCG1", "GPU build"),
        (lambda _: dictionary_frame(DICTIONARY, b"x" * 500), "--dict"),
        (lambda _: BODY.stored[:-5], "payload-truncated"),
    ],
)
def test_what_cannot_be_decoded_is_one_line(capfdbinary, stored: Path, make, said: str):
    stored.write_bytes(make(None))
    status, _, err = s4(capfdbinary, "decode", str(stored))
    assert status == 1
    assert said in err
    assert len(err.splitlines()) == 1


def test_a_dictionary_is_given_as_a_file(capfdbinary, stored: Path):
    plain = corpus.text(2_000, seed=3)
    stored.write_bytes(dictionary_frame(DICTIONARY, plain))
    dictionary = stored.with_name("dictionary")
    dictionary.write_bytes(DICTIONARY)
    status, out, _ = s4(capfdbinary, "decode", str(stored), "--dict", str(dictionary))
    assert (status, out) == (0, plain)


@pytest.mark.parametrize(
    "arguments",
    [
        ("decode", "no/such/file"),
        ("inspect", "no/such/file"),
        ("index", "no/such/file"),
        ("decode", "STORED", "--dict", "no/such/file"),
        ("decode", "STORED", "--metadata", "no/such/file"),
        ("decode", "STORED", "-o", "no/such/folder/file"),
    ],
)
def test_a_missing_file_is_named(capfdbinary, stored: Path, arguments: tuple[str, ...]):
    given = [str(stored) if each == "STORED" else each for each in arguments]
    status, _, err = s4(capfdbinary, *given)
    assert status == 1
    assert "no/such/f" in err
    assert "No such file or directory" in err
    assert len(err.splitlines()) == 1


def test_metadata_without_a_bound_is_not_read(capfdbinary, stored: Path, head: Path):
    head.write_text(" " * (1024 * 1024 + 1))
    status, _, err = s4(capfdbinary, "decode", str(stored), "--metadata", str(head))
    assert status == 1
    assert "more than 1048576 bytes" in err


def test_inspect_prints_frames_as_a_table_and_as_json(capfdbinary, stored: Path):
    status, out, _ = s4(capfdbinary, "inspect", str(stored))
    assert status == 0
    assert b"cpu-zstd: 1 frames" in out
    assert b"padding: 1 frames" in out
    status, out, _ = s4(capfdbinary, "inspect", str(stored), "--format", "json", "--frames", "1")
    report = json.loads(out)
    assert (report["frames"], len(report["listed"])) == (2, 1)
    assert report["listed"][0]["original_size"] == 90_000
    assert report["notes"]


def test_inspect_shows_tails_and_sidecars(capfdbinary, stored: Path):
    body = tailed.tailed([b"first part" * 300, b"second" * 200])
    stored.write_bytes(body.stored)
    assert (
        f"tail: ETag {body.tail.etag}, 2 parts".encode()
        in s4(capfdbinary, "inspect", str(stored))[1]
    )
    stored.write_bytes(BODY.index.bind("a" * 32, 9).encode())
    out = s4(capfdbinary, "inspect", str(stored))[1]
    assert b"index of 2 frames" in out
    assert b"bound to ETag " + b"a" * 32 in out


def test_inspect_of_a_broken_body_shows_the_fault_and_ends_with_1(capfdbinary, stored: Path):
    stored.write_bytes(BODY.stored + b"GARBAGE" * 9)
    status, out, _ = s4(capfdbinary, "inspect", str(stored))
    assert status == 1
    assert b"FAULT bad-magic" in out


def test_inspect_of_an_object_needs_a_store_and_a_key(capfdbinary):
    status, _, err = s4(capfdbinary, "inspect", "s3://bucket/key")
    assert status == 2
    assert "--endpoint-url: missing" in err
    status, _, err = s4(capfdbinary, "inspect", "bucket", "--endpoint-url", "http://127.0.0.1:1")
    assert status == 2
    assert "names no object" in err


def test_index_writes_a_sidecar_and_reports_it(capfdbinary, stored: Path):
    output = stored.with_name("stored.s4index")
    status, out, _ = s4(
        capfdbinary, "index", str(stored), "-o", str(output), "--etag", '"abc"', "--format", "json"
    )
    assert status == 0
    assert json.loads(out)["etag"] == "abc"
    index = FrameIndex.decode(output.read_bytes())
    assert index == BODY.index.bind("abc", len(BODY.stored))
    status, out, _ = s4(capfdbinary, "index", str(stored), "--etag", "abc")
    assert (status, out) == (0, output.read_bytes())


def test_standard_input_is_read_where_no_file_is_named(
    capfdbinary, monkeypatch: pytest.MonkeyPatch, stored: Path
):
    with stored.open("rb") as file:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(file))
        status, out, _ = s4(capfdbinary, "decode")
        assert (status, out) == (0, BODY.plain)
