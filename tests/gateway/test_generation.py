import dataclasses
import datetime
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme

from s4gateway.backend.memory import MemoryBackend
from s4gateway.gateway import generation
from s4gateway.gateway.client_keys import ClientKeys
from s4gateway.gateway.config import GatewayConfig
from s4gateway.gateway.generation import Certificate, Generation, GenerationError
from s4gateway.objects import dictionaries
from s4gateway.objects.dictionary_store import Loader
from tests import vintages
from tests.gateway.certificates import Authority


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    made = Authority(tmp_path)
    made.issue()
    return made


async def build(
    config: GatewayConfig,
    own: ClientKeys | None = None,
    store: MemoryBackend | None = None,
    previous: Generation | None = None,
) -> Generation:
    loader = Loader(store or MemoryBackend())
    return await generation.build(config, own or ClientKeys(), loader, previous)


async def test_a_generation_holds_keys_and_certificate(tmp_path: Path, authority: Authority):
    (tmp_path / "keys.toml").write_text('[keys.AKID]\nsecret = "correct horse"\n')
    config = GatewayConfig(
        credentials=tmp_path / "keys.toml", tls_cert=authority.cert, tls_key=authority.key
    )
    built = await build(config)
    assert built.keys.secret_of("AKID") == "correct horse"
    assert built.certificate is not None
    assert built.certificate.expires > datetime.datetime.now(datetime.UTC)


async def test_without_files_the_own_pair_is_the_key():
    own = ClientKeys()
    built = await build(GatewayConfig(), own)
    assert built.keys is own
    assert built.certificate is None


async def test_problems_of_both_files_are_reported_together(tmp_path: Path):
    (tmp_path / "keys.toml").write_text('[keys.AKID]\nsecret = "x"\ncolour = 1\n')
    config = GatewayConfig(
        credentials=tmp_path / "keys.toml",
        tls_cert=tmp_path / "none.pem",
        tls_key=tmp_path / "none.key",
    )
    with pytest.raises(GenerationError) as caught:
        await build(config)
    assert len(caught.value.problems) == 4


# --- dictionaries

ONE, TWO = vintages.trained(1), vintages.trained(2)
ID_1, ID_2 = vintages.id_of(ONE), vintages.id_of(TWO)


@pytest.fixture
async def store() -> MemoryBackend:
    memory = MemoryBackend.with_buckets("logs")
    await dictionaries.publish(memory, "logs", ONE)
    await dictionaries.publish(memory, "logs", TWO)
    return memory


def mapped(folder: Path, text: str, *flags: str) -> GatewayConfig:
    (folder / "map.toml").write_text(text)
    return GatewayConfig(zstd_dict=flags, zstd_dict_map=folder / "map.toml")


async def test_flags_and_map_make_one_generation(tmp_path: Path, store: MemoryBackend):
    config = mapped(tmp_path, f'[mappings]\n"logs/b" = "{ID_2}"\n', f"logs/a={ID_1}")
    built = await build(config, store=store)
    assert built.dictionaries.ids == {"logs/a": ID_1, "logs/b": ID_2}
    choice = built.dictionaries.choose("logs", "b/1", 100)
    assert choice is not None
    assert choice.codec.data == TWO


async def test_an_empty_map_is_a_generation_without_dictionaries(
    tmp_path: Path, store: MemoryBackend
):
    built = await build(mapped(tmp_path, "[mappings]\n"), store=store)
    assert len(built.dictionaries) == 0


async def test_the_next_generation_keeps_what_the_one_before_has(
    tmp_path: Path, store: MemoryBackend
):
    config = mapped(tmp_path, "[mappings]\n", f"logs/a={ID_1}")
    first = await build(config, store=store)
    del store.buckets["logs"][f".s4dict/{ID_1}"]
    mapped(tmp_path, f'[mappings]\n"logs/b" = "{ID_2}"\n')
    second = await build(config, store=store, previous=first)
    assert second.dictionaries.ids == {"logs/a": ID_1, "logs/b": ID_2}
    name = ("logs", ID_1)
    assert second.dictionaries.get(name) is first.dictionaries.get(name) is not None
    assert first.dictionaries.ids == {"logs/a": ID_1}


async def test_problems_of_files_and_dictionaries_are_reported_together(
    tmp_path: Path, store: MemoryBackend
):
    (tmp_path / "keys.toml").write_text('[keys.AKID]\nsecret = "x"\ncolour = 1\n')
    text = f'[mappings]\n"logs/b" = "{"0" * 16}"\n"none/b" = "{ID_1}"\n'
    config = dataclasses.replace(mapped(tmp_path, text), credentials=tmp_path / "keys.toml")
    with pytest.raises(GenerationError) as caught:
        await build(config, store=store)
    said = "\n".join(caught.value.problems)
    assert len(caught.value.problems) == 4
    for part in ("keys.toml", "0" * 16, "none/b"):
        assert part in said


@pytest.mark.parametrize(
    "text", ["", "[mappings]\n'logs' = 'x'\n", f"[mappings]\n'logs/a' = '{ID_1}'\n"]
)
async def test_a_map_that_cannot_be_used_is_no_generation(
    tmp_path: Path, store: MemoryBackend, text: str
):
    config = mapped(tmp_path, text, f"logs/a={ID_1}")
    with pytest.raises(GenerationError) as caught:
        await build(config, store=store)
    assert len(caught.value.problems) == 1


# --- certificates


def _foreign_key(authority: Authority) -> None:
    authority.key.write_bytes(trustme.CA().issue_cert("x.example").private_key_pem.bytes())


def _no_pem(authority: Authority) -> None:
    authority.cert.write_bytes(b"no certificate")


def _no_key(authority: Authority) -> None:
    authority.key.write_bytes(b"")


def _expired(authority: Authority) -> None:
    past = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    issued = authority.ca.issue_cert("127.0.0.1", not_after=past)
    authority.cert.write_bytes(issued.cert_chain_pems[0].bytes())
    authority.key.write_bytes(issued.private_key_pem.bytes())


def _encrypted(authority: Authority) -> None:
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415

    key = serialization.load_pem_private_key(authority.key.read_bytes(), None)
    authority.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"passphrase"),
        )
    )


@pytest.mark.parametrize("spoil", [_foreign_key, _no_pem, _no_key, _expired, _encrypted])
def test_a_certificate_that_cannot_be_served_is_refused(
    authority: Authority, spoil: Callable[[Authority], None]
):
    spoil(authority)
    with pytest.raises(GenerationError) as caught:
        Certificate.load(authority.cert, authority.key)
    (problem,) = caught.value.problems
    assert str(authority.cert) in problem
    assert "\n" not in problem


def test_the_served_context_wants_tls_1_2_and_no_repr_shows_the_key(authority: Authority):
    certificate = Certificate.load(authority.cert, authority.key)
    context = generation.server_context(certificate)
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert "PRIVATE" not in repr(certificate)
