"""The stored format's page shows real bytes: each dump is made again here and compared."""

import hashlib
import re
from pathlib import Path

import pytest

from s4gateway.codecs import decoder, registry
from s4gateway.wire import frame, index, manifest
from s4gateway.wire.codec_id import CodecId
from s4gateway.wire.crc32c import crc32c
from s4gateway.wire.tail import FULL_OBJECT, Tail

_PAGE = Path(__file__).parents[2] / "docs" / "reference" / "wire-format.md"
_HELLO = b"hello\n" * 20


def _block(kind: str, name: str) -> list[str]:
    found = re.search(
        rf"^```{kind} {name}\n(.*?)^```$", _PAGE.read_text(), re.MULTILINE | re.DOTALL
    )
    assert found, f"no block {kind} {name}"
    return found[1].splitlines()


def _dump(name: str) -> bytes:
    rows = [line.split("  ", 1) for line in _block("hex", name)]
    dump = bytes.fromhex(" ".join(row for _, row in rows))
    assert [int(offset, 16) for offset, _ in rows] == list(range(0, len(dump), 16))
    return dump


def _sidecar() -> bytes:
    entries = [
        index.FrameEntry(0, 4 * 1024**2, 0, 1_300_000),
        index.FrameEntry(4 * 1024**2, 1, 1_300_000, 29),
    ]
    bound = index.FrameIndex.from_entries(entries).bind("9e107d9d372bb6826bd81d3542a419d6", 1300029)
    return bound.encode()


def _tail() -> bytes:
    mib8 = 8 * 1024**2
    etag = "0678a5c0864e58f1854f042ceb36b1c4-3"
    parts = ((1, mib8), (2, mib8), (3, 5))
    checksum = ("crc32", "y/Q5Jg==", FULL_OBJECT)
    return Tail("a1b2c3d4e5f60718", etag, 2 * mib8 + 5, parts, checksum).encode()


@pytest.mark.parametrize(
    ("name", "made"),
    [
        (
            "passthrough-frame",
            frame.FrameHeader(CodecId.PASSTHROUGH, 5, 5, crc32c(b"hello")).pack() + b"hello",
        ),
        ("padding-frame", frame.padding(4)),
        ("sidecar", _sidecar()),
        ("tail", _tail()),
    ],
)
def test_a_dump_is_what_the_package_makes(name: str, made: bytes):
    assert _dump(name) == made


def test_the_complete_object_decodes_to_what_the_page_says():
    # Compressed bytes may differ between zstd releases; what they decode to may not.
    assert decoder.decode_body(_dump("zstd-object"), registry.Registry()) == _HELLO


def test_the_complete_objects_metadata_describes_it():
    stored = _dump("zstd-object")
    described = manifest.Manifest(
        CodecId.CPU_ZSTD,
        original_size=len(_HELLO),
        compressed_size=len(stored),
        crc32c=crc32c(_HELLO),
        framed=True,
        logical_etag=hashlib.md5(_HELLO).hexdigest(),
    )
    shown = dict(line.split(": ") for line in _block("metadata", "zstd-object"))
    assert shown == described.to_metadata()


def test_every_codec_stands_in_the_table():
    rows = re.findall(r"^\| (\d+) \| `([a-z-]+)` \|", _PAGE.read_text(), re.MULTILINE)
    assert {int(number): name for number, name in rows} == {each: each.label for each in CodecId}
