"""What a datagram or file is that no collector reads, in words, and what would read it; for people only."""

import csv

from telemetry.errors import DecodeError
from telemetry.snmp.ber import Tag
from telemetry.snmp.message import NOTIFICATIONS, read_envelope, read_pdu
from telemetry.snmp.usm import read_secured

_INGEST = "`tocsin ingest` reads it with a mapping (docs/sources.md)"
_MAGIC = (
    (b"PAR1", f"a Parquet file: {_INGEST}"),
    (b"ARROW1", f"an Arrow file: {_INGEST}"),
    (b"\x1f\x8b", "packed with gzip: unpack it"),
    (b"BZh", "packed with bzip2: unpack it"),
    (b"\xfd7zXZ", "packed with xz: unpack it"),
    (b"(\xb5/\xfd", "packed with zstd: unpack it"),
    (b"<?xml", "XML that is no 3GPP PM file"),
)
_OLD_NETFLOW = {1: "NetFlow version 1", 7: "NetFlow version 7", 8: "NetFlow version 8"}


def stranger(data: bytes) -> str:
    """Return what data is, "" where nobody knows.

    >>> stranger(b"host,load\\nr1,5\\nr2,6\\n")
    'columns of text (CSV): `tocsin ingest` reads it with a mapping (docs/sources.md)'
    """
    if not data:
        return "nothing: it is empty"
    for magic, words in _MAGIC:
        if data.startswith(magic):
            return words
    return _snmp(data) or _old_flows(data) or _text(data[:4096])


def _snmp(data: bytes) -> str:
    try:
        envelope = read_envelope(data)
        tag = read_pdu(data, envelope.start, envelope.stop).tag
    except DecodeError:
        try:
            read_secured(data)
        except DecodeError:
            return ""
        return "SNMPv3 messages: traps and informs among them are read with --protocol snmp-trap"
    if tag in NOTIFICATIONS:
        return "SNMP traps at a port that is not theirs: --protocol snmp-trap reads them"
    name = Tag(tag).name.lower().replace("_", "-")
    return (
        f"SNMP polling ({name}): a source of kind snmp-poll asks devices itself; captured questions "
        f"and answers are not read"
    )


def _old_flows(data: bytes) -> str:
    version = int.from_bytes(data[:2], "big")
    if version in _OLD_NETFLOW and len(data) >= 24:
        return f"{_OLD_NETFLOW[version]}: versions 5, 9 and IPFIX are read"
    number = int.from_bytes(data[:4], "big")
    if number in (2, 4) and len(data) >= 28 and data[4:7] == b"\0\0\0":
        return f"sFlow version {number}: version 5 is read"
    return ""


def _text(head: bytes) -> str:
    try:
        text = head.decode("utf-8").strip()
    except UnicodeDecodeError:
        return ""
    if text[:1] in ("{", "["):
        return (
            f"JSON: {_INGEST}; of VES, Alertmanager, Netcool, Spectrum and TMF642 with --protocol"
        )
    lines = text.splitlines()[:5]
    if len(lines) > 1:
        for delimiter in ",;\t|":
            widths = {len(row) for row in csv.reader(lines[:-1] or lines, delimiter=delimiter)}
            if len(widths) == 1 and widths.pop() > 1:
                return f"columns of text (CSV): {_INGEST}"
    if all(ch.isprintable() or ch in "\r\n\t" for ch in text):
        return "text: log lines without heads are read with --protocol syslog"
    return ""
