"""Dictionaries from the outside: small objects that shrink, rotated live, readable for ever."""

import contextlib
import hashlib
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests import clients, corpus, forms, live, vintages
from tests.conftest import StartGateway
from tests.e2e import metering, raw

pytestmark = pytest.mark.e2e

MIB = 1024 * 1024
HEADER = 28
DATA = vintages.trained(size=16 * 1024)
ID = vintages.id_of(DATA)


def publish(direct: Any, bucket: str, data: bytes, dict_id: str | None = None) -> str:
    """Lay a dictionary into a bucket as `s4 train-dict` would, or under an id it has not."""
    dict_id = dict_id or vintages.id_of(data)
    digest = hashlib.sha256(data).hexdigest()
    direct.put_object(
        Bucket=bucket,
        Key=f".s4dict/{dict_id}",
        Body=data,
        ContentType="application/x-zstd-dictionary",
        Metadata={"s4-dict-sha256": digest},
    )
    return dict_id


@pytest.fixture(scope="module")
def store(direct: Any) -> Iterator[str]:
    """A bucket with a dictionary."""
    name = live.bucket_name()
    direct.create_bucket(Bucket=name)
    publish(direct, name, DATA)
    yield name
    live.remove_bucket(direct, name)


@pytest.fixture(scope="module")
def mapped(
    seaweedfs: live.Seaweedfs, store: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[live.Gateway]:
    """A gateway that tries the dictionary on `ev/`."""
    folder = tmp_path_factory.mktemp("mapped")
    with live.gateway(seaweedfs, folder, "--zstd-dict", f"{store}/ev/={ID}") as gateway:
        yield gateway


@pytest.fixture(scope="module")
def client(mapped: live.Gateway) -> Iterator[Any]:
    with contextlib.closing(clients.boto3_client(mapped)) as found:
        yield found


def metadata(direct: Any, bucket: str, key: str) -> dict[str, str]:
    found: dict[str, str] = direct.head_object(Bucket=bucket, Key=key)["Metadata"]
    return found


def read(client: Any, bucket: str, key: str, **more: Any) -> bytes:
    with client.get_object(Bucket=bucket, Key=key, **more)["Body"] as body:
        data: bytes = body.read()
    return data


# --- what is stored


@pytest.mark.parametrize("count", [1, 200])
def test_the_stock_program_reads_what_is_stored_behind_its_header(
    client: Any, direct: Any, store: str, key: str, tmp_path: Path, count: int
):
    body = b"\n".join(vintages.events(count))[:100_000]
    client.put_object(Bucket=store, Key=f"ev/{key}", Body=body, ContentType="application/json")
    entries = metadata(direct, store, f"ev/{key}")
    assert (entries["s4-codec"], entries["s4-dict-id"]) == ("cpu-zstd-dict", ID)
    stored = read(direct, store, f"ev/{key}")
    assert clients.zstd_decode(stored[HEADER:], tmp_path, DATA) == body
    with pytest.raises(subprocess.CalledProcessError):
        clients.zstd_decode(stored[HEADER:], tmp_path)


def test_clients_see_the_original_whatever_gateway_they_ask(
    client: Any, s3: Any, direct: Any, store: str, key: str
):
    body = vintages.event(1)
    put = client.put_object(
        Bucket=store, Key=f"ev/{key}", Body=body, Metadata={"a": "b"}, ContentType="a/b"
    )
    assert put["ETag"] == f'"{hashlib.md5(body).hexdigest()}"'
    stored = direct.head_object(Bucket=store, Key=f"ev/{key}")["ContentLength"]
    assert stored < len(body) / 2
    for each in (client, s3):
        head = each.head_object(Bucket=store, Key=f"ev/{key}")
        assert (head["ContentLength"], head["ETag"]) == (len(body), put["ETag"])
        assert head["Metadata"] == {"a": "b"}
        assert read(each, store, f"ev/{key}") == body
        assert read(each, store, f"ev/{key}", Range="bytes=10-19") == body[10:20]
        assert read(each, store, f"ev/{key}", Range="bytes=-7") == body[-7:]
        (listed,) = each.list_objects_v2(Bucket=store, Prefix=f"ev/{key}")["Contents"]
        assert listed["Size"] == len(body)
        hidden = each.list_objects_v2(Bucket=store, Prefix=".s4")
        assert "Contents" not in hidden


def test_only_the_mapped_prefix_uses_it(client: Any, direct: Any, store: str, key: str):
    for name in (f"ev{key}", f"other/ev/{key}"):
        client.put_object(Bucket=store, Key=name, Body=vintages.event(2))
        assert "s4-dict-id" not in metadata(direct, store, name)
        assert read(client, store, name) == vintages.event(2)


@pytest.mark.parametrize("mode", ["sha256", raw.UNSIGNED, raw.SIGNED_CHUNKS])
def test_every_way_of_sending_a_body_uses_it(
    mapped: live.Gateway, direct: Any, store: str, key: str, mode: str
):
    body, target = vintages.event(3), raw.path(store, f"ev/{key}")
    assert raw.exchange(mapped, raw.put(mapped, target, body, mode)).status == 200
    assert metadata(direct, store, f"ev/{key}")["s4-dict-id"] == ID
    assert raw.ask(mapped, "GET", target).body == body


def test_a_body_of_unknown_length_and_one_beyond_the_limit_do_not(
    mapped: live.Gateway, direct: Any, store: str, key: str
):
    body = b"".join(vintages.events(5000))[: MIB + 1]
    known, unknown = raw.path(store, f"ev/{key}.1"), raw.path(store, f"ev/{key}.2")
    requests = {
        known: (body, raw.put(mapped, known, body, "sha256")),
        unknown: (body[:300], raw.put(mapped, unknown, body[:300], "sha256", http_chunked=True)),
    }
    for target, (sent, request) in requests.items():
        assert raw.exchange(mapped, request).status == 200
        assert "s4-dict-id" not in metadata(direct, store, target.removeprefix(f"/{store}/"))
        assert raw.ask(mapped, "GET", target).body == sent


def test_a_form_uses_it(mapped: live.Gateway, direct: Any, store: str, key: str):
    body = vintages.event(4)
    fields = forms.sign(mapped, {"bucket": store, "key": f"ev/{key}"}.items())
    form = forms.encode(fields.items(), body)
    head = {
        "Host": mapped.netloc,
        "Content-Type": f"multipart/form-data; boundary={forms.BOUNDARY}",
        "Content-Length": str(len(form)),
    }
    answer = raw.exchange(mapped, raw.Request("POST", f"/{store}", head, (form,)))
    assert answer.status == 204
    assert metadata(direct, store, f"ev/{key}")["s4-dict-id"] == ID
    assert raw.ask(mapped, "GET", raw.path(store, f"ev/{key}")).body == body


def test_a_multipart_upload_never_uses_one_and_takes_plaintext_of_one(
    client: Any, s3: Any, direct: Any, store: str, key: str
):
    body = vintages.event(5)
    client.put_object(Bucket=store, Key=f"ev/{key}.src", Body=body)
    upload = client.create_multipart_upload(Bucket=store, Key=f"ev/{key}")["UploadId"]
    where = {"Bucket": store, "Key": f"ev/{key}", "UploadId": upload}
    first = client.upload_part(PartNumber=1, Body=body * 20_000, **where)["ETag"]
    copied = client.upload_part_copy(
        PartNumber=2, CopySource={"Bucket": store, "Key": f"ev/{key}.src"}, **where
    )["CopyPartResult"]["ETag"]
    parts = [{"PartNumber": 1, "ETag": first}, {"PartNumber": 2, "ETag": copied}]
    client.complete_multipart_upload(MultipartUpload={"Parts": parts}, **where)
    assert "s4-dict-id" not in metadata(direct, store, f"ev/{key}")
    assert read(s3, store, f"ev/{key}") == body * 20_001
    assert copied.strip('"') == hashlib.md5(body).hexdigest()


def test_a_copy_takes_its_dictionary_along(
    client: Any, s3: Any, direct: Any, store: str, make_bucket: Callable[..., str], key: str
):
    body, elsewhere = vintages.event(6), make_bucket()
    client.put_object(Bucket=store, Key=f"ev/{key}", Body=body)
    for name, directive in (("a", "COPY"), ("b", "REPLACE")):
        s3.copy_object(
            Bucket=elsewhere,
            Key=name,
            CopySource={"Bucket": store, "Key": f"ev/{key}"},
            MetadataDirective=directive,
        )
    assert read(direct, elsewhere, f".s4dict/{ID}") == DATA
    direct.delete_object(Bucket=store, Key=f"ev/{key}")
    for name in ("a", "b"):
        assert metadata(direct, elsewhere, name)["s4-dict-id"] == ID
        assert read(s3, elsewhere, name) == body
    with pytest.raises(ClientError) as caught:
        s3.copy_object(
            Bucket=live.bucket_name(), Key="c", CopySource={"Bucket": elsewhere, "Key": "a"}
        )
    assert caught.value.response["Error"]["Code"] == "NoSuchBucket"


# --- counting


def test_wins_and_losses_are_counted_by_prefix(
    start_gateway: StartGateway, direct: Any, bucket: str
):
    publish(direct, bucket, DATA)
    flags = ("--zstd-dict", f"{bucket}/good/={ID}", "--zstd-dict", f"{bucket}/bad/={ID}")
    with (
        start_gateway(*flags) as gateway,
        contextlib.closing(clients.boto3_client(gateway)) as client,
    ):
        for number in range(30):
            client.put_object(Bucket=bucket, Key=f"good/{number}", Body=vintages.event(number))
        foreign = [corpus.noise(100, seed) for seed in range(20)]
        for number, body in enumerate(foreign):
            client.put_object(Bucket=bucket, Key=f"bad/{number}", Body=body)
        found = metering.settled(gateway)
    good, bad = f'prefix="{bucket}/good/"', f'prefix="{bucket}/bad/"'
    assert found[f's4_dict_put_total{{outcome="win",{good}}}'] == 30
    assert found[f's4_dict_put_total{{outcome="loss",{bad}}}'] == 20
    total = sum(len(vintages.event(number)) for number in range(30))
    assert found[f's4_dict_put_bytes_total{{kind="original",{good}}}'] == total
    assert found[f's4_dict_put_bytes_total{{kind="original",{bad}}}'] == 2000
    small = found[f's4_dict_put_bytes_total{{kind="dict",{good}}}']
    assert 0 < small < found[f's4_dict_put_bytes_total{{kind="plain",{good}}}'] / 2
    assert found[f"s4_dict_win_rate{{{good}}}"] == 1.0
    assert found[f"s4_dict_win_rate{{{bad}}}"] == 0.0


def test_a_gateway_without_dictionaries_has_no_families_about_them_until_it_reads_one(
    start_gateway: StartGateway, client: Any, store: str, key: str
):
    client.put_object(Bucket=store, Key=f"ev/{key}", Body=vintages.event(7))
    with start_gateway() as plain:
        target = raw.path(store, f"plain/{key}")
        assert raw.ask(plain, "PUT", target, None, vintages.event(8)).status == 200
        assert not any(name.startswith("s4_dict") for name in metering.settled(plain))
        for _ in range(3):
            answer = raw.ask(plain, "GET", raw.path(store, f"ev/{key}"))
            assert answer.body == vintages.event(7)
        found = metering.settled(plain)
    assert {name: found[name] for name in found if name.startswith("s4_dict")} == {
        's4_dict_fetch_total{result="ok"}': 1
    }


def test_a_stale_dictionary_is_warned_of_once(
    start_gateway: StartGateway, direct: Any, bucket: str
):
    publish(direct, bucket, DATA)
    with (
        start_gateway("--zstd-dict", f"{bucket}/={ID}") as gateway,
        contextlib.closing(clients.boto3_client(gateway)) as client,
    ):
        for number in range(120):
            client.put_object(Bucket=bucket, Key=f"{number}", Body=corpus.noise(90, number))
        log = gateway.read_log()
    assert log.count("dictionary may be stale; consider retraining (s4 train-dict)") == 1
    assert f"{bucket}/" in log


# --- what cannot be used


def _spoilt() -> dict[str, tuple[bytes, str | None, str]]:
    """Bytes, the id they lie under (their own by default), and what is said about them."""
    return {
        "empty": (b"", ID, "0 bytes"),
        "over-cap": (DATA + bytes(MIB), ID, "bytes"),
        "wrong": (vintages.trained(5), ID, "SHA-256"),
        "cut": (DATA[:-10], ID, "SHA-256"),
        "broken": (DATA[:40], None, "dictionary-invalid"),
        "raw": (b"raw content " * 50, None, "raw content"),
    }


def test_every_dictionary_that_cannot_be_used_is_told_at_boot(
    start_gateway: StartGateway, direct: Any, make_bucket: Callable[..., str], tmp_path: Path
):
    lines, expected = [], []
    for name, (data, dict_id, said) in _spoilt().items():
        bucket = make_bucket()
        lines.append(f'"{bucket}/{name}/" = "{publish(direct, bucket, data, dict_id)}"')
        expected.append((f"{bucket}/{name}/", said))
    lines.append(f'"{bucket}/gone" = "{"0" * 16}"')
    expected.append((f"{bucket}/gone", "does not exist"))
    (tmp_path / "map.toml").write_text("[mappings]\n" + "\n".join(lines))
    with (
        pytest.raises(live.ServerError) as caught,
        start_gateway("--zstd-dict-map", str(tmp_path / "map.toml")),
    ):
        pass
    output = str(caught.value)
    assert "ended with 1" in output
    assert "Traceback" not in output
    for prefix, said in expected:
        assert any(prefix in line and said in line for line in output.splitlines()), prefix


@pytest.mark.parametrize("name", ["gone", "empty", "over-cap", "wrong", "cut"])
def test_an_object_without_its_dictionary_is_an_error_that_names_it(
    start_gateway: StartGateway, s3: Any, direct: Any, bucket: str, name: str
):
    publish(direct, bucket, DATA)
    body = vintages.event(9)
    with start_gateway("--zstd-dict", f"{bucket}/={ID}") as gateway:
        assert raw.ask(gateway, "PUT", raw.path(bucket, "k"), None, body).status == 200
        if name == "gone":
            direct.delete_object(Bucket=bucket, Key=f".s4dict/{ID}")
        else:
            publish(direct, bucket, _spoilt()[name][0], ID)
        assert raw.ask(gateway, "GET", raw.path(bucket, "k")).body == body  # it is loaded here
    with start_gateway() as fresh:
        for headers in ({}, {"Range": "bytes=0-3"}):
            answer = raw.ask(fresh, "GET", raw.path(bucket, "k"), headers)
            assert answer.verdict == (500, "InternalError")
            assert ID in (answer.field("Message") or "")
        assert raw.ask(fresh, "HEAD", raw.path(bucket, "k")).status == 200
        publish(direct, bucket, DATA)
        assert raw.ask(fresh, "GET", raw.path(bucket, "k")).body == body


# --- rotation


def write_map(path: Path, mappings: dict[str, str]) -> None:
    lines = [f'"{prefix}" = "{dict_id}"\n' for prefix, dict_id in mappings.items()]
    path.write_text("[mappings]\n" + "".join(lines))


def reloads(gateway: live.Gateway, result: str) -> float:
    return metering.scrape(gateway).get(f's4_dict_reload_total{{result="{result}"}}', 0)


def hang_up(gateway: live.Gateway, result: str) -> None:
    """SIGHUP, and wait until it ended so."""
    before = reloads(gateway, result)
    os.kill(gateway.pid, signal.SIGHUP)
    metering.until(lambda: reloads(gateway, result) == before + 1)


def test_a_prefix_is_added_while_200_requests_are_under_way(
    start_gateway: StartGateway, direct: Any, bucket: str, tmp_path: Path
):
    new = vintages.trained(1)
    publish(direct, bucket, DATA)
    new_id = publish(direct, bucket, new)
    path = tmp_path / "map.toml"
    write_map(path, {f"{bucket}/old/": ID})
    body = vintages.event(1, vintage=1)
    with contextlib.ExitStack() as stack:
        flags = ("--zstd-dict-map", str(path), "--read-timeout-seconds", "600")
        gateway = stack.enter_context(start_gateway(*flags))
        under_way = []
        for number in range(200):
            prefix = ("new", "old")[number % 2]
            target = raw.path(bucket, f"{prefix}/{number}")
            request = raw.plain(gateway, "PUT", target, None, body)
            connection = stack.enter_context(raw.Connection(gateway))
            connection.send(request.head + body[:10])
            under_way.append(connection)
        metering.until(lambda: metering.scrape(gateway)["s4_in_flight_requests"] == 200)
        write_map(path, {f"{bucket}/old/": ID, f"{bucket}/new/": new_id})
        hang_up(gateway, "ok")
        assert raw.ask(gateway, "PUT", raw.path(bucket, "new/x"), None, body).status == 200
        assert metadata(direct, bucket, "new/x")["s4-dict-id"] == new_id
        for connection in under_way:
            connection.send(body[10:])
        assert {connection.answer().status for connection in under_way} == {200}
        for number in (0, 1, 198, 199):  # they end as they began
            prefix = ("new", "old")[number % 2]
            name = f"{prefix}/{number}"
            assert metadata(direct, bucket, name).get("s4-dict-id") != new_id
            assert raw.ask(gateway, "GET", raw.path(bucket, name)).body == body


@pytest.mark.parametrize(
    "broken",
    [
        "", "[mappings", '[mappings]\n"{bucket}" = "x"\n', '[mappings]\n"{bucket}/ev/" = "{id}"\n',
        '[mappings]\n"{bucket}/more/" = "0000000000000000"\n', "[mappings]\n# {pad}\n",
    ],
    ids=["empty", "cut", "wrong", "twice", "missing", "huge"],
)  # fmt: skip
def test_a_broken_map_changes_nothing(
    start_gateway: StartGateway, direct: Any, bucket: str, tmp_path: Path, broken: str
):
    publish(direct, bucket, DATA)
    path = tmp_path / "map.toml"
    write_map(path, {f"{bucket}/map/": ID})
    flags = ("--zstd-dict", f"{bucket}/ev/={ID}", "--zstd-dict-map", str(path))
    with start_gateway(*flags) as gateway:
        text = broken.replace("{bucket}", bucket).replace("{id}", ID).replace("{pad}", "x" * MIB)
        path.write_text(text)
        hang_up(gateway, "err")
        for prefix in ("ev", "map"):
            target = raw.path(bucket, f"{prefix}/k")
            assert raw.ask(gateway, "PUT", target, None, vintages.event(1)).status == 200
            assert metadata(direct, bucket, f"{prefix}/k")["s4-dict-id"] == ID
        assert "reload-failed" in gateway.read_log()
        write_map(path, {})
        hang_up(gateway, "ok")
        assert raw.ask(gateway, "PUT", target, None, vintages.event(1)).status == 200
        assert "s4-dict-id" not in metadata(direct, bucket, "map/k")


def test_flags_alone_are_not_changed_by_sighup(
    start_gateway: StartGateway, direct: Any, bucket: str
):
    publish(direct, bucket, DATA)
    with start_gateway("--zstd-dict", f"{bucket}/={ID}") as gateway:
        direct.delete_object(Bucket=bucket, Key=f".s4dict/{ID}")
        os.kill(gateway.pid, signal.SIGHUP)
        metering.until(lambda: metering.scrape(gateway).get('s4_reload_total{result="ok"}'))
        assert reloads(gateway, "ok") == 0
        target = raw.path(bucket, "k")
        assert raw.ask(gateway, "PUT", target, None, vintages.event(1)).status == 200
        assert metadata(direct, bucket, "k")["s4-dict-id"] == ID


def test_after_five_rotations_every_generation_is_read_by_a_gateway_without_dictionaries(
    start_gateway: StartGateway, direct: Any, s3: Any, bucket: str, tmp_path: Path
):
    path = tmp_path / "map.toml"
    write_map(path, {})
    with (
        start_gateway("--zstd-dict-map", str(path)) as gateway,
        contextlib.closing(clients.boto3_client(gateway)) as client,
    ):
        for vintage in range(6):
            dict_id = publish(direct, bucket, vintages.trained(vintage))
            write_map(path, {f"{bucket}/ev/": dict_id})
            hang_up(gateway, "ok")
            for number in range(5):
                body = vintages.event(number, vintage)
                client.put_object(Bucket=bucket, Key=f"ev/{vintage}/{number}", Body=body)
                stored = metadata(direct, bucket, f"ev/{vintage}/{number}")
                assert stored["s4-dict-id"] == dict_id
        for vintage in range(6):
            for number in range(5):
                key = f"ev/{vintage}/{number}"
                assert read(client, bucket, key) == vintages.event(number, vintage)
    with start_gateway() as plain, contextlib.closing(clients.boto3_client(plain)) as fresh:
        for vintage in range(6):
            for number in range(5):
                key = f"ev/{vintage}/{number}"
                assert read(fresh, bucket, key) == vintages.event(number, vintage)
        found = metering.settled(plain)
    assert found['s4_dict_fetch_total{result="ok"}'] == 6
