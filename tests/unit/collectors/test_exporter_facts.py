"""What exporters send is told once for each, and again when it changes."""

import json
import struct
from typing import Any

from collectors.config import FlowDecoderSettings
from collectors.flow.decoder import FlowDecoder
from runtime.checkpoint import Snapshot
from tests.support.flow_messages import (
    ARRIVAL_NS,
    block,
    data_set,
    ipfix,
    options_set,
    template_set,
)
from tocsin.testing import make_context
from tocsin.testing.rows import rows_of

FIELDS = [(8, 4), (12, 4), (1, 4), (2, 4)]


def decoder() -> FlowDecoder:
    return FlowDecoder(FlowDecoderSettings(), make_context())


def told(made: FlowDecoder) -> list[tuple[int, dict[str, Any]]]:
    """Return (last octet of the exporter, what it sends)."""
    rows = rows_of(made.advance(ARRIVAL_NS), "option")
    assert {row["table"] for row in rows} <= {"exporter"}
    return [(row["exporter_address_low"] & 255, json.loads(row["name"])) for row in rows]


def facts(
    templates: int = 1, *unread: str, rates: tuple[int, ...] = (), in_records: bool = False
) -> Any:
    return {
        "templates": templates, "unread": len(unread), "unread_first": list(unread),
        "rates": list(rates), "rate_in_records": in_records,
    }  # fmt: skip


def test_templates_and_elements_without_a_column() -> None:
    made = decoder()
    for host, fields in (
        (2, FIELDS), (1, [*FIELDS, (34, 4), (12235, 2, 9), (210, 4), (85, 8), (154, 65535), (455, 65535)]),
    ):  # fmt: skip
        made.decode(block(ipfix(template_set(256, fields)), exporter=f"192.0.2.{host}"))
    assert told(made) == [
        (1, facts(1, "0:154", "0:455", "9:12235", in_records=True)),
        (2, facts()),
    ]
    made.decode(block(ipfix(template_set(256, FIELDS), sequence=1), exporter="192.0.2.2"))
    assert told(made) == []  # the same again
    made.decode(block(ipfix(template_set(257, FIELDS), sequence=1), exporter="192.0.2.2"))
    assert told(made) == [(2, facts(2))]


def test_rates_of_options_data() -> None:
    made = decoder()
    options = options_set(300, [(302, 2)], [(305, 4), (306, 4)])
    made.decode(block(ipfix(options, data_set(300, struct.pack("!HII", 7, 1, 999)))))
    assert told(made) == [(1, facts(rates=(1000,)))]
    made.decode(block(ipfix(data_set(300, struct.pack("!HII", 7, 1, 999)), sequence=1)))
    assert told(made) == []


def test_after_a_restart_it_is_told_again() -> None:
    made = decoder()
    made.decode(block(ipfix(template_set(256, FIELDS))))
    assert told(made) == [(1, facts())]
    state = Snapshot()
    made.snapshot(state)
    again = decoder()
    again.restore(state)
    assert told(again) == [(1, facts())]
