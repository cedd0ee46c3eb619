"""Everything a SIGHUP replaces, as one value: clients' keys, TLS certificate, dictionaries.

Rule: a generation is built and checked as a whole before anyone sees it, and a request reads the
holder once, at its start, so no request ever meets half of the old and half of the new. Certificate
and key are read once and every later step uses those bytes: renewal tools replace the two files one
after the other, and what was checked must be what is served. Files come first, in a thread; then
the store is asked for the dictionaries that the generation before did not have. What is wrong in
either step is told together.
"""

import asyncio
import contextlib
import os
import ssl
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cryptography import x509

from s4gateway.gateway.client_keys import ClientKeys, ClientKeysError
from s4gateway.gateway.config import GatewayConfig
from s4gateway.objects import dict_map, dictionary_store
from s4gateway.objects.dict_map import DictMap, DictMapError
from s4gateway.objects.dictionary_store import Dictionaries, Loader

_PEM_LIMIT: Final = 4 * 1024 * 1024  # bytes of a certificate or key file


class GenerationError(Exception):
    """The files do not make a generation; `problems` has one line for each reason."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate chain and its private key as PEM, known to fit together."""

    chain: bytes = field(repr=False)
    key: bytes = field(repr=False)
    expires: datetime

    @classmethod
    def load(cls, cert: Path, key: Path) -> "Certificate":
        """Read and check both files; raises GenerationError."""
        problems = []
        contents = []
        for path in (cert, key):
            try:
                with path.open("rb") as file:
                    contents.append(file.read(_PEM_LIMIT))
            except OSError as error:
                problems.append(f"{path}: {error.strerror}")
        if problems:
            raise GenerationError(tuple(problems))
        chain, private = contents
        try:
            leaf = x509.load_pem_x509_certificates(chain)[0]
            certificate = cls(chain, private, leaf.not_valid_after_utc)
            certificate.install(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
        except ValueError as error:
            raise GenerationError((f"{cert}: no certificate in PEM form",)) from error
        except ssl.SSLError as error:
            reason = error.reason or "not usable"
            problem = f"{cert}, {key}: {reason.replace('_', ' ').lower()}"
            raise GenerationError((problem,)) from error
        if certificate.expires <= datetime.now(UTC):
            raise GenerationError((f"{cert}: expired on {certificate.expires:%Y-%m-%d %H:%M} UTC",))
        return certificate

    def install(self, context: ssl.SSLContext) -> None:
        """Serve this certificate from the next handshake of `context` on."""
        with _as_file(self.chain) as chain, _as_file(self.key) as key:
            context.load_cert_chain(chain, key, password=lambda: b"")  # never ask at a terminal


@contextlib.contextmanager
def _as_file(content: bytes) -> Iterator[str]:
    """A path OpenSSL can read `content` from; in memory where the system has such files."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("pem")
        try:
            os.write(descriptor, content)
            yield f"/proc/self/fd/{descriptor}"
        finally:
            os.close(descriptor)
    else:
        with tempfile.NamedTemporaryFile(prefix="s4-") as file:
            file.write(content)
            file.flush()
            yield file.name


@dataclass(frozen=True, slots=True)
class Generation:
    """What one request sees of the reloadable configuration."""

    keys: ClientKeys
    certificate: Certificate | None = None
    dictionaries: Dictionaries = dictionary_store.NONE


class GenerationHolder:
    """Where the present generation is read; a swap is one assignment."""

    __slots__ = ("current",)

    def __init__(self, current: Generation) -> None:
        self.current = current


async def build(
    config: GatewayConfig, own_pair: ClientKeys, loader: Loader, previous: Generation | None = None
) -> Generation:
    """Read and check everything reloadable; raises GenerationError with all problems.

    `own_pair` are the keys clients use when no credentials file is configured. Dictionaries that
    `previous` has are taken over.
    """
    files = await asyncio.to_thread(_read, config, own_pair)
    problems = files.problems
    loaded = dictionary_store.NONE
    try:
        known = dictionary_store.NONE if previous is None else previous.dictionaries
        loaded = await loader.load(files.mappings, known)
    except DictMapError as error:
        problems.extend(error.problems)
    if problems:
        raise GenerationError(tuple(problems))
    return Generation(files.keys, files.certificate, loaded)


@dataclass(frozen=True, slots=True)
class _Files:
    """What the files say, and all that is wrong with them."""

    keys: ClientKeys
    certificate: Certificate | None
    mappings: DictMap
    problems: list[str]


def _read(config: GatewayConfig, own_pair: ClientKeys) -> _Files:
    problems: list[str] = []
    keys, certificate, mappings = own_pair, None, dict_map.EMPTY
    if config.credentials is not None:
        try:
            keys = ClientKeys.load(config.credentials)
        except ClientKeysError as error:
            problems.extend(error.problems)
    if config.tls_cert is not None and config.tls_key is not None:
        try:
            certificate = Certificate.load(config.tls_cert, config.tls_key)
        except GenerationError as error:
            problems.extend(error.problems)
    try:
        mappings = _mappings(config)
    except DictMapError as error:
        problems.extend(error.problems)
    return _Files(keys, certificate, mappings, problems)


def _mappings(config: GatewayConfig) -> DictMap:
    flags = dict_map.parse_flags(config.zstd_dict)
    if config.zstd_dict_map is None:
        return flags
    return dict_map.merge(flags, dict_map.load(config.zstd_dict_map))


def server_context(certificate: Certificate) -> ssl.SSLContext:
    """Return a context for the listening side: TLS 1.2 or newer, HTTP/1.1."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.set_alpn_protocols(["http/1.1"])
    certificate.install(context)
    return context
