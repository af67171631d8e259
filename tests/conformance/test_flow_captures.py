"""Every flow capture we have decodes to the records an independent walk counted and tshark decoded.

`MANIFEST.tsv` holds counts by an independent walk of the sets; `derived/*/*.tshark.json.gz` tshark's
fields. Where tshark shows less (it merges sets of one name, and has no options tables apart), what it
shows must be among what we decode.
"""

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest

from collectors.capture.reader import read_capture
from collectors.capture.report import CaptureReport
from collectors.config import FlowDecoderSettings
from collectors.datagram import blocks
from collectors.flow.decoder import FlowDecoder
from collectors.flow.templated_decoder import REVERSE
from telemetry.batch import Batch
from telemetry.identity import address_text
from telemetry.schemas import FLOW_FIELD_BIT
from tests.support.decoding import poison
from tocsin.testing import make_context

KINDS = ("netflow_v5", "netflow_v9", "ipfix", "mixed_flow")
FIELDS = {
    "octets": "octets",
    "packets": "packets",
    "protocol": "protocol",
    "srcport": "source_port",
    "dstport": "destination_port",
    "inputint": "ingress_interface",
    "outputint": "egress_interface",
    "srcaddr": "source",
    "dstaddr": "destination",
    "srcaddrv6": "source",
    "dstaddrv6": "destination",
}


@pytest.fixture(autouse=True)
def _poisoned_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    poison(monkeypatch)


def decode(*paths: Path) -> list[Batch]:
    """Return the flow batches of files that share template state."""
    settings = FlowDecoderSettings(clock_tolerance_seconds=5e9)
    decoder = FlowDecoder(settings, make_context())
    return [
        batch
        for path in paths
        for block in blocks(read_capture(path, CaptureReport()))
        for batch in decoder.decode(block)
        if batch.schema.name == "flow"
    ]


def rows_of(batches: list[Batch]) -> list[dict[str, Any]]:
    made = []
    for b in batches:
        for i in range(b.rows):
            present = int(b["fields_present"][i])
            row: dict[str, Any] = {
                name: int(b[name][i]) if present >> FLOW_FIELD_BIT[name] & 1 else None
                for name in set(FIELDS.values()) - {"source", "destination"}
            }
            for side in ("source", "destination"):
                if present >> FLOW_FIELD_BIT[f"{side}_address_low"] & 1:
                    row[side] = address_text(
                        int(b[f"{side}_address_high"][i]), int(b[f"{side}_address_low"][i])
                    )
            made.append(row)
    return made


def manifest(shared: Path) -> list[list[str]]:
    text = (shared / "captures" / "MANIFEST.tsv").read_text("utf-8")
    return [line.split("\t") for line in text.splitlines()[1:]]


def source_of(shared: Path, dump: Path, rows: list[list[str]]) -> Path:
    """Return the capture that a tshark dump was made from."""
    replay = dump.with_name(dump.name.replace(".tshark.json.gz", ".replay.pcap"))
    if replay.exists():
        return replay
    label = str(dump.relative_to(shared / "captures"))
    what = next(row[5] for row in rows if row[0] == label)
    name = re.search(r"messages?, of (.*)", what).group(1).split(",")[0].strip()  # type: ignore[union-attr]
    folder = label.removeprefix("derived/").rsplit("/", 1)[0]
    path = next(row[0] for row in rows if row[0] == f"{folder}/{name}")
    return shared / "captures" / path


def flows_in(node: Any, found: list[dict[str, Any]]) -> None:
    """Collect tshark's flow records from its nested tree."""
    if isinstance(node, dict):
        for key, value in node.items():
            if re.match(r"(Flow|pdu) \d+", key):
                found += [
                    v
                    for v in (value if isinstance(value, list) else [value])
                    if isinstance(v, dict)
                ]
            flows_in(value, found)
    elif isinstance(node, list):
        for value in node:
            flows_in(value, found)


def test_tshark_agrees_on_every_record_it_shows(shared: Path) -> None:
    rows = manifest(shared)
    compared = 0
    for kind in KINDS:
        for dump in sorted((shared / "captures" / "derived" / kind).rglob("*.tshark.json.gz")):
            wanted: list[dict[str, Any]] = []
            flows_in(json.loads(gzip.decompress(dump.read_bytes())), wanted)
            ours = rows_of(decode(source_of(shared, dump, rows)))
            for flow in wanted:
                said = {
                    FIELDS[name.removeprefix("cflow.")]: int(v) if v.isdigit() else v
                    for name, v in flow.items()
                    if name.removeprefix("cflow.") in FIELDS and isinstance(v, str)
                }
                if not said or any("scope" in name.lower() for name in flow):
                    continue  # options data: reference tables, not flows
                if said.get("protocol") in (1, 58):
                    said.pop("destination_port", None)  # ICMP: type and code stand there with us
                match = next(
                    (row for row in ours if all(row.get(name) == v for name, v in said.items())),
                    None,
                )
                assert match is not None, f"{dump.name}: tshark has {said}, we do not"
                ours.remove(match)
                compared += 1
    assert compared > 250


def test_counts_agree_with_an_independent_walk(shared: Path) -> None:
    """Files of one group (templates apart from data) are read together, templates first."""
    rows = manifest(shared)
    groups: dict[str, tuple[list[Path], int]] = {}
    for row in rows:
        path, facts = row[0], dict(re.findall(r"(\w+)=(\d+)", row[7].split("[")[0]))
        if not path.startswith(KINDS) or path.endswith((".json", ".out", ".conf")):
            continue
        if "records" not in facts and "templates" not in facts:
            continue
        name = Path(path).name
        group = path
        if path.endswith((".dat", ".bin")):
            stem = re.sub(r"_(opttpl|tplopt|tpl|data|template|dpi)\w*\.(dat|bin)$", "", name)
            group = str(
                Path(path).parent / (Path(path).parent.name if "telegraf" in path else stem)
            )
        files, count = groups.setdefault(group, ([], 0))
        files.append(shared / "captures" / path)
        groups[group] = (files, count + int(facts.get("records", 0)))
    wrong = []
    for group, (files, count) in sorted(groups.items()):
        if "akvorado" in group or "ipfix-bmp" in group or "pcap_processing" in group:
            continue  # there data comes before its template, and we decode it later: see below
        files.sort(key=lambda p: (not re.search(r"tpl|template", p.name), p.name))
        # Biflow records (RFC 5103) give a second row for the way back.
        got = sum(b.rows for b in decode(*files) if not b.source.endswith(REVERSE))
        if got != count:
            wrong.append(f"{group}: {got}, counted {count}")
    assert wrong == []
    assert len(groups) > 30


@pytest.mark.parametrize(
    ("path", "records", "at_once"),
    [
        ("ipfix/traffic-reproducer/pcap_processing/ipfix-bmp.pcap", 47, 33),
        ("ipfix/traffic-reproducer/pcap_processing/ipfix-vmware.pcap", 1317, 1039),
        ("netflow_v9/akvorado/data+templates.pcap", 21, 10),
    ],
)
def test_data_before_its_template_is_decoded_when_it_comes(
    shared: Path, path: str, records: int, at_once: int
) -> None:
    got = sum(batch.rows for batch in decode(shared / "captures" / path))
    assert got == records > at_once


@pytest.mark.parametrize(
    ("path", "rate"),
    [
        ("ipfix/logstash-codec-netflow/ipfix.dat", 1),
        ("netflow_v9/akvorado/data+templates.pcap", 100),
    ],
)
def test_sampling_rates_are_found(shared: Path, path: str, rate: int) -> None:
    rates = {int(r) for b in decode(shared / "captures" / path) for r in b["sampling_rate"]}
    assert rate in rates


def test_a_rate_by_sampler_id_from_options(shared: Path) -> None:
    folder = shared / "captures" / "netflow_v9" / "akvorado"
    names = ("options-template.pcap", "options-data.pcap", "template.pcap", "data.pcap")
    rates = [int(r) for b in decode(*(folder / n for n in names)) for r in b["sampling_rate"]]
    assert rates == [30000] * 4


def test_the_same_template_id_in_two_domains(shared: Path) -> None:
    name = "ipfix/netgauze-pmacct/100-IPFIXv10-CISCO/traffic-00.pcap"
    batches = decode(shared / "captures" / name)
    domains = {int(d) for b in batches for d in b["observation_domain_id"]}
    assert sum(b.rows for b in batches) == 12
    assert len(domains) == 2
