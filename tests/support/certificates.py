"""Throw-away certificates for loopback: a small authority by openssl, self-signed ones in Python."""

import datetime
import ipaddress
import ssl
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass(frozen=True)
class Certificates:
    """An authority, a server's certificate for 127.0.0.1 and localhost, and a client's."""

    authority: Path
    server: Path
    server_key: Path
    client: Path
    client_key: Path


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


def make_certificates(folder: Path) -> Certificates:
    """Make all of them in `folder`; needs the program openssl."""
    key, authority = folder / "authority.key", folder / "authority.pem"
    new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    _openssl("req", "-x509", *new_key, "-keyout", key, "-out", authority, "-days", "2",
             "-subj", "/CN=test authority", "-addext", "keyUsage=critical,keyCertSign")  # fmt: skip
    names = folder / "names"
    names.write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    for name in ("server", "client"):
        _openssl("req", *new_key, "-keyout", folder / f"{name}.key", "-out", folder / f"{name}.csr",
                 "-subj", f"/CN={name}")  # fmt: skip
        _openssl("x509", "-req", "-in", folder / f"{name}.csr", "-CA", authority, "-CAkey", key,
                 "-CAcreateserial", "-days", "2", "-extfile", names,
                 "-out", folder / f"{name}.pem")  # fmt: skip
    made = [folder / f"{name}.{end}" for name in ("server", "client") for end in ("pem", "key")]
    return Certificates(authority, *made)


@dataclass(frozen=True)
class Certificate:
    """Paths of a certificate and its key; `ca` is what trusts it."""

    certificate: Path
    key: Path

    @property
    def ca(self) -> str:
        return str(self.certificate)

    def server(self) -> ssl.SSLContext:
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        made.load_cert_chain(self.certificate, self.key)
        return made


@cache
def certificate(folder: Path, *, expired: bool = False) -> Certificate:
    """Make a self-signed certificate for 127.0.0.1 and localhost."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    day = datetime.timedelta(days=1)
    first, last = (now - 30 * day, now - day) if expired else (now - day, now + 30 * day)
    names = [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("localhost")]
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(first)
        .not_valid_after(last)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    stem = "expired" if expired else "good"
    paths = Certificate(folder / f"{stem}.pem", folder / f"{stem}.key")
    paths.certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    paths.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return paths
