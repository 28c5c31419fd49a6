"""A throw-away certificate authority: TLS for servers that live as long as a test does.

Whoever holds a certificate of the authority is let in, as Dask's TLS works: one certificate serves
scheduler, workers and clients alike.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from distributed.security import Security

LIFETIME = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Certificates:
    """The files of one authority and the one certificate it has signed.

    Attributes
    ----------
    folder : Path
        Holds ``ca.pem``, ``cert.pem`` and ``key.pem``, the last for its owner alone.
    """

    folder: Path

    @property
    def ca(self) -> Path:
        """Whom to trust."""
        return self.folder / "ca.pem"

    @property
    def cert(self) -> Path:
        """What to show."""
        return self.folder / "cert.pem"

    @property
    def key(self) -> Path:
        """What proves that it is ours."""
        return self.folder / "key.pem"

    @property
    def security(self) -> Security:
        """What a Dask client takes as ``security``."""
        return Security(
            tls_ca_file=str(self.ca),
            tls_client_cert=str(self.cert),
            tls_client_key=str(self.key),
            require_encryption=True,
        )

    @property
    def environment(self) -> dict[str, str]:
        """Lets Dask's processes speak TLS alone, whatever their role, and their pages HTTPS."""
        section, pages = "DASK_DISTRIBUTED__COMM__", "DASK_DISTRIBUTED__SCHEDULER__DASHBOARD__TLS__"
        files = {
            f"{section}TLS__{role}__{what}": str(file)
            for role in ("SCHEDULER", "WORKER", "CLIENT")
            for what, file in (("CERT", self.cert), ("KEY", self.key))
        }
        # Workers read these too; a client reads in them which scheme the pages have.
        files |= {f"{pages}CERT": str(self.cert), f"{pages}KEY": str(self.key)}
        required = {f"{section}REQUIRE_ENCRYPTION": "true"}
        return files | required | {f"{section}TLS__CA_FILE": str(self.ca)}


def make_certificates(folder: Path, hosts: Sequence[str]) -> Certificates:
    """Make an authority, let it sign one certificate, and forget its key.

    Parameters
    ----------
    folder : Path
        Made if absent.
    hosts : sequence of str
        Names and IP addresses that the certificate is for.
    """
    folder.mkdir(parents=True, exist_ok=True)
    made = Certificates(folder)
    authority, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    issuer = _name("pamola_dwriter throw-away authority")
    own = x509.BasicConstraints(ca=True, path_length=0)
    root = _builder(issuer, issuer, authority).add_extension(own, critical=True)
    leaf = (
        _builder(_name(hosts[0]), issuer, key)
        .add_extension(x509.SubjectAlternativeName([_host(host) for host in hosts]), critical=False)
        .add_extension(
            x509.ExtendedKeyUsage(
                [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
            ),
            critical=False,
        )
    )
    for file, builder in ((made.ca, root), (made.cert, leaf)):
        file.write_bytes(builder.sign(authority, SHA256()).public_bytes(Encoding.PEM))
    made.key.touch(mode=0o600)
    made.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return made


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + LIFETIME)
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
