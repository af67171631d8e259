"""Throw-away certificates for loopback, made by openssl."""

import subprocess
from dataclasses import dataclass
from pathlib import Path


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
