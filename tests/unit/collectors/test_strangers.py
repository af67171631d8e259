"""What no collector reads is called by its name, with what would read it."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from collectors.strangers import stranger
from telemetry.snmp import ber, message, usm
from telemetry.snmp.ber import Tag
from tests.support.snmp_messages import LINK_DOWN, trap_v2
from tocsin.cli.decode import decode


def asked(tag: int = Tag.GET) -> bytes:
    bindings = message.write_varbind(message.SYS_UP_TIME, ber.element(Tag.NULL))
    return message.write_message(1, b"public", message.write_pdu(tag, 1, bindings))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        pytest.param(asked(), ("SNMP polling (get)", "snmp-poll"), id="snmp-get"),
        pytest.param(asked(Tag.GET_BULK), ("SNMP polling (get-bulk)",), id="snmp-bulk"),
        pytest.param(trap_v2(LINK_DOWN), ("--protocol snmp-trap",), id="trap-elsewhere"),
        pytest.param(
            usm.write_secured(usm.User("u"), (b"\x80\0\0\0\1", 1, 1), 1,
                              usm.write_scoped(b"", b"", b"\xa0\0")),
            ("SNMPv3", "--protocol snmp-trap"), id="v3",
        ),
        pytest.param(b"host,load\nr1,5\nr2,6\n", ("CSV", "tocsin ingest"), id="csv"),
        pytest.param(b"host;load\nr1;5\nr2;6\n", ("CSV",), id="semicolons"),
        pytest.param(b'{"a": 1}\n{"a": 2}\n', ("JSON", "tocsin ingest"), id="json-lines"),
        pytest.param(b"PAR1....", ("Parquet", "tocsin ingest"), id="parquet"),
        pytest.param(b"ARROW1..", ("Arrow", "tocsin ingest"), id="arrow"),
        pytest.param(b"\x1f\x8b\x08....", ("gzip", "unpack"), id="gzip"),
        pytest.param(b"<?xml version='1.0'?><a/>", ("no 3GPP PM file",), id="xml"),
        pytest.param(b"\0\7" + bytes(30), ("NetFlow version 7",), id="netflow7"),
        pytest.param(b"\0\0\0\4" + bytes(28), ("sFlow version 4",), id="sflow4"),
        pytest.param(b"kernel: link is down\n", ("--protocol syslog",), id="text"),
        pytest.param(b"", ("empty",), id="empty"),
    ],
)  # fmt: skip
def test_it_is_called_by_its_name(data: bytes, words: tuple[str, ...]) -> None:
    said = stranger(data)
    assert all(word in said for word in words), said


@pytest.mark.parametrize("data", [b"\xff\xfe\xfd", bytes(40), b"\x30\x03\x02\x01"])
def test_what_nobody_knows_has_no_name(data: bytes) -> None:
    assert stranger(data) == ""


@pytest.mark.parametrize(("data", "word"), [(asked(), "snmp-poll"), (b"a,b\n1,2\n3,4\n", "CSV")])
def test_decode_says_it(tmp_path: Path, data: bytes, word: str) -> None:
    (tmp_path / "file").write_bytes(data)
    done = CliRunner().invoke(decode, [str(tmp_path / "file")])
    assert done.exit_code == 3
    assert word in done.stderr
    assert "no flow protocol" not in done.stderr
