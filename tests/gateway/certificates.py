"""Certificates of a throw-away authority, written as the files a gateway reads."""

import ssl
from dataclasses import dataclass, field
from pathlib import Path

import trustme


@dataclass(frozen=True)
class Authority:
    """Issues certificates into one pair of files, as a renewal tool would."""

    folder: Path
    ca: trustme.CA = field(default_factory=trustme.CA)

    @property
    def cert(self) -> Path:
        return self.folder / "cert.pem"

    @property
    def key(self) -> Path:
        return self.folder / "key.pem"

    def issue(self, name: str = "renewed.example") -> None:
        """Write a new certificate for 127.0.0.1 and `name`, and its key."""
        issued = self.ca.issue_cert("127.0.0.1", name)
        self.cert.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        self.key.write_bytes(issued.private_key_pem.bytes())

    def trust(self) -> ssl.SSLContext:
        """What a client of these certificates uses."""
        context = ssl.create_default_context()
        self.ca.configure_trust(context)
        return context


def served_names(certificate: object) -> set[str]:
    """The names in what `getpeercert()` gives."""
    assert isinstance(certificate, dict)
    return {value for _, value in certificate["subjectAltName"]}
