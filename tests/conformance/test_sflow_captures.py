"""sFlow captures against tshark's field-by-field decode (shared/captures/derived)."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from collectors.capture.reader import read_capture
from collectors.capture.report import CaptureReport
from collectors.config import FlowDecoderSettings
from collectors.datagram import blocks
from collectors.flow.sflow5 import SflowDecoder
from collectors.flow.sflow_kernels import COUNTER_ROWS
from telemetry.batch import Batch
from telemetry.identity import address_text
from tests.support.decoding import poison
from tocsin.testing import make_context

CAPTURES = [
    "akvorado/data-1140",
    "akvorado/data-icmpv4",
    "akvorado/data-icmpv6",
    "akvorado/data-local-interface",
    "akvorado/data-multiple-interfaces",
    "akvorado/data-sflow-ipv4-data",
    "akvorado/data-sflow-raw-ipv4",
    "ndpi/sflow",
    "tcpdump/sflow_multiple_counter_30_pdus",
]
IF_LOCAL = 0x3FFFFFFF
COUNTERS = {
    "in_octets": "sflow_245.ifinoct",
    "in_unicast_packets": "sflow_245.ifinpkt",
    "in_multicast_packets": "sflow_245.ifinmcast",
    "in_broadcast_packets": "sflow_245.ifinbcast",
    "in_discards": "sflow_245.ifindisc",
    "in_errors": "sflow_245.ifinerr",
    "out_octets": "sflow_245.ifoutoct",
    "out_unicast_packets": "sflow_245.ifoutpkt",
    "out_multicast_packets": "sflow_245.ifoutmcast",
    "out_broadcast_packets": "sflow_245.ifoutbcast",
    "out_discards": "sflow_245.ifoutdisc",
    "out_errors": "sflow_245.ifouterr",
}


@pytest.fixture(autouse=True)
def _poisoned_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    poison(monkeypatch)


def decode(path: Path) -> tuple[list[Batch], SflowDecoder]:
    decoder = SflowDecoder(FlowDecoderSettings(), make_context())
    made = [
        b for block in blocks(read_capture(path, CaptureReport())) for b in decoder.decode(block)
    ]
    return made, decoder


def find(tree: Any, key: str) -> Iterator[Any]:
    """Yield each value under `key`, in document order."""
    if isinstance(tree, dict):
        for name, value in tree.items():
            if name == key:
                yield from value if isinstance(value, list) else [value]
            else:
                yield from find(value, key)
    elif isinstance(tree, list):
        for part in tree:
            yield from find(part, key)


def samples(tree: Any, holding: str) -> Iterator[dict[str, Any]]:
    """Yield each innermost object that has the key `holding`, in document order."""
    if isinstance(tree, dict):
        if holding in tree:
            yield tree
            return
        for value in tree.values():
            yield from samples(value, holding)
    elif isinstance(tree, list):
        for part in tree:
            yield from samples(part, holding)


def number(value: str) -> int:
    return int(value, 0)


def column(batches: list[Batch], name: str) -> list[int]:
    return [v for b in batches if b.schema.name == "flow" for v in b[name].tolist()]


@pytest.mark.parametrize("name", CAPTURES)
def test_flow_samples_agree_with_tshark(shared: Path, name: str) -> None:
    golden = json.loads(
        gzip.decompress((shared / f"captures/derived/sflow/{name}.tshark.json.gz").read_bytes())
    )
    batches, _ = decode(shared / f"captures/sflow/{name}.pcap")
    wanted = list(samples(golden, "sflow.flow_sample.sampling_rate"))
    assert column(batches, "sampling_rate") == [
        number(s["sflow.flow_sample.sampling_rate"]) for s in wanted
    ]
    names = ("sflow.flow_sample.input_interface", "sflow.flow_sample.input_interface_value")
    into = [number(next(v for name in names for v in find(s, name))) for s in wanted]
    # The box itself is no interface (akvorado issue 153): 0, as IPFIX has it.
    assert column(batches, "ingress_interface") == [0 if i == IF_LOCAL else i for i in into]
    lengths = [next(find(s, "sflow_245.header.frame_length"), None) for s in wanted]
    for ours, theirs in zip(column(batches, "octets"), lengths, strict=True):
        assert theirs is None or ours == number(theirs)
    high, low = column(batches, "source_address_high"), column(batches, "source_address_low")
    ours_text = [address_text(h, lo) for h, lo in zip(high, low, strict=True)]
    for ours_source, sample in zip(ours_text, wanted, strict=True):
        headers = list(find(sample, "sflow_245.header_tree"))
        if not headers:
            continue
        source = next(find(headers, "ip.src"), None) or next(find(headers, "ipv6.src"), None)
        assert source is None or ours_source == source


@pytest.mark.parametrize("name", CAPTURES)
def test_interface_counters_agree_with_tshark(shared: Path, name: str) -> None:
    golden = json.loads(
        gzip.decompress((shared / f"captures/derived/sflow/{name}.tshark.json.gz").read_bytes())
    )
    batches, _ = decode(shared / f"captures/sflow/{name}.pcap")
    wanted = [
        (field, number(record[theirs]))
        for record in samples(golden, "sflow_245.ifindex")
        for field, theirs in sorted(COUNTERS.items(), key=lambda pair: COUNTER_ROWS.index(pair[0]))
        # All ones: the agent does not keep this counter, and no sample is made of it.
        if number(record[theirs]) not in (0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF)
    ]
    named: dict[int, str] = {}
    for batch in batches:
        if batch.schema.name == "series":
            keys = batch.texts("key")
            named.update(zip(batch["series_id"].tolist(), keys, strict=True))
    ours = [
        (named[series].rpartition("metric=")[2].partition(",")[0], int(value))
        for batch in batches
        if batch.schema.name == "sample"
        for series, value in zip(batch["series_id"].tolist(), batch["value"].tolist(), strict=True)
    ]
    assert sorted(ours) == sorted(wanted)  # tshark's JSON puts samples of one name together


def test_discarded_packet_sample_of_an_unknown_record(shared: Path) -> None:
    """sFlow discard structures, format 5: one row, marked as dropped; its record 1036 is skipped."""
    path = shared / "captures/sflow/telegraf/sflow_issue_15375/sflow_drop_1036.bin"
    batches, _ = decode(path)
    assert column(batches, "forwarding_status") == [128]
    assert column(batches, "ingress_interface") == [1]
    assert column(batches, "egress_interface") == [2]


def test_ledger_of_a_capture_closes(shared: Path) -> None:
    _, decoder = decode(shared / "captures/sflow/ndpi/sflow.pcap")
    (ledger,) = decoder.advance(1)
    assert ledger["datagrams"].tolist() == [9]
    assert ledger["lost_wire"].tolist() == [0]
    assert ledger["sent"].tolist() == ledger["decoded"].tolist() == [9]
