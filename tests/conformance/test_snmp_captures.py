"""Every SNMP capture against what tshark made of it: envelopes, PDUs, bindings, and what is refused."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from collectors.capture.reader import read_capture
from collectors.capture.report import CaptureReport
from telemetry.errors import DecodeError
from telemetry.snmp import message, usm
from telemetry.snmp.ber import Tag
from tests.support.decoding import decoded
from tests.unit.collectors.test_snmp_ber import digests, plain_reason

CAPTURES = [
    "zeek/snmpv1_trap.pcap",
    "suricata-verify/firewall/ruletype-firewall-54-snmp-v1-trap/public-wiresharkwiki-c06-snmpv1-trap-app-r1-1-12.pcap",
    "zeek/snmpv2_get.pcap",
    "zeek/snmpv1_get.pcap",
    "zeek/snmpv2_get_next.pcap",
    "zeek/snmpv1_get_short.pcap",
    "zeek/snmpv1_set.pcap",
    "zeek/snmpwalk-short.pcap",
    "zeek/leak_test.pcapng",
    "ndpi/snmp.pcap",
    "suricata-verify/snmp-v3-unauth/snmp-v3-get-bulk-unauth.pcap",
    "suricata-verify/snmp-v3-encrypted/SNMPv3.pcap",
]
BROKEN = [
    "tcpdump/snmp-heapoverflow-1.pcap",
    "tcpdump/snmp-heapoverflow-2.pcap",
    "tcpdump/ip-snmp-leftshift-unsigned.pcap",
]


def payloads(path: Path) -> list[bytes]:
    """Return the SNMP messages of a capture, in its order."""
    report = CaptureReport()
    return [
        one.payload
        for one in read_capture(path, report)
        if {161, 162} & {one.source_port, one.destination_port}
    ]


def golden(shared: Path, name: str) -> list[dict[str, Any]]:
    path = (shared / "captures/derived/snmp" / name).with_suffix(".tshark.json.gz")
    entries = json.loads(gzip.decompress(path.read_bytes()))
    found = [entry.get("_source", {}).get("layers", entry).get("snmp") for entry in entries]
    return [one[0] if isinstance(one, list) else one for one in found if one]


def bindings_of(tree: Any) -> list[tuple[str, str, str]]:
    """Return (OID, kind of value, value) of every binding that tshark shows, wherever it lies."""
    found: list[tuple[str, str, str]] = []
    if isinstance(tree, dict):
        if "snmp.name" in tree:
            kinds = [key for key in tree if key.startswith("snmp.value.") or key in EXCEPTIONS]
            found.append(
                (
                    tree["snmp.name"],
                    kinds[0] if kinds else "",
                    str(tree.get(kinds[0], "")) if kinds else "",
                )
            )
        for value in tree.values():
            found += bindings_of(value)
    return found


# A PROTOS test case: the PDU's tag in two to five octets where BER allows one. tshark reads the first
# of those all the same; we read none.
LONG_TAG = b"\x06public\xbf"
EXCEPTIONS = ("snmp.noSuchObject", "snmp.noSuchInstance", "snmp.endOfMibView")


def ours(one: message.Varbind, kind: str) -> str:
    """Return a value as tshark writes it."""
    value = one.value
    if value is None:
        return ""
    if isinstance(value, bytes):
        return value.hex(":")
    if kind == "snmp.value.timeticks" or isinstance(value, int):
        return str(value)
    return str(value)


@pytest.mark.parametrize("name", CAPTURES)
def test_messages_are_read_as_tshark_reads_them(shared: Path, name: str) -> None:
    messages = payloads(shared / "captures/snmp" / name)
    expected = golden(shared, name)
    assert len(messages) == len(expected) > 0
    bindings = 0
    for data, want in zip(messages, expected, strict=True):
        if "snmp.msgVersion" in want:
            bindings += check_v3(data, want)
            continue
        envelope = message.read_envelope(data)
        if LONG_TAG in data[:30]:
            assert plain_reason(data) in ("bad_type", "truncated")
            continue
        pdu = message.read_pdu(data, envelope.start, envelope.stop)
        assert str(envelope.version) == want["snmp.version"]
        assert envelope.community.decode() == want["snmp.community"]
        assert pdu.tag - Tag.GET == int(want["snmp.data"])
        (element,) = want["snmp.data_tree"].values()
        said = pdu.varbinds
        if pdu.tag == Tag.TRAP_V1:
            assert pdu.enterprise == element["snmp.enterprise"]
            assert (pdu.agent_address or "0.0.0.0") == element["snmp.agent_addr"]
            said = pdu.varbinds[2:]
            generic = int(element["snmp.generic_trap"])
            trap, _ = message.trap_oid_v1(
                pdu.enterprise, generic, int(element["snmp.specific_trap"])
            )
            assert message.notification_of(pdu).trap_oid == trap
        else:
            # tshark shows some negative ids as if their octets were unsigned
            assert (pdu.request_id - int(element["snmp.request_id"])) % 256 == 0
            stated = element.get("snmp.error_status", element.get("snmp.non_repeaters"))
            assert str(pdu.error_status) == stated
        assert len(said) == int(element["snmp.variable_bindings"])
        told = bindings_of(element)
        assert {one.oid for one in said} == {oid for oid, _, _ in told}
        by_oid = {one.oid: one for one in said}
        for oid, kind, value in told:
            if kind:
                assert ours(by_oid[oid], kind) == value, oid
                bindings += 1
    if name not in CAPTURES[-1:]:
        assert bindings > 0, "nothing was compared"


def check_v3(data: bytes, want: dict[str, Any]) -> int:
    made = usm.read_secured(data)
    head = want["snmp.msgGlobalData_element"]
    security = want["snmp.msgSecurityParameters_tree"]["snmp.UsmSecurityParameters_element"] if (
        "snmp.msgSecurityParameters_tree" in want
    ) else {}  # fmt: skip
    assert str(made.message_id) == head["snmp.msgID"]
    flags = head["snmp.msgFlags_tree"]
    assert bool(made.flags & usm.AUTH) == (flags["snmp.v3.flags.auth"] in ("1", "True"))
    assert bool(made.flags & usm.PRIV) == (flags["snmp.v3.flags.crypt"] in ("1", "True"))
    shown = security or want
    engine = shown["snmp.msgAuthoritativeEngineID"]
    assert made.engine_id.hex(":") == (engine if engine != "<MISSING>" else "")
    assert str(made.boots) == shown["snmp.msgAuthoritativeEngineBoots"]
    assert str(made.time) == shown["snmp.msgAuthoritativeEngineTime"]
    assert made.user == shown["snmp.msgUserName"]
    if made.flags & usm.PRIV:
        return 0
    scoped = usm.read_scoped(made.scoped)
    pdu = message.read_pdu(scoped.pdu, 0, len(scoped.pdu))
    told = bindings_of(want)
    assert [one.oid for one in pdu.varbinds] == [oid for oid, _, _ in told]
    for one, (_, kind, value) in zip(pdu.varbinds, told, strict=True):
        if kind:
            assert ours(one, kind) == value
    return len(told)


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_refused_with_a_reason(shared: Path, name: str) -> None:
    _, undecoded = decoded(shared / "captures/snmp" / name, protocol="snmp-trap")
    assert undecoded
    for data in payloads(shared / "captures/snmp" / name):
        assert plain_reason(data) != "ok"
        assert digests([data])[1] == [plain_reason(data)]
        with pytest.raises(DecodeError):
            message.read_envelope(data)


def test_the_traps_of_all_captures_are_rows_and_every_other_message_has_a_reason(
    shared: Path,
) -> None:
    rows: list[dict[str, Any]] = []
    reasons: dict[str, int] = {}
    messages = traps = 0
    for name in CAPTURES:
        both = zip(payloads(shared / "captures/snmp" / name), golden(shared, name), strict=True)
        traps += sum(
            1
            for data, want in both
            if want.get("snmp.data") in ("4", "6", "7") and LONG_TAG not in data
        )
        made, undecoded = decoded(shared / "captures/snmp" / name, protocol="snmp-trap")
        rows += [row for row in made if row["schema"] in ("alarm", "log")]
        messages += len(payloads(shared / "captures/snmp" / name))
        for why, count in undecoded.items():
            reasons[why] = reasons.get(why, 0) + count
    counts = [
        row["occurrence"] if row["schema"] == "alarm" else json.loads(row["variables"])["count"]
        for row in rows
    ]
    assert sum(counts) == traps > 6
    assert sum(reasons.values()) == messages - traps
    assert {row["kind"] for row in rows if row["schema"] == "alarm"} == {
        "restart", "linkDown", "authenticationFailure",
    }  # fmt: skip


def test_ports_of_habit_are_known_without_a_word(shared: Path) -> None:
    rows, _ = decoded(shared / "captures/snmp/zeek/snmpv1_trap.pcap")
    assert [row["schema"] for row in rows if row["schema"] in ("alarm", "log")] == ["alarm"]
