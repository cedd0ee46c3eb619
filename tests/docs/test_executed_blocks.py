"""What the pages tell a reader to run is run, against a gateway with its embedded server."""

import contextlib
import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from s4gateway.gateway.client_keys import ClientKeys
from tests import clients, corpus, live
from tests.docs import pages

_TUTORIAL = pages.DOCS / "tutorials" / "first-object.md"
_DATASET_TUTORIAL = pages.DOCS / "tutorials" / "first-dataset.md"
_DATASET_FORMAT = pages.REFERENCE / "dataset-format.md"  # run by test_dataset_format_page.py
_WITHOUT = pages.DOCS / "how-to" / "read-without-the-gateway.md"
_PANDAS = pages.DOCS / "how-to" / "use-from-pandas.md"
_CODEC = pages.REFERENCE / "codec.md"
_SECONDS = 600


def test_every_block_to_run_is_in_a_page_that_is_run():
    marked = {page for page in pages.all_pages() if pages.to_run(page)}
    assert marked == {
        pages.ROOT / "README.md",
        _TUTORIAL,
        _DATASET_TUTORIAL,
        _DATASET_FORMAT,
        _PANDAS,
        _CODEC,
    }


def test_the_credentials_file_that_is_shown_is_valid():
    page = pages.DOCS / "how-to" / "give-clients-their-own-keys.md"
    (block,) = [block for block in pages.blocks(page) if "credentials" in block.words]
    keys = ClientKeys.parse(block.text)
    assert {name: key.read_only for name, key in keys.keys.items()} == {
        "ANALYTICS01": True,
        "INGEST01": False,
        "AKIAEXAMPLEOFTHESTORE": False,
    }


@dataclass(frozen=True, slots=True)
class Reader:
    """Someone with a gateway, its three export lines pasted, and an empty directory."""

    gateway: live.Gateway
    store: live.Endpoint
    folder: Path

    def run(self, *command: str, text: str = "") -> str:
        done = subprocess.run(
            command,
            input=text,
            text=True,
            capture_output=True,
            timeout=_SECONDS,
            check=False,
            cwd=self.folder,
            env=live.environment(self.folder) | self._exports(),
        )
        assert done.returncode == 0, f"{command[0]}: {done.stdout}\n{done.stderr}"
        return done.stdout

    def _exports(self) -> dict[str, str]:
        """What is pasted, and nothing that would excuse a missing line: no region, for one."""
        return {
            "AWS_ACCESS_KEY_ID": self.gateway.access_key,
            "AWS_SECRET_ACCESS_KEY": self.gateway.secret_key,
            "AWS_ENDPOINT_URL": self.gateway.endpoint_url,
            "AWS_REGION": "",
            "STORE": self.store.endpoint_url,
        }


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[live.Gateway]:
    folder = tmp_path_factory.mktemp("embedded")
    with live.embedded_gateway(folder / "data", folder) as gateway:
        yield gateway


@pytest.fixture
def reader(embedded: live.Gateway, tmp_path: Path) -> Reader:
    """The store's address is read where the tutorial reads it: in the log."""
    found = re.search(r"listening .*backend=(\S+)", embedded.read_log())
    assert found
    (tmp_path / ".venv").symlink_to(Path(sys.prefix))
    store = live.Endpoint(found[1], embedded.access_key, embedded.secret_key)
    return Reader(embedded, store, tmp_path)


@pytest.mark.e2e
def test_make_run_prints_the_lines_to_paste(embedded: live.Gateway):
    log = embedded.read_log()
    assert f"export AWS_ACCESS_KEY_ID={embedded.access_key}\n" in log
    assert f"export AWS_SECRET_ACCESS_KEY={embedded.secret_key}\n" in log
    assert f"export AWS_ENDPOINT_URL={embedded.endpoint_url}\n" in log


@pytest.mark.e2e
def test_the_commands_of_the_readme_store_fetch_and_show_both_sizes(reader: Reader):
    if live.program("curl") is None:
        pytest.skip("the README's last command needs curl")
    (block,) = pages.to_run(pages.ROOT / "README.md")
    before = httpx.get(f"{reader.gateway.endpoint_url}/metrics", trust_env=False, timeout=60).text
    said = reader.run("sh", "-uc", block.text)
    sent = (reader.folder / "logs.txt").stat().st_size
    assert "same bytes: True" in said
    assert _metric(said, "s4_bytes_in_total") - _metric(before, "s4_bytes_in_total") == sent
    stored = _metric(said, "s4_bytes_out_total") - _metric(before, "s4_bytes_out_total")
    assert 0 < stored < sent


def _metric(said: str, name: str) -> int:
    """Sum over codecs: a machine without logs stores nothing, as passthrough."""
    return sum(
        int(float(value)) for value in re.findall(rf'(?m)^{name}\{{.*op="put".*\}} (\S+)$', said)
    )


@pytest.mark.e2e
def test_the_tutorial_runs_from_its_first_block_to_its_last(reader: Reader):
    script = "\n".join(block.text for block in pages.to_run(_TUTORIAL))
    said = reader.run(str(Path(sys.executable)), "-", text=script)
    assert "bytes 12000000-12000099/" in said
    assert "s4-framed true" in said
    assert "sidecar: 404" in said
    assert "NotImplemented 501" in said


@pytest.mark.e2e
def test_the_dataset_tutorial_runs_from_its_first_block_to_its_last(reader: Reader):
    script = "\n".join(block.text for block in pages.to_run(_DATASET_TUTORIAL))
    said = reader.run(str(Path(sys.executable)), "-", text=script)
    assert re.search(r"(?m)^2 sales/data/month=2026-03/shop=berlin/import-1-\S+\.parquet$", said)
    assert "a 2 12.5" in said
    assert "0 sales/_ref/" in said
    assert "pattern 0, 'shop=paris/month=2026-03': " in said


@pytest.mark.e2e
def test_the_page_on_pandas_runs_from_its_first_block_to_its_last(reader: Reader):
    python = pages.ROOT / ".venv-s3fs" / "bin" / "python"
    if not (python.parent.parent / ".installed").exists():
        pytest.skip("s3fs not installed: make clients")
    with contextlib.closing(clients.boto3_client(reader.store)) as direct:
        direct.create_bucket(Bucket="shop")
    script = "\n".join(block.text for block in pages.to_run(_PANDAS))
    said = replace(reader, gateway=reader.store).run(str(python), "-", text=script)
    assert "rows: 200000 same: True\nfirst lines: 5\nthird day: 66666\n" in said
    assert re.search(r"files: \['shop/by-day/day=2026-01-01/[^']+\.parquet', ", said)
    assert "[(99.6,)]\n200000\n" in said
    sizes = re.search(r"original: (\d+) stored: (\d+)", said)
    assert sizes
    assert int(sizes[1]) > 2 * int(sizes[2])


def test_the_example_of_the_codec_page_runs():
    (block,) = pages.to_run(_CODEC)
    names: dict[str, Any] = {}
    exec(block.text, names)  # noqa: S102 - our own page
    assert names["plain"] == (b"a line of a log\n" * 1_000_000)[: len(names["plain"])]
    assert names["index"]["source_etag"] == "the store's ETag"


def _unframe(folder: Path) -> Path:
    (block,) = [block for block in pages.blocks(_WITHOUT) if "unframe.py" in block.words]
    script = folder / "unframe.py"
    script.write_text(block.text)
    return script


def _needs(*programs: str) -> None:
    missing = [name for name in programs if live.program(name) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")


@pytest.fixture
def stored(gateway: live.Gateway, direct: Any, bucket: str) -> Any:
    """What lies in the store after a client has put a body through the gateway."""

    def put(body: bytes) -> tuple[bytes, dict[str, str]]:
        client = clients.boto3_client(gateway)
        client.put_object(
            Bucket=bucket, Key="object", Body=body, ContentType="application/octet-stream"
        )
        client.close()
        answer = direct.get_object(Bucket=bucket, Key="object")
        return answer["Body"].read(), answer["Metadata"]

    return put


@pytest.mark.e2e
@pytest.mark.parametrize("kind", ["text", "text with random parts"])
def test_the_script_reads_an_object_of_many_frames_with_stock_zstd(
    stored: Any, tmp_path: Path, kind: str
):
    _needs("zstd", "cat")
    body = corpus.text(13_000_000)
    if kind != "text":
        body = body[:5_000_000] + os.urandom(6_000_000) + body[5_000_000:]
    data, metadata = stored(body)
    assert metadata["s4-framed"] == "true"
    done = subprocess.run(
        [sys.executable, str(_unframe(tmp_path))],
        input=data,
        capture_output=True,
        check=True,
        timeout=_SECONDS,
    )
    assert done.stdout == body
    assert metadata["s4-original-size"] == str(len(done.stdout))
    assert metadata["s4-logical-etag"] == hashlib.md5(done.stdout).hexdigest()


@pytest.mark.e2e
def test_tail_and_stock_zstd_read_an_object_of_one_frame(stored: Any):
    _needs("zstd", "tail")
    body = corpus.text(100_000)
    data, _ = stored(body)
    (pipeline,) = re.findall(r"- \| (tail .*) > small\.json", _WITHOUT.read_text())
    done = subprocess.run(
        ["sh", "-c", pipeline], input=data, capture_output=True, check=True, timeout=_SECONDS
    )
    assert done.stdout == body


def test_the_script_refuses_what_is_no_frame(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, str(_unframe(tmp_path))],
        input=b"PK\x03\x04 not ours",
        capture_output=True,
        check=False,
        timeout=_SECONDS,
    )
    assert done.returncode == 1
    assert b"this is no frame" in done.stderr
