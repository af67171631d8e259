"""Flow decoding, clause by clause: messages built from the standards' tables."""

import struct

import pytest

from collectors.config import FlowDecoderSettings
from collectors.flow.decoder import FlowDecoder
from runtime.checkpoint import Snapshot
from runtime.component import Context
from telemetry.batch import Batch
from telemetry.schemas import FLOW_FIELD_BIT
from tests.support.decoding import poison
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
)
from tocsin.testing import make_context

BASIC = [(8, 4), (12, 4), (1, 4), (2, 4)]


@pytest.fixture(autouse=True)
def _poisoned_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    poison(monkeypatch)


def decoder(context: Context | None = None, **settings: object) -> FlowDecoder:
    return FlowDecoder(FlowDecoderSettings(**settings), context or make_context())  # type: ignore[arg-type]


def flows(batches: list[Batch]) -> list[Batch]:
    return [batch for batch in batches if batch.schema.name == "flow"]


def record(source: int = 1, destination: int = 2, octets: int = 300, packets: int = 4) -> bytes:
    return struct.pack("!IIII", source, destination, octets, packets)


def test_v5_sampling_stands_beside_the_counts() -> None:
    (batch,) = flows(decoder().decode(block(v5((1, 2, 300), interval=0x4000 | 100))))
    assert batch["octets"].tolist() == [300]
    assert batch["packets"].tolist() == [2]
    assert batch["sampling_rate"].tolist() == [100]


@pytest.mark.parametrize(
    ("data", "verdict", "rows"),
    [
        pytest.param(b"\x00\x05" + bytes(10), "truncated", 1, id="header-cut"),
        pytest.param(v5((1, 1, 1), count=2)[:-1], "truncated", 1, id="last-record-cut"),
        pytest.param(v5((1, 1, 1), count=55_582), "wrong_count", 2, id="count-beyond-the-standard"),
        pytest.param(v5((1, 1, 1), count=2), "wrong_count", 2, id="count-beyond-the-datagram"),
    ],
)
def test_a_bad_v5_datagram_is_counted_and_its_neighbour_survives(
    data: bytes, verdict: str, rows: int
) -> None:
    context = make_context()
    batches = flows(decoder(context).decode(block(data, v5((1, 1, 1)))))
    assert sum(batch.rows for batch in batches) == rows
    name = "collector_netflow5_datagrams_total"
    assert context.metrics.value(name, verdict=verdict) == 1
    assert context.metrics.value(name, verdict="ok") == 1


def test_a_template_counts_for_what_follows_in_the_same_message() -> None:
    message = ipfix(
        data_set(256, record(9)), template_set(256, BASIC), data_set(256, record(1) + record(3))
    )
    batches = flows(decoder().decode(block(message)))
    sources = [int(low) & 0xFF for batch in batches for low in batch["source_address_low"]]
    assert sorted(sources) == [1, 3, 9]  # the early one is decoded when its template comes


def test_a_changed_template_counts_from_there_on() -> None:
    made = decoder()
    swapped = [(12, 4), (8, 4), (1, 4), (2, 4)]
    message = ipfix(
        template_set(256, BASIC), data_set(256, record(1, 2)), template_set(256, swapped),
        data_set(256, record(1, 2)),
    )  # fmt: skip
    batches = flows(made.decode(block(message)))
    assert [int(low) & 0xFF for b in batches for low in b["source_address_low"]] == [1, 2]


def test_withdrawal_ends_a_template() -> None:
    made = decoder()
    made.decode(block(ipfix(template_set(256, BASIC))))
    made.decode(block(ipfix(template_set(256, []))))
    assert flows(made.decode(block(ipfix(data_set(256, record()))))) == []
    assert made.waiting_bytes() > 0


def test_templates_are_per_port_and_domain() -> None:
    made = decoder()
    made.decode(block(ipfix(template_set(256, BASIC), domain=1), port=1))
    assert flows(made.decode(block(ipfix(data_set(256, record()), domain=2), port=1))) == []
    assert flows(made.decode(block(ipfix(data_set(256, record()), domain=1), port=2))) == []
    assert len(flows(made.decode(block(ipfix(data_set(256, record()), domain=1), port=1)))) == 1


def test_absent_fields_are_absent_and_not_zero() -> None:
    (batch,) = flows(
        decoder().decode(block(ipfix(template_set(256, BASIC), data_set(256, record()))))
    )
    present = int(batch["fields_present"][0])
    assert present >> FLOW_FIELD_BIT["octets"] & 1
    assert not present >> FLOW_FIELD_BIT["source_port"] & 1
    assert not present >> FLOW_FIELD_BIT["sampling_rate"] & 1


@pytest.mark.parametrize(
    ("field", "body", "column", "value"),
    [
        pytest.param((1, 3), b"\x01\x00\x00", "octets", 65536, id="reduced-size"),
        pytest.param((70, 3), b"\x00\x01\x41", "mpls_top_label", 20, id="mpls-label"),
        pytest.param((58, 2), b"\x00\x64", "vlan_id", 100, id="vlan"),
        pytest.param((230, 1), b"\x04", "nat_event", 4, id="nat-event"),
        pytest.param(
            (225, 4), b"\x0a\x00\x00\x01", "post_nat_source_address_low", 0xFFFF_0A000001, id="nat"
        ),
        pytest.param((89, 1), b"\x80", "forwarding_status", 128, id="forwarding-status"),
        pytest.param((32, 2), b"\x08\x01", "destination_port", 0x0801, id="icmp-type-and-code"),
        pytest.param(
            (27, 16), b"\x20\x01" + bytes(14), "source_address_high", 0x2001 << 48, id="ipv6"
        ),
        pytest.param((85, 8), bytes(7) + b"\x09", "octets", 9, id="total-instead-of-delta"),
    ],
)
def test_elements(field: tuple[int, int], body: bytes, column: str, value: int) -> None:
    message = ipfix(template_set(300, [field, (2, 4)]), data_set(300, body + bytes(4)))
    (batch,) = flows(decoder().decode(block(message)))
    assert int(batch[column][0]) == value


def test_an_address_in_two_bytes_is_skipped_not_guessed() -> None:
    message = ipfix(
        template_set(300, [(8, 2), (1, 4)]), data_set(300, b"\x0a\x0b" + bytes(3) + b"\x07")
    )
    (batch,) = flows(decoder().decode(block(message)))
    assert int(batch["source_address_low"][0]) == 0
    assert int(batch["octets"][0]) == 7


def test_the_first_of_a_repeated_element_wins_and_a_zero_is_filled() -> None:
    message = ipfix(
        template_set(300, [(7, 2), (7, 2), (8, 4), (27, 16)]),
        data_set(300, struct.pack("!HHI", 80, 81, 0) + b"\x20\x01" + bytes(13) + b"\x05"),
    )
    (batch,) = flows(decoder().decode(block(message)))
    assert int(batch["source_port"][0]) == 80
    assert int(batch["source_address_high"][0]) == 0x2001 << 48


def test_variable_length_and_enterprise_fields_are_stepped_over() -> None:
    fields = [(8, 4), (95, 65535), (100, 4, 9999), (1, 4)]
    short = struct.pack("!I", 1) + b"\x03abc" + bytes(4) + struct.pack("!I", 11)
    long = struct.pack("!I", 2) + b"\xff\x01\x2c" + bytes(300) + bytes(4) + struct.pack("!I", 12)
    (batch,) = flows(
        decoder().decode(block(ipfix(template_set(300, fields), data_set(300, short + long))))
    )
    assert batch["octets"].tolist() == [11, 12]


def test_v9_ids_above_32767_are_no_enterprise_bit() -> None:
    message = v9(
        template_set(260, [(33002, 2), (1, 4)], version=9),
        data_set(260, b"\x00\x01" + struct.pack("!I", 5)),
    )
    (batch,) = flows(decoder().decode(block(message)))
    assert batch["octets"].tolist() == [5]


def test_zero_padding_after_the_last_set_ends_the_message() -> None:
    context = make_context()
    message = v9(template_set(260, BASIC, version=9), data_set(260, record())) + bytes(64)
    assert sum(b.rows for b in flows(decoder(context).decode(block(message)))) == 1
    assert context.metrics.value("collector_templated_datagrams_total", verdict="ok") == 1


def test_a_set_that_claims_more_than_there_is_gives_what_is_whole() -> None:
    context = make_context()
    message = ipfix(template_set(256, BASIC), data_set(256, record(1) + record(2)))
    batches = flows(decoder(context).decode(block(message[:-4])))
    assert sum(batch.rows for batch in batches) == 1
    name = "collector_templated_datagrams_total"
    assert context.metrics.value(name, verdict="length_beyond_datagram") == 1


def test_v9_uptime_stamps_survive_the_wrap_of_49_days() -> None:
    fields = [(22, 4), (21, 4), (1, 4)]
    body = struct.pack("!III", 2**32 - 1000, 500, 7)  # started before the wrap, ended after it
    (batch,) = flows(
        decoder().decode(
            block(v9(template_set(260, fields, version=9), data_set(260, body), uptime_ms=1500))
        )
    )
    start, end = int(batch["flow_start_ns"][0]), int(batch["flow_end_ns"][0])
    assert (end - start) / 1e9 == pytest.approx(1.5)
    assert end == SECONDS * 10**9 - 1_000_000_000


def test_a_wrong_exporter_clock_is_corrected() -> None:
    made = decoder()
    old = SECONDS - 7200
    message = ipfix(template_set(256, [(152, 8), (1, 4)]),
                    data_set(256, struct.pack("!QI", old * 1000, 5)), seconds=old)  # fmt: skip
    (batch,) = flows(made.decode(block(message)))
    assert abs(int(batch["export_ns"][0]) - ARRIVAL_NS) < 2 * 10**9
    assert abs(int(batch["flow_start_ns"][0]) - ARRIVAL_NS) < 2 * 10**9


@pytest.mark.parametrize(
    ("fields", "values", "rate"),
    [
        pytest.param([(34, 4)], (2048,), 2048, id="sampling-interval"),
        pytest.param([(305, 4), (306, 4)], (1, 999), 1000, id="interval-and-space"),
        pytest.param([(50, 4)], (512,), 512, id="random-interval"),
    ],
)
def test_a_rate_in_options_counts_from_there_on(
    fields: list[tuple[int, int]], values: tuple[int, ...], rate: int
) -> None:
    options = options_set(400, [(144, 4)], fields)
    said = data_set(400, struct.pack(f"!I{len(values)}I", 0, *values))
    message = ipfix(
        template_set(256, BASIC), data_set(256, record(1)), options, said, data_set(256, record(2))
    )
    batches = flows(decoder().decode(block(message)))
    assert [int(r) for b in batches for r in b["sampling_rate"]] == [0, rate]


def test_two_samplers_are_told_apart_by_id() -> None:
    options = options_set(400, [(144, 4)], [(302, 2), (34, 4)])
    table = data_set(400, struct.pack("!IHIIHI", 0, 1, 100, 0, 2, 1000))
    message = ipfix(
        options, table, template_set(256, [*BASIC, (302, 2)]),
        data_set(256, record() + b"\x00\x02" + record() + b"\x00\x01"),
    )  # fmt: skip
    (batch,) = flows(decoder().decode(block(message)))
    assert batch["sampling_rate"].tolist() == [1000, 100]


def test_an_override_by_subnet_fills_what_is_not_said() -> None:
    made = decoder(sampling_override={"192.0.2.0/24": 777, "192.0.2.1/32": 778})
    (batch,) = flows(made.decode(block(v5((1, 1, 1)))))
    assert batch["sampling_rate"].tolist() == [778]


def test_interface_names_come_as_options() -> None:
    options = options_set(400, [(10, 4)], [(82, 8)])
    message = ipfix(options, data_set(400, struct.pack("!I8s", 3, b"et-0/0/3")))
    (batch,) = [b for b in decoder().decode(block(message)) if b.schema.name == "option"]
    assert batch.texts("table") == ["interface"]
    assert batch["key"].tolist() == [3]
    assert batch.texts("name") == ["et-0/0/3"]


@pytest.mark.parametrize(
    ("numbers", "lost"),
    [
        pytest.param([0, 1, 2], 0, id="in-order"),
        pytest.param([0, 3, 4], 2, id="two-missing"),
        pytest.param([0, 2, 1, 3], 0, id="late-one-makes-up"),
        pytest.param([7_000_000, 5, 6], 0, id="restart"),
        pytest.param([2**32 - 1, 0, 1], 0, id="wrap"),
    ],
)
def test_v9_sequence_numbers_close_the_ledger(numbers: list[int], lost: int) -> None:
    made = decoder()
    made.decode(block(*(v9(template_set(260, BASIC, version=9), sequence=n) for n in numbers)))
    ledger, *_ = made.advance(ARRIVAL_NS)
    assert int(ledger["lost_wire"].sum()) == lost
    total = ledger["decoded"] + ledger["lost_kernel"] + ledger["undecodable"] + ledger["shed"]
    assert (ledger["sent"].astype(int) == total.astype(int) + ledger["lost_wire"]).all()
    assert made.advance(ARRIVAL_NS) == []


def test_templates_sampling_and_sequences_survive_a_restart() -> None:
    made = decoder()
    options = options_set(400, [(144, 4)], [(34, 4)])
    made.decode(
        block(ipfix(template_set(256, BASIC), options, data_set(400, struct.pack("!II", 0, 64))))
    )
    state = Snapshot()
    made.snapshot(state)
    again = decoder()
    again.restore(state)
    (batch,) = flows(again.decode(block(ipfix(data_set(256, record()), sequence=1))))
    assert batch["sampling_rate"].tolist() == [64]
    ledger, *_ = again.advance(ARRIVAL_NS)
    assert int(ledger["lost_wire"].sum()) == 0


def test_templates_and_held_bytes_are_bounded() -> None:
    context = make_context()
    made = decoder(context, templates_per_exporter_max=3, held_bytes_per_exporter_max=200)
    made.decode(block(*(ipfix(template_set(256 + n, BASIC)) for n in range(10))))
    assert len(made.templates) == 3
    made.decode(block(*(ipfix(data_set(999, bytes(64))) for _ in range(10))))
    assert 0 < made.waiting_bytes() <= 200
    assert context.metrics.value("collector_sets_total", reason="held_dropped") > 0
    assert context.metrics.value("collector_templates_total", result="refused") == 7
