import datetime
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme

from s4gateway.gateway import generation
from s4gateway.gateway.client_keys import ClientKeys
from s4gateway.gateway.config import GatewayConfig
from s4gateway.gateway.generation import Certificate, GenerationError
from tests.gateway.certificates import Authority


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    made = Authority(tmp_path)
    made.issue()
    return made


def test_a_generation_holds_keys_and_certificate(tmp_path: Path, authority: Authority):
    (tmp_path / "keys.toml").write_text('[keys.AKID]\nsecret = "correct horse"\n')
    config = GatewayConfig(
        credentials=tmp_path / "keys.toml", tls_cert=authority.cert, tls_key=authority.key
    )
    built = generation.build(config, ClientKeys())
    assert built.keys.secret_of("AKID") == "correct horse"
    assert built.certificate is not None
    assert built.certificate.expires > datetime.datetime.now(datetime.UTC)


def test_without_files_the_own_pair_is_the_key():
    own = ClientKeys()
    built = generation.build(GatewayConfig(), own)
    assert built.keys is own
    assert built.certificate is None


def test_problems_of_both_files_are_reported_together(tmp_path: Path):
    (tmp_path / "keys.toml").write_text('[keys.AKID]\nsecret = "x"\ncolour = 1\n')
    config = GatewayConfig(
        credentials=tmp_path / "keys.toml",
        tls_cert=tmp_path / "none.pem",
        tls_key=tmp_path / "none.key",
    )
    with pytest.raises(GenerationError) as caught:
        generation.build(config, ClientKeys())
    assert len(caught.value.problems) == 4


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
