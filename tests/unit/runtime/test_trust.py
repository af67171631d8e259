"""What TLS clients trust: shared, read again when a file changes, and no more of the system's than is needed."""

import os
import shutil
import ssl
import subprocess
from pathlib import Path

import pytest

from runtime import trust
from runtime.trust import client_context
from tests.support.certificates import certificate


def test_one_context_serves_all_that_say_the_same_until_a_file_changes(tmp_path: Path) -> None:
    own = certificate(tmp_path)
    ca = str(own.certificate)
    first = client_context(ca_file=ca)
    assert client_context(ca_file=ca) is first
    assert first.verify_mode is ssl.CERT_REQUIRED
    assert first.check_hostname
    assert len(first.get_ca_certs()) == 1
    assert client_context(ca_file=ca, certificate_file=ca, key_file=str(own.key)) is not first
    os.utime(own.certificate, ns=(1, 1))
    assert client_context(ca_file=ca) is not first
    with pytest.raises(FileNotFoundError):
        client_context(ca_file=f"{ca}.absent")


def test_the_systems_certificates_are_read_again_when_they_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, folder = tmp_path / "all.pem", tmp_path / "certs"
    shutil.copy(certificate(tmp_path).certificate, file)
    folder.mkdir()
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    monkeypatch.setenv("SSL_CERT_DIR", str(folder))
    first = client_context()
    assert client_context() is first
    assert len(first.get_ca_certs()) == 1
    file.write_text(file.read_text() + certificate(folder).certificate.read_text())
    os.utime(file, ns=(1, 1))
    second = client_context()
    assert len(second.get_ca_certs()) == 2
    os.utime(folder, ns=(1, 1))
    assert client_context() is not second
    monkeypatch.setenv("SSL_CERT_FILE", str(shutil.copy(file, tmp_path / "other.pem")))
    third = client_context()
    assert client_context() is third is not second


def test_contexts_are_bounded(tmp_path: Path) -> None:
    own = certificate(tmp_path)
    for n in range(trust.CONTEXTS_MAX + 5):
        client_context(ca_file=str(shutil.copy(own.certificate, tmp_path / f"{n}.pem")))
    assert len(trust._contexts) <= trust.CONTEXTS_MAX


def test_the_systems_folder_is_used_where_it_has_all_that_the_file_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = certificate(tmp_path)
    file, folder = tmp_path / "all.pem", tmp_path / "certs"
    folder.mkdir()
    shutil.copy(own.certificate, file)
    paths = ssl.get_default_verify_paths()._replace(cafile=str(file), capath=str(folder))
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: paths)
    for name in trust.ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    assert trust._of_system() == {}, "nothing in it is found by hash"
    asked = ["openssl", "x509", "-hash", "-noout", "-in", str(own.certificate)]
    by_hash = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    shutil.copy(own.certificate, folder / f"{by_hash}.0")
    assert trust._of_system() == {"capath": str(folder)}
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    assert trust._of_system() == {}, "somebody has said what is to be trusted"
