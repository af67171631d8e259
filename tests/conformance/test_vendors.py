"""What vendors send, as their documents and other decoders' issue threads tell it.

Each message is built from the field tables; the comment names where others went wrong.
"""

import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from collectors.capture.writer import PcapngWriter
from collectors.config import FlowDecoderSettings
from collectors.datagram import Datagram
from collectors.flow.decoder import FlowDecoder
from collectors.flow.templated_decoder import REVERSE
from collectors.present import rows as plain_rows
from runtime.component import Context
from telemetry.batch import Batch
from tests.support.decoding import decoded, poison
from tests.support.flow_messages import (
    ARRIVAL_NS,
    SECONDS,
    block,
    data_set,
    ipfix,
    options_set,
    template_set,
    v5,
    v9,
    v9_options_set,
)
from tocsin.testing import make_context

MS = SECONDS * 1000
UPTIME = 5_000_000


@pytest.fixture(autouse=True)
def _poisoned_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    poison(monkeypatch)


def decoder(context: Context | None = None, **settings: Any) -> FlowDecoder:
    return FlowDecoder(FlowDecoderSettings(**settings), context or make_context())


def flows(batches: list[Batch]) -> list[dict[str, Any]]:
    """Return flow rows as people see them: addresses as text, absent fields None."""
    for b in batches:  # decoders build them unchecked
        Batch(b.schema, b.columns, b.blobs, b.dictionaries)
    return [row for b in batches if b.schema.name == "flow" for row in plain_rows(b)]


def decode(*messages: bytes, **settings: Any) -> list[dict[str, Any]]:
    return flows(decoder(**settings).decode(block(*messages)))


def record(fields: list[tuple[int, ...]], values: dict[int, int | bytes]) -> bytes:
    """Encode a record: values by element id, zero where none is given."""
    made = b""
    for element, width, *_ in fields:
        value = values.get(element, 0)
        if width == 65535:
            data = value if isinstance(value, bytes) else b""
            made += (
                bytes([len(data)]) if len(data) < 255 else b"\xff" + struct.pack("!H", len(data))
            )
            made += data
        elif isinstance(value, bytes):
            made += value.ljust(width, b"\0")[:width]
        else:
            made += value.to_bytes(width, "big")
    return made


def one(fields: list[tuple[int, ...]], values: dict[int, int | bytes], *, version: int) -> Any:
    sets = template_set(300, fields, version=version), data_set(300, record(fields, values))
    message = ipfix(*sets) if version == 10 else v9(*sets, uptime_ms=UPTIME)
    (row,) = decode(message)
    return row


SOURCE, TARGET = 0x0A000001, 0x0A000002
ENDS: dict[int, int | bytes] = {8: SOURCE, 12: TARGET, 7: 1234, 11: 443, 4: 6}


# ---- Cisco

ASA_UPDATE = [
    (148, 4), (8, 4), (7, 2), (10, 2), (12, 4), (11, 2), (14, 2), (4, 1), (176, 1), (177, 1),
    (225, 4), (226, 4), (227, 2), (228, 2), (233, 1), (33002, 2), (323, 8), (231, 4), (232, 4),
    (298, 4), (299, 4), (152, 8), (40000, 20),
]  # fmt: skip


def test_cisco_asa_nsel_update_has_both_directions() -> None:
    """pmacct 502, nfdump 115, logstash 112: bytes are in 231 and 232, packets in 298 and 299."""
    values = {
        **ENDS, 10: 2, 14: 3, 225: 0xC0000201, 226: TARGET, 227: 61000, 228: 443, 233: 5,
        33002: 2032, 323: MS, 231: 1000, 232: 64000, 298: 10, 299: 50, 152: MS - 60_000,
    }  # fmt: skip
    message = v9(
        template_set(263, ASA_UPDATE, version=9), data_set(263, record(ASA_UPDATE, values))
    )
    there, back = decode(message)
    assert (there["octets"], there["packets"]) == (1000, 10)
    assert (back["octets"], back["packets"]) == (64000, 50)
    assert (back["source_address"], back["destination_address"]) == ("10.0.0.2", "10.0.0.1")
    assert (back["source_port"], back["destination_port"]) == (443, 1234)
    assert (back["ingress_interface"], back["egress_interface"]) == (3, 2)
    assert there["post_nat_source_address"] == back["post_nat_destination_address"] == "192.0.2.1"
    assert there["flow_start_ns"] == (MS - 60_000) * 10**6
    assert there["flow_end_ns"] == MS * 10**6  # the event's time


def test_cisco_asa_create_and_deny_events_are_rows_without_counts() -> None:
    fields = [*ASA_UPDATE[:16], (323, 8)]
    row = one(fields, {**ENDS, 233: 3, 33002: 1001, 323: MS}, version=9)
    assert (row["octets"], row["packets"]) == (None, None)
    assert row["flow_start_ns"] == row["flow_end_ns"] == MS * 10**6


def test_cisco_asa_before_8_4_names_translations_by_its_own_ids() -> None:
    fields = [(8, 4), (12, 4), (40001, 4), (40002, 4), (40003, 2), (40004, 2), (40005, 1), (85, 4)]
    row = one(fields, {**ENDS, 40001: 0xC0000201, 40003: 99, 40004: 98, 85: 7}, version=9)
    assert row["post_nat_source_address"] == "192.0.2.1"
    assert (row["post_nat_source_port"], row["post_nat_destination_port"]) == (99, 98)
    assert row["octets"] == 7


def test_cisco_ids_above_32767_in_v9_are_no_enterprise_bit() -> None:
    """CESNET ipfixcol 16: the four bytes behind are the next field."""
    row = one([(57659, 4), (8, 4), (33000, 12), (1, 4)], {8: SOURCE, 1: 5}, version=9)
    assert (row["source_address"], row["octets"]) == ("10.0.0.1", 5)


def test_cisco_nbar_applications_have_names() -> None:
    """pmacct 473, ASR options application-table: 95 engine and selector, 96 name, 94 description."""
    application = 13 << 24 | 453
    options = v9_options_set(260, [(1, 4)], [(95, 4), (96, 24), (94, 55)])
    table = data_set(
        260, struct.pack("!II24s55s", 1, application, b"ssl", b"Secure Sockets") + b"\0"
    )
    fields = [(8, 4), (12, 4), (95, 4), (1, 4)]
    data = data_set(261, record(fields, {**ENDS, 95: application, 1: 9}))
    made = decoder()
    batches = made.decode(block(v9(options, table, template_set(261, fields, version=9), data)))
    (row,) = flows(batches)
    assert row["application_id"] == application
    (batch,) = [b for b in batches if b.schema.name == "flow"]
    assert made.reference.join(batch, "application_id") == ["ssl"]


def test_cisco_interface_and_vrf_tables() -> None:
    interfaces = v9_options_set(256, [(2, 4)], [(82, 32), (83, 64)])  # scope: interface
    names = data_set(256, struct.pack("!I32s64s", 7, b"Te0/0/0/1", b"to core"))
    vrfs = v9_options_set(257, [(1, 4)], [(234, 4), (236, 32)])
    tenants = data_set(257, struct.pack("!II32s", 1, 0x60000002, b"customer-a"))
    fields = [(8, 4), (10, 4), (14, 4), (234, 4), (235, 4), (1, 4)]
    data = data_set(258, record(fields, {8: 1, 10: 7, 14: 8, 234: 0x60000002, 235: 1, 1: 1}))
    made = decoder()
    parts = (interfaces, names, vrfs, tenants, template_set(258, fields, version=9), data)
    (batch,) = [b for b in made.decode(block(v9(*parts))) if b.schema.name == "flow"]
    assert made.reference.join(batch, "ingress_interface") == ["Te0/0/0/1"]
    assert made.reference.join(batch, "egress_interface") == [""]
    assert made.reference.join(batch, "ingress_vrf_id") == ["customer-a"]
    assert batch["egress_vrf_id"].tolist() == [1]


def test_cisco_sampler_table_and_id_in_the_record() -> None:
    """akvorado 997, 89: two samplers of one box, table and data in one datagram."""
    table = v9_options_set(256, [(1, 4)], [(48, 1), (84, 40), (49, 1), (50, 2)])
    entries = b"".join(
        struct.pack("!IB40sBH", 1, sampler, b"s", 2, rate)
        for sampler, rate in ((1, 100), (2, 4000))
    )
    fields = [(8, 4), (1, 4), (48, 1)]
    data = b"".join(record(fields, {8: 1, 1: 1, 48: sampler}) for sampler in (2, 1, 3))
    rows = decode(
        v9(table, data_set(256, entries), template_set(257, fields, version=9), data_set(257, data))
    )
    assert [row["sampling_rate"] for row in rows] == [4000, 100, None]


def test_cisco_ios_xr_repeats_elements_and_names_bundles_and_members() -> None:
    """logstash 93, 142: RFC 7011 section 8 says a repeated element must be dealt with."""
    fields = [(234, 4), (252, 4), (10, 4), (14, 4), (8, 4), (12, 4), (7, 2), (11, 2), (4, 1),
              (234, 4), (11, 2), (1, 8), (2, 8)]  # fmt: skip
    values: dict[int, int | bytes] = {**ENDS, 10: 70, 252: 7, 14: 9, 234: 5, 1: 11, 2: 1}
    row = one(fields, values, version=10)
    assert (row["ingress_interface"], row["destination_port"]) == (70, 443)


def test_cisco_egress_netflow_counts_in_23_and_24() -> None:
    row = one([(8, 4), (12, 4), (23, 4), (24, 4)], {**ENDS, 23: 500, 24: 5}, version=9)
    assert (row["octets"], row["packets"]) == (500, 5)


# ---- Juniper, Nokia, Huawei


def test_juniper_inline_jflow_boot_time_in_options() -> None:
    """goflow2 406: IPFIX uptime stamps count from 160, which comes in options data."""
    options = options_set(512, [(144, 4)], [(160, 8), (34, 4), (130, 4)])
    boot = MS - 86_400_000
    said = data_set(512, struct.pack("!IQIBBBB", 0, boot, 1000, 192, 0, 2, 1))
    fields = [
        (8, 4),
        (12, 4),
        (22, 4),
        (21, 4),
        (1, 8),
        (2, 8),
        (136, 1),
        (243, 2),
        (245, 2),
        (54, 4),
    ]
    stamps = {22: 86_400_000 - 5000, 21: 86_400_000 - 1000}
    data = data_set(256, record(fields, {**ENDS, **stamps, 1: 100, 2: 2, 243: 77}))
    (row,) = decode(ipfix(options, said, template_set(256, fields), data))
    assert row["flow_start_ns"] == (MS - 5000) * 10**6
    assert row["flow_end_ns"] == (MS - 1000) * 10**6
    assert (row["vlan_id"], row["sampling_rate"]) == (77, 1000)


def test_juniper_mpls_template_with_three_labels_and_an_address_of_the_lsp() -> None:
    fields = [(70, 3), (71, 3), (72, 3), (10, 4), (47, 4), (8, 4), (12, 4), (1, 4), (2, 4)]
    label = struct.pack("!I", 299_776 << 12 | 0x100)[:3]
    row = one(fields, {**ENDS, 70: label, 1: 5, 2: 1}, version=9)
    assert (row["mpls_top_label"], row["source_address"]) == (299_776, "10.0.0.1")


def test_juniper_pads_data_sets_to_four_bytes_and_more() -> None:
    fields = [(8, 4), (12, 4), (1, 2), (4, 1)]
    data = record(fields, {**ENDS, 1: 5}) * 2
    for padding in range(8):  # shorter than a record, as RFC 7011 section 3.3.1 asks
        rows = decode(
            v9(
                template_set(256, fields, version=9),
                data_set(256, data + bytes(padding)),
                data_set(256, data),
            )
        )
        assert [row["octets"] for row in rows] == [5, 5, 5, 5]


@pytest.mark.parametrize(
    ("fields", "values", "rate"),
    [
        ([(305, 4), (306, 4)], (1, 999), 1000),  # Nokia; goflow2 440 read 1
        ([(305, 4), (306, 4)], (10, 990), 100),
        ([(309, 4), (310, 4)], (1, 4096), 4096),  # n out of N
        ([(309, 4), (310, 4)], (8, 4096), 512),
        ([(34, 4), (35, 1)], (2048, 1), 2048),  # Huawei, H3C
        ([(50, 4)], (512,), 512),
    ],
)
@pytest.mark.parametrize("selector", [302, 48])
def test_ways_to_state_a_rate(
    fields: list[tuple[int, int]], values: tuple[int, ...], rate: int, selector: int
) -> None:
    options = options_set(400, [(selector, 4)], fields)
    body = struct.pack("!I", 7)
    for (_, width), value in zip(fields, values, strict=True):
        body += value.to_bytes(width, "big")
    layout = [(8, 4), (1, 4), (selector, 4)]
    data = data_set(256, record(layout, {8: 1, 1: 1, selector: 7}))
    (row,) = decode(ipfix(options, data_set(400, body), template_set(256, layout), data))
    assert row["sampling_rate"] == rate


def test_a_probability_as_rate() -> None:
    options = options_set(400, [(144, 4)], [(311, 8)])
    said = data_set(400, struct.pack("!Id", 0, 0.001))
    layout = [(8, 4), (1, 4)]
    data = data_set(256, record(layout, {8: 1, 1: 1}))
    (row,) = decode(ipfix(options, said, template_set(256, layout), data))
    assert row["sampling_rate"] == 1000


def test_options_and_data_from_different_ports() -> None:
    """goflow 87: another process of the exporter sends the options, before data or after it."""
    options = options_set(400, [(144, 4)], [(34, 4), (160, 8)])
    said = ipfix(options, data_set(400, struct.pack("!IIQ", 0, 512, MS - 50_000)))
    layout = [(8, 4), (22, 4), (21, 4), (1, 4)]
    data = ipfix(
        template_set(256, layout),
        data_set(256, record(layout, {8: 1, 22: 40_000, 21: 49_000, 1: 1})),
    )
    for order in ((1, 2), (2, 1, 2)):
        made = decoder()
        rows: list[dict[str, Any]] = []
        for port in order:
            rows = flows(made.decode(block(said if port == 1 else data, port=port)))
        assert rows[-1]["sampling_rate"] == 512
        assert rows[-1]["flow_end_ns"] == (MS - 1000) * 10**6


def test_huawei_states_the_rate_in_each_record() -> None:
    """akvorado 841: element 34 in the data, none in options; nfdump 187: 0 means nothing."""
    fields = [(8, 4), (12, 4), (34, 4), (1, 4)]
    rows = decode(
        v9(
            template_set(300, fields, version=9),
            data_set(300, record(fields, {**ENDS, 34: 1000}) + record(fields, {**ENDS, 34: 0})),
        )
    )
    assert [row["sampling_rate"] for row in rows] == [1000, None]


def test_huawei_v5_without_a_rate_takes_the_configured_one() -> None:
    (row,) = decode(v5((SOURCE, 1, 100)), sampling_override={"192.0.2.0/24": 1000})
    assert row["sampling_rate"] == 1000


def test_nokia_nat_events_have_one_time_each() -> None:
    """nfdump 533: whether a mapping was made or ended is told by which time there is."""
    fields = [(230, 1), (8, 4), (225, 4), (7, 2), (227, 2), (323, 8)]
    row = one(fields, {230: 4, 8: SOURCE, 225: 0xC0000201, 227: 2048, 323: MS}, version=10)
    assert (row["nat_event"], row["post_nat_source_address"]) == (4, "192.0.2.1")
    assert row["flow_start_ns"] == MS * 10**6


# ---- firewalls


def test_fortigate_sends_what_came_back_beside_in_bytes() -> None:
    """23 and 24 are counts behind the box by the registry: beside 1 and 2 they are another quantity."""
    fields = [(1, 8), (23, 8), (2, 4), (24, 4), (8, 4), (12, 4), (7, 2), (11, 2), (4, 1), (65, 2),
              (136, 2)]  # fmt: skip
    row = one(fields, {**ENDS, 1: 0, 23: 777, 2: 0, 24: 7}, version=9)
    assert (row["octets"], row["packets"]) == (0, 0)


def test_palo_alto_fills_the_datagram_with_zeros() -> None:
    """logstash 146, nfdump 73: a set of length 0 behind the last one; texts of its own."""
    fields = [(8, 4), (12, 4), (1, 8), (2, 8), (233, 1), (346, 4), (56701, 32), (56702, 64)]
    sets = template_set(260, fields, version=9), data_set(260, record(fields, {**ENDS, 1: 9}))
    context = make_context()
    batches = decoder(context).decode(block(v9(*sets) + bytes(1300)))
    assert [row["octets"] for row in flows(batches)] == [9]
    assert context.metrics.value("collector_templated_datagrams_total", verdict="ok") == 1


# ---- others


def test_mikrotik_sends_uptime_stamps_and_never_a_boot_time() -> None:
    """goflow2 305, ipfix-rita 19: no 160 anywhere; the newest flow ends when it is exported."""
    fields = [(8, 4), (12, 4), (22, 4), (21, 4), (1, 4), (2, 4), (193, 1), (231, 4)][:7]
    body = b"".join(
        record(fields, {**ENDS, 22: 900_000_000 + start, 21: 900_000_000 + end, 1: 1, 2: 1})
        for start, end in ((0, 4000), (1000, 60_000), (30_000, 58_000))
    )
    rows = decode(ipfix(template_set(258, fields), data_set(258, body)))
    ends = [(row["flow_end_ns"] - SECONDS * 10**9) / 1e9 for row in rows]
    assert ends == pytest.approx([-56.0, 0.0, -2.0])
    assert (rows[1]["flow_end_ns"] - rows[1]["flow_start_ns"]) / 1e9 == pytest.approx(59.0)


def test_vmware_vds_tenant_fields_and_inner_addresses_of_an_enterprise() -> None:
    """PEN 6876: its element 8 is no source address (telegraf 13305)."""
    fields = [(8, 4), (8, 4, 6876), (12, 4), (12, 4, 6876), (1, 8), (2, 8), (880, 1, 6876),
              (150, 4), (151, 4)]  # fmt: skip
    body = struct.pack("!4I2QB2I", SOURCE, 0xFFFFFFFF, TARGET, 0xFFFFFFFF, 10, 1, 3, SECONDS - 9,
                       SECONDS - 1)  # fmt: skip
    (row,) = decode(ipfix(template_set(266, fields), data_set(266, body)))
    assert (row["source_address"], row["destination_address"]) == ("10.0.0.1", "10.0.0.2")
    assert row["flow_end_ns"] == (SECONDS - 1) * 10**9


def test_netscaler_mixes_variable_enterprise_fields_in_between() -> None:
    fields = [(138, 4, 5951), (8, 4), (157, 65535, 5951), (1, 8), (133, 65535, 5951), (2, 4)]
    body = b"".join(
        struct.pack("!II", 1, SOURCE)
        + (bytes([n]) if n < 255 else b"\xff" + struct.pack("!H", n))
        + bytes(n)
        + struct.pack("!Q", n)
        + b"\x00"
        + struct.pack("!I", 3)
        for n in (0, 1, 254, 255, 300)
    )
    rows = decode(ipfix(template_set(300, fields), data_set(300, body)))
    assert [row["octets"] for row in rows] == [0, 1, 254, 255, 300]
    assert {row["packets"] for row in rows} == {3}


def test_yaf_biflow_records_and_lists() -> None:
    """RFC 5103 reverse elements; RFC 6313 lists (291, 292, 293) are stepped over, kept raw."""
    fields = [(152, 8), (153, 8), (8, 4), (12, 4), (7, 2), (11, 2), (4, 1), (85, 8), (86, 8),
              (85, 8, 29305), (86, 8, 29305), (14, 1, 6871), (6, 1, 29305), (292, 65535),
              (293, 65535), (21, 4, 6871)]  # fmt: skip
    body = struct.pack("!QQIIHHBQQQQBB", MS - 9000, MS - 1000, SOURCE, TARGET, 1234, 443, 6, 900, 9,
                       70_000, 60, 2, 0x1B)  # fmt: skip
    lists = b"\x07" + bytes(7) + b"\xff" + struct.pack("!H", 300) + bytes(300)
    message = ipfix(template_set(300, fields), data_set(300, (body + lists + bytes(4)) * 2))
    made = decoder().decode(block(message))
    there, back = [b for b in made if b.schema.name == "flow"]
    assert back.source.endswith(REVERSE)
    assert there["octets"].tolist() == [900, 900]
    assert back["octets"].tolist() == [70_000, 70_000]
    assert back["tcp_flags"].tolist() == [0x1B, 0x1B]
    assert flows([back])[0]["source_address"] == "10.0.0.2"
    assert flows([back])[0]["flow_start_ns"] == (MS - 9000) * 10**6


def test_a_way_back_without_traffic_is_no_row() -> None:
    fields = [(8, 4), (12, 4), (1, 8), (1, 8, 29305)]
    body = struct.pack("!IIQQ", SOURCE, TARGET, 5, 0) + struct.pack("!IIQQ", SOURCE, TARGET, 6, 7)
    rows = decode(ipfix(template_set(300, fields), data_set(300, body)))
    assert [row["octets"] for row in rows] == [5, 6, 7]


def test_people_see_one_row_a_record(tmp_path: Path) -> None:
    """`tocsin decode`: a way back stands in its record's row, so rows are data records."""
    fields = [(8, 4), (12, 4), (1, 8), (1, 8, 29305), (2, 4, 29305), (14, 4, 6871)]
    body = struct.pack("!IIQQII", SOURCE, TARGET, 5, 70, 7, 1)
    path = tmp_path / "biflow.dat"
    path.write_bytes(ipfix(template_set(300, fields), data_set(300, body * 2)))
    rows, undecoded = decoded(path)
    assert not undecoded
    assert [row["octets"] for row in rows] == [5, 5]
    assert [row["reverse"] for row in rows] == [{"octets": 70, "packets": 7}] * 2
    assert rows[0]["elements"] == {"6871:14": "00000001"}


def test_initiator_and_responder_counts_beside_delta_counts_are_no_way_back() -> None:
    """Cisco AVC: each direction has a record of its own, whose 231 and 232 are the connection's."""
    fields = [(8, 4), (12, 4), (1, 4), (2, 4), (231, 4), (232, 4), (298, 4), (299, 4)]
    rows = decode(
        ipfix(
            template_set(300, fields),
            data_set(300, record(fields, {**ENDS, 1: 0, 2: 0, 231: 500, 232: 600, 298: 5, 299: 6})),
        )
    )
    assert [(row["octets"], row["packets"]) for row in rows] == [(0, 0)]


def test_an_address_goes_before_its_network_wherever_it_stands() -> None:
    fields = [(44, 4), (45, 4), (8, 4), (12, 4), (1, 4)]
    row = one(fields, {**ENDS, 44: 0x0A000000, 45: 0x0A000000, 1: 1}, version=9)
    assert (row["source_address"], row["destination_address"]) == ("10.0.0.1", "10.0.0.2")


def test_icmp_on_the_way_back_keeps_its_type() -> None:
    fields = [(8, 4), (12, 4), (4, 1), (32, 2), (1, 8), (1, 8, 29305)]
    body = struct.pack("!IIBHQQ", SOURCE, TARGET, 1, 0x0800, 84, 84)
    rows = decode(ipfix(template_set(300, fields), data_set(300, body)))
    assert [row["destination_port"] for row in rows] == [0x0800, 0x0800]
    assert rows[1]["source_address"] == "10.0.0.2"


def test_nprobe_enterprise_elements_are_not_iana_ones() -> None:
    """telegraf 13305, 13353: PEN 35632, ids that IANA uses for something else."""
    fields = [(8, 4), (1, 4), (80, 2, 35632), (1, 4, 35632), (2, 8, 35632), (118, 65535, 35632)]
    body = struct.pack("!IIHIQB", SOURCE, 50, 1, 999, 888, 3) + b"abc"
    (row,) = decode(ipfix(template_set(300, fields), data_set(300, body)))
    assert (row["octets"], row["packets"]) == (50, None)


def test_softflowd_and_pmacct_dual_stack_templates() -> None:
    """Both families in one template, one of them zero; the other one counts."""
    fields = [(8, 4), (12, 4), (27, 16), (28, 16), (1, 4)]
    six = bytes.fromhex("20010db8") + bytes(11) + b"\x01"
    body = record(fields, {27: six, 28: six, 1: 6}) + record(fields, {**ENDS, 1: 4})
    rows = decode(ipfix(template_set(300, fields), data_set(300, body)))
    assert [row["source_address"] for row in rows] == ["2001:db8::1", "10.0.0.1"]


def test_meraki_and_others_with_a_clock_that_stands() -> None:
    """nfdump 14: a header time that never moves is soon not believed, arrival is used."""
    fields = [(8, 4), (152, 8), (153, 8), (1, 4)]
    stuck = 1_000_000_000
    message = ipfix(
        template_set(300, fields),
        data_set(300, record(fields, {8: 1, 152: stuck * 1000, 153: stuck * 1000 + 500, 1: 1})),
        seconds=stuck,
    )
    (row,) = decode(message)
    assert abs(row["export_ns"] - ARRIVAL_NS) < 10**9
    assert abs(row["flow_end_ns"] - ARRIVAL_NS) < 2 * 10**9


# ---- times


@pytest.mark.parametrize(
    ("start", "end", "width", "encode", "expected"),
    [
        (150, 151, 4, lambda s: SECONDS - s, 1.0),
        (152, 153, 8, lambda s: (SECONDS - s) * 1000 + 7, 0.007),
        (158, 159, 4, lambda s: s * 1_000_000, 1.0),
        (154, 155, 8, lambda s: (SECONDS - s + 2_208_988_800) << 32 | 1 << 31, 0.5),
        (156, 157, 8, lambda s: (SECONDS - s + 2_208_988_800) << 32 | 1 << 30, 0.25),
    ],
    ids=["seconds", "milliseconds", "delta-microseconds", "ntp-microseconds", "ntp-nanoseconds"],
)
def test_time_bases(start: int, end: int, width: int, encode: Any, expected: float) -> None:
    fields = [(8, 4), (start, width), (end, width), (1, 4)]
    row = one(fields, {8: 1, start: encode(60), end: encode(2), 1: 1}, version=10)
    fraction = expected % 1.0
    assert row["flow_start_ns"] == (SECONDS - 60) * 10**9 + round(fraction * 1e9)
    assert row["flow_end_ns"] == (SECONDS - 2) * 10**9 + round(fraction * 1e9)


def test_ntp_microseconds_are_rounded_to_the_microsecond() -> None:
    """ipfixprobe sends .492060 as a fraction of 32 bits: cut off it would be .492059999."""
    fraction = (492_060 << 32) // 1_000_000
    stamp = SECONDS + 2_208_988_800 << 32 | fraction
    row = one([(8, 4), (154, 8), (1, 4)], {8: 1, 154: stamp}, version=10)
    assert row["flow_start_ns"] % 10**9 == 492_060_000


def test_start_and_duration_give_the_end() -> None:
    row = one([(8, 4), (152, 8), (161, 4), (1, 4)], {8: 1, 152: MS - 9000, 161: 4000}, version=10)
    assert row["flow_end_ns"] == (MS - 5000) * 10**6


def test_boot_time_in_the_record() -> None:
    fields = [(8, 4), (160, 8), (22, 4), (21, 4), (1, 4)]
    row = one(fields, {8: 1, 160: MS - 100_000, 22: 90_000, 21: 99_000, 1: 1}, version=10)
    assert row["flow_start_ns"] == (MS - 10_000) * 10**6
    assert row["flow_end_ns"] == (MS - 1000) * 10**6


def test_drift_of_ipfix_uptime_against_the_boot_time_is_taken_out() -> None:
    """50 ppm over a hundred days are seven minutes: flows would end after their export."""
    fields = [(8, 4), (22, 4), (21, 4), (1, 4)]
    options = options_set(512, [(144, 4)], [(160, 8)])
    boot, ahead = MS - 8_000_000, 400_000
    said = data_set(512, struct.pack("!IQ", 0, boot))
    stamps = {22: 8_000_000 + ahead - 5000, 21: 8_000_000 + ahead}
    data = data_set(256, record(fields, {8: 1, 1: 1, **stamps}))
    (row,) = decode(ipfix(options, said, template_set(256, fields), data))
    assert row["flow_end_ns"] == MS * 10**6
    assert row["flow_start_ns"] == (MS - 5000) * 10**6


def test_uptime_drift_of_v9_is_estimated_and_reported() -> None:
    made = decoder()
    layout = template_set(300, [(8, 4), (22, 4), (21, 4), (1, 4)], version=9)
    fast = 1.0002  # its uptime runs 200 ppm fast
    for minute in range(0, 120, 2):
        now = minute * 60
        message = bytearray(v9(layout, uptime_ms=round((1_000_000 + now * 1000) * fast)))
        message[8:12] = struct.pack("!I", SECONDS + now)
        one_block = block(bytes(message))
        made.decode(
            one_block.__class__(
                one_block.payload, one_block.offset, one_block.length, one_block.exporter_high,
                one_block.exporter_low, one_block.exporter_port,
                one_block.arrival_ns + now * 10**9, 0, 0,
            )
        )  # fmt: skip
    ledger, *_ = made.advance(ARRIVAL_NS + 7200 * 10**9)
    assert float(ledger["uptime_drift_ppm"][0]) == pytest.approx(-200, rel=0.1)


# ---- templates and sets


def test_several_templates_in_one_set_and_sets_in_one_message() -> None:
    first, second = [(8, 4), (1, 4)], [(12, 4), (2, 4), (1, 2)]
    both = template_set(300, first)[4:] + template_set(301, second)[4:]
    message = ipfix(
        struct.pack("!HH", 2, 4 + len(both)) + both,
        data_set(301, record(second, {12: 9, 1: 7})),
        data_set(300, record(first, {8: 5, 1: 6}) * 2),
    )
    assert [row["octets"] for row in decode(message)] == [7, 6, 6]


@pytest.mark.parametrize("padding", range(8))
def test_padding_behind_templates(padding: int) -> None:
    """beats 18098 (Ixia): up to seven zero bytes, as a template record has at least eight."""
    body = template_set(300, [(8, 4), (1, 4)])[4:] + bytes(padding)
    context = make_context()
    made = decoder(context)
    made.decode(block(ipfix(struct.pack("!HH", 2, 4 + len(body)) + body)))
    assert len(made.templates) == 1
    assert context.metrics.value("collector_templates_total", result="malformed") == 0


@pytest.mark.parametrize("padding", [0, 1, 2, 3, 6])
def test_padding_behind_v9_options_templates(padding: int) -> None:
    """fluent 33, vflow 42: by rule, beyond it, or none at all; what follows must still be found."""
    options = v9_options_set(256, [(1, 4)], [(34, 4)], padding=padding)
    said = data_set(256, struct.pack("!II", 1, 250))
    fields = [(8, 4), (1, 4)]
    data = data_set(257, record(fields, {8: 1, 1: 1}))
    (row,) = decode(v9(options, said, template_set(257, fields, version=9), data))
    assert row["sampling_rate"] == 250


def test_an_options_length_that_is_no_multiple_of_four() -> None:
    """pmacct 473: nProbe says 9 where 8 is meant."""
    good = bytearray(v9_options_set(256, [(1, 4)], [(95, 4), (96, 8)], padding=2))
    good[8:10] = struct.pack("!H", 9)
    said = data_set(256, struct.pack("!II8s", 1, 77, b"dns"))
    made = decoder()
    made.decode(block(v9(bytes(good), said)))
    assert made.reference.name(0, 0xFFFF_C0000201, "application", 77) == "dns"


def test_withdrawal_in_wire_order_and_inside_an_options_set() -> None:
    fields = [(8, 4), (1, 4)]
    data = data_set(300, record(fields, {8: 1, 1: 1}))
    assert decode(ipfix(template_set(300, fields), template_set(300, []), data)) == []
    gone = struct.pack("!HHHH", 3, 8, 400, 0)
    context = make_context()
    made = decoder(context)
    made.decode(block(ipfix(options_set(400, [(144, 4)], [(34, 4)]), gone)))
    assert len(made.templates) == 0
    assert context.metrics.value("collector_templates_total", result="malformed") == 0


def test_options_of_scopes_alone_and_without_scope() -> None:
    for scopes in (2, 0):
        body = struct.pack("!HHHHHHH", 400, 2, scopes, 302, 4, 34, 4)
        options = struct.pack("!HH", 3, 4 + len(body)) + body
        fields = [(8, 4), (302, 4), (1, 4)]
        message = ipfix(
            options,
            data_set(400, struct.pack("!II", 5, 321)),
            template_set(300, fields),
            data_set(300, record(fields, {8: 1, 302: 5, 1: 1})),
        )
        (row,) = decode(message)
        assert row["sampling_rate"] == 321


def test_a_template_that_becomes_malformed_ends_the_old_layout() -> None:
    """go-ipfix 383: its data has another layout now; the old one would invent values."""
    fields = [(8, 4), (1, 4)]
    made = decoder()
    made.decode(block(ipfix(template_set(300, fields))))
    cut = struct.pack("!HHHH", 2, 12, 300, 9) + struct.pack("!HH", 8, 4)
    assert flows(made.decode(block(ipfix(cut, data_set(300, bytes(16)))))) == []
    assert made.waiting_bytes() > 0


@pytest.mark.parametrize("set_id", [4, 100, 255])
def test_data_sets_with_reserved_ids_are_counted_and_skipped(set_id: int) -> None:
    fields = [(8, 4), (1, 4)]
    context = make_context()
    message = v9(
        template_set(300, fields, version=9),
        data_set(set_id, bytes(12)),
        data_set(300, record(fields, {8: 1, 1: 3})),
    )
    assert [r["octets"] for r in flows(decoder(context).decode(block(message)))] == [3]
    assert context.metrics.value("collector_sets_total", reason="reserved_id") == 1


def test_templates_without_fields_and_of_zero_length_fields() -> None:
    """v9 knows no withdrawal: a template of nothing is malformed; zero-length fields carry nothing."""
    context = make_context()
    fields = [(8, 4), (95, 0), (1, 4), (95, 0)]
    message = v9(
        template_set(299, [], version=9),
        template_set(300, fields, version=9),
        data_set(300, record(fields, {8: 1, 1: 3})),
        template_set(301, [(8, 0), (1, 0)], version=9),
        data_set(301, bytes(8)),
        data_set(300, record(fields, {8: 1, 1: 4})),
    )
    assert [r["octets"] for r in flows(decoder(context).decode(block(message)))] == [3, 4]
    assert context.metrics.value("collector_templates_total", result="malformed") == 1


@pytest.mark.parametrize("count", [0, 1, 99, 65535])
def test_v9_header_counts_that_are_wrong(count: int) -> None:
    fields = [(8, 4), (1, 4)]
    data = data_set(300, record(fields, {8: 1, 1: 3}) * 3)
    assert len(decode(v9(template_set(300, fields, version=9), data, count=count))) == 3


@pytest.mark.parametrize("width", [1, 2, 3, 4, 5, 6, 7, 8])
def test_reduced_size_encoding(width: int) -> None:
    """RFC 7011 section 6.2: any unsigned element in fewer bytes than its type has."""
    fields = [(8, 4), (1, width), (2, width), (10, width), (7, width)]
    values: dict[int, int | bytes] = {8: SOURCE, 1: 200, 2: 3, 10: 77, 7: 53}
    row = one(fields, values, version=10)
    assert (row["octets"], row["packets"]) == (200, 3)
    assert (row["ingress_interface"], row["source_port"]) == (77, 53)


def test_unsigned_elements_of_variable_length() -> None:
    fields = [(8, 4), (1, 65535), (2, 65535)]
    body = b"".join(
        struct.pack("!IB", SOURCE, n) + (7).to_bytes(n, "big") + b"\x01\x02" for n in (1, 4, 8)
    )
    rows = decode(ipfix(template_set(300, fields), data_set(300, body)))
    assert [(row["octets"], row["packets"]) for row in rows] == [(7, 2)] * 3


def test_prefixes_of_aggregated_flows_stand_for_addresses() -> None:
    """Elements 44, 45, 9, 13: aggregation caches export networks."""
    fields = [(44, 4), (45, 4), (9, 1), (13, 1), (1, 4)]
    row = one(fields, {44: 0x0A000000, 45: 0x0B000000, 9: 8, 13: 16, 1: 1}, version=9)
    assert (row["source_address"], row["source_prefix_length"]) == ("10.0.0.0", 8)
    assert (row["destination_address"], row["destination_prefix_length"]) == ("11.0.0.0", 16)


def test_a_mediator_names_the_true_exporter() -> None:
    """tflow2 23: elements 130 and 131; records without it keep the sender's address."""
    fields = [(130, 4), (8, 4), (1, 4)]
    body = record(fields, {130: 0xCB007105, 8: 1, 1: 1}) + record(fields, {8: 2, 1: 1})
    rows = decode(ipfix(template_set(300, fields), data_set(300, body)))
    assert [row["exporter_address"] for row in rows] == ["203.0.113.5", "192.0.2.1"]


def test_ten_layouts_in_one_block_keep_their_own_columns() -> None:
    """Columns that one template fills and its neighbour does not must be absent there, not stale."""
    layouts: list[list[tuple[int, ...]]] = [
        [(8, 4), (1, 4)], [(27, 16), (1, 8)], [(8, 4), (58, 2), (1, 4)], [(70, 3), (1, 4)],
        [(8, 4), (27, 16), (1, 4)], [(152, 8), (1, 4)], [(4, 1), (32, 2), (1, 4)], [(16, 4), (1, 2)],
        [(225, 4), (1, 4)], [(95, 65535), (8, 4), (1, 4)],
    ]  # fmt: skip
    announce = [template_set(300 + n, fields) for n, fields in enumerate(layouts)]
    data = [
        data_set(300 + n, record(fields, {1: n + 1, 8: SOURCE, 4: 1, 95: b"x"}) * 5)
        for n, fields in enumerate(layouts)
    ]
    rows = decode(ipfix(*announce), ipfix(*data), ipfix(*data[::-1]))
    assert len(rows) == 100
    for place, row in enumerate(rows):
        n = place // 5 if place < 50 else 9 - (place - 50) // 5
        elements = {element for element, *_ in layouts[n]}
        assert row["octets"] == n + 1
        assert (row["vlan_id"] is not None) == (58 in elements)
        assert (row["mpls_top_label"] is not None) == (70 in elements)
        assert (row["flow_start_ns"] is not None) == (152 in elements)
        assert (row["source_as"] is not None) == (16 in elements)
        assert (row["post_nat_source_address"] is not None) == (225 in elements)
        assert (row["destination_port"] is not None) == (32 in elements)
        assert (row["source_address"] is not None) == (bool({8, 27} & elements))
        if 8 in elements:
            assert row["source_address"] == "10.0.0.1"


# ---- an independent judge

JUDGED: dict[str, list[bytes]] = {
    "asa": [
        v9(
            template_set(263, ASA_UPDATE, version=9),
            data_set(263, record(ASA_UPDATE, {**ENDS, 231: 1000, 232: 0, 323: MS, 152: MS})),
            count=2,
        )
    ],
    "nbar": [
        v9(
            v9_options_set(260, [(1, 4)], [(95, 4), (96, 24)]),
            data_set(260, struct.pack("!II24s", 1, 13 << 24 | 5, b"x")),
            template_set(
                261, [(8, 4), (12, 4), (95, 4), (7, 2), (11, 2), (4, 1), (1, 4)], version=9
            ),
            data_set(261, struct.pack("!IIIHHBI", 1, 2, 13 << 24 | 5, 3, 4, 6, 9) + b"\0\0\0"),
            sequence=1,
            count=4,
        )
    ],
    "mpls": [
        v9(
            template_set(
                262, [(70, 3), (71, 3), (10, 4), (8, 4), (12, 4), (1, 4), (2, 4)], version=9
            ),
            data_set(
                262, b"\x49\x30\x01" + bytes(3) + struct.pack("!5I", 7, 8, 9, 10, 11) + b"\0\0"
            ),
            sequence=2,
            count=2,
        )
    ],
    "reduced": [
        ipfix(
            template_set(270, [(8, 4), (1, 3), (2, 2), (10, 2), (7, 2)]),
            data_set(270, struct.pack("!I3sHHH", 5, b"\0\1\0", 3, 4, 5) * 3),
        )
    ],
    "variable": [
        ipfix(
            template_set(271, [(8, 4), (82, 65535), (1, 8), (371, 65535), (11, 2)]),
            data_set(
                271,
                b"".join(
                    struct.pack("!I", 9)
                    + (bytes([n]) if n < 255 else b"\xff" + struct.pack("!H", n))
                    + b"i" * n
                    + struct.pack("!Q", 1000 + n)
                    + b"\x01u"
                    + struct.pack("!H", n)
                    for n in (0, 3, 254, 255, 400)
                ),
            ),
            sequence=3,
        )
    ],
    "enterprise": [
        ipfix(
            template_set(272, [(8, 4), (1, 4), (8, 4, 6876), (1, 4, 35632), (12, 4), (2, 4)]),
            data_set(272, struct.pack("!6I", 1, 50, 0xFFFFFFFF, 999, 2, 5)),
            sequence=8,
        )
    ],
    "ipv6": [
        ipfix(
            template_set(273, [(27, 16), (28, 16), (4, 1), (7, 2), (11, 2), (1, 8), (2, 8)]),
            data_set(273, bytes(range(32)) + struct.pack("!BHHQQ", 17, 53, 5353, 77, 1)),
            sequence=9,
        )
    ],
    "two-templates": [
        ipfix(
            struct.pack("!HH", 2, 28)
            + template_set(274, [(8, 4), (1, 4)])[4:]
            + template_set(275, [(12, 4), (1, 2)])[4:],
            data_set(275, struct.pack("!IH", 9, 7)),
            data_set(274, struct.pack("!II", 5, 6) * 2),
            sequence=10,
        )
    ],
    "biflow": [
        ipfix(
            template_set(276, [(8, 4), (12, 4), (7, 2), (11, 2), (1, 8), (2, 8), (1, 8, 29305)]),
            data_set(276, struct.pack("!IIHHQQQ", 1, 2, 3, 4, 500, 5, 600) * 2),
            sequence=13,
        )
    ],
}
AGREED = {
    "octets": "cflow.octets",
    "packets": "cflow.packets",
    "source_address": "cflow.srcaddr",
    "destination_address": "cflow.dstaddr",
    "source_port": "cflow.srcport",
    "destination_port": "cflow.dstport",
    "protocol": "cflow.protocol",
    "ingress_interface": "cflow.inputint",
}


@pytest.mark.parametrize("name", JUDGED)
def test_tshark_reads_the_same(needs: Callable[..., None], tmp_path: Path, name: str) -> None:
    needs("tshark")
    path = tmp_path / "made.pcapng"
    writer = PcapngWriter(path)
    for data in JUDGED[name]:
        writer.write(
            Datagram(ARRIVAL_NS, 0, 0xFFFF_C0000201, 4000, 2055, data), destination_port=2055
        )
    writer.close()
    rows = decode(*JUDGED[name])
    asked = [word for field in AGREED.values() for word in ("-e", field)]
    done = subprocess.run(
        ["tshark", "-n", "-r", str(path), "-d", "udp.port==2055,cflow", "-T", "fields", *asked],
        check=True, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    cells = done.stdout.rstrip("\n").split("\t")
    compared = 0
    for (ours, theirs), cell in zip(AGREED.items(), cells, strict=True):
        if name == "biflow" and ours != "octets":
            continue  # it shows the way back as a second count of the same record
        said = [part for part in cell.split(",") if part]
        mine = [str(row[ours]) for row in rows if row[ours] is not None]
        if said:
            assert sorted(mine) == sorted(said), theirs
            compared += 1
    assert compared >= (1 if name == "biflow" else 2)
