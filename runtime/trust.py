"""What our TLS clients trust and show: one context for all that say the same, made when first needed."""

import os
import re
import ssl
from pathlib import Path
from typing import Any

CONTEXTS_MAX = 32  # other files, or files that have changed
BY_HASH = re.compile(r"[0-9a-f]{8}\.\d+")  # how OpenSSL looks a certificate up in a folder
ENVIRONMENT = ("SSL_CERT_FILE", "SSL_CERT_DIR")

_contexts: dict[tuple[object, ...], ssl.SSLContext] = {}


def client_context(
    *, ca_file: str = "", certificate_file: str = "", key_file: str = ""
) -> ssl.SSLContext:
    """Return what trusts the certificates of `ca_file`, "" = the system's, and shows ours where there is one.

    What has changed is read again, the system's too. Raises OSError or ssl.SSLError where one cannot be used.
    """
    system = ssl.get_default_verify_paths()
    trusts = (ca_file,) if ca_file else (system.cafile, system.capath)
    files = (*trusts, certificate_file, key_file)
    key = tuple((file, Path(file).stat().st_mtime_ns) if file else "" for file in files)
    made = _contexts.get(key)
    if made is None:
        trusted: dict[str, Any] = {"cafile": ca_file} if ca_file else _of_system()
        made = ssl.create_default_context(**trusted)
        if certificate_file:
            made.load_cert_chain(certificate_file, key_file or None)
        if len(_contexts) >= CONTEXTS_MAX:
            _contexts.clear()
        _contexts[key] = made
    return made


def _of_system() -> dict[str, Any]:
    """Return the system's folder of certificates, where that has as many as its file.

    Of the folder those are read that a peer needs; the file is read whole, which takes .8 MB.
    """
    paths = ssl.get_default_verify_paths()
    if not (paths.cafile and paths.capath) or any(name in os.environ for name in ENVIRONMENT):
        return {}
    try:
        certificates = Path(paths.cafile).read_bytes().count(b"BEGIN CERTIFICATE")
        by_hash = sum(1 for path in Path(paths.capath).iterdir() if BY_HASH.fullmatch(path.name))
    except OSError:
        return {}
    return {"capath": paths.capath} if by_hash >= certificates > 0 else {}
