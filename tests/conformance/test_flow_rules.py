"""FlowSpec: ExaBGP writes rules from their words, we read its octets and say the same words; tshark reads them."""

import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alerting.causes.flowspec import ICMP6, TCP, UDP, Filter
from collectors.bmp.flow_rules import read_rules
from telemetry import wire
from tests.support.bmp_messages import (
    add_path,
    as_path,
    attribute,
    chunks,
    initiation,
    make_decoder,
    monitoring,
    open_message,
    peer_down,
    peer_up,
    prefix,
    reach,
    unreach,
    update,
    usual,
)
from tests.support.frames_on_wire import ipv4, pcap, tcp
from tests.support.link_state_messages import address, node_nlri
from tocsin.testing.rows import rows_of

BASE = attribute(1, b"\0") + attribute(2, as_path(64500, 64501))
DNS = b"\x81\x11\x06\x81\x35"  # the end of protocol udp; source-port =53
RULE = b"\x0c\1\x20\xc6\x33\x64\7\3" + DNS
TEXT = "destination 198.51.100.7/32; protocol udp; source-port =53"
EXABGP = """neighbor 10.0.0.2 {{
    router-id 10.0.0.1; local-address 10.0.0.1; local-as 65001; peer-as 65002;
    family {{ ipv4 flow; ipv6 flow; }}
    flow {{ {} }}
}}"""
# What alerts propose.
PROPOSED = [
    Filter(destination="198.51.100.7", protocol=UDP, source_ports=(123,), octets_least=351),
    Filter(destination="198.51.100.0/24", protocol=TCP, destination_ports=(80, 443), opening=True, limit=125_000),
    Filter(source="2001:db8::1", destination="2001:db8::2", protocol=ICMP6, icmp_type=128),
    Filter(source="240.0.0.0/4"),
    Filter(source="fc00::/7", destination="2001:db8::2", protocol=89),
]  # fmt: skip
# (what is matched, what is done), as ExaBGP takes it and we say it.
RULES = [
    *(
        (str(one).split("match { ")[1].split("; }")[0], str(one).split("then { ")[1].split(";")[0])
        for one in PROPOSED
    ),
    (TEXT, "discard"),
    ("destination 198.51.100.0/24; protocol tcp; destination-port =80; tcp-flags [ syn&!ack ]",
     "rate-limit 125000"),
    ("source 192.0.2.0/25; protocol [ tcp udp =89 ]; port [ =25 =443 >=8000&<=8100 ]", "rate-limit 1000 packets"),
    ("destination 0.0.0.0/0; icmp-type =8; icmp-code =0", "redirect 64500:100"),
    ("protocol >6&!=17; packet-length [ >=100&<=200 >65000 ]; dscp =46", "mark 63"),
    ("destination 198.51.100.7/32; tcp-flags [ !ack&=syn+ece !=fin ]",
     "mark 8; redirect 4200000000:9"),
    ("source 192.0.2.1/32; fragment [ is-fragment !first-fragment ]", "action sample-terminal; mark 0"),
    ("source 192.0.2.1/32; fragment [ dont-fragment+last-fragment ]", "action sample"),
    ("destination 192.0.2.8/32", "redirect 203.0.113.5"),
    ("destination 192.0.2.9/32", "redirect-to-nexthop"),
    ("destination 2001:db8::1/128; next-header tcp; destination-port =22", "discard"),
    ("destination 2001:db8::/32; source ::1234:5678:9a00:0/104/64; flow-label >1000", "rate-limit 9600"),
    ("source 2001:db8:7::/48; icmp-type =128; traffic-class =10", "mark 12"),
]  # fmt: skip


@pytest.fixture(scope="module")
def written() -> list[bytes]:
    """UPDATEs with the rules above, their NLRI and attributes written by ExaBGP."""
    from exabgp.application import main  # first: it sets up what the others need
    from exabgp.configuration.configuration import Configuration
    from exabgp.environment import getenv
    from exabgp.logger import log

    assert main
    log.init(getenv())
    routes = " ".join(
        f"route r{n} {{ match {{ {match}; }} then {{ {done}; }} }}"
        for n, (match, done) in enumerate(RULES)
    )
    configuration = Configuration([EXABGP.format(routes)], text=True)
    assert configuration.reload(), configuration.error
    (neighbor,) = configuration.neighbors.values()
    made = []
    for change in neighbor.changes[: len(RULES)]:  # it has them twice
        afi, safi, hop = int(change.nlri.afi), int(change.nlri.safi), str(change.nlri.nexthop)
        hop_octets = address(hop) if hop[0].isdigit() else b""
        communities = [
            change.attributes[code].pack(None) for code in (16, 25) if code in change.attributes
        ]
        made.append(
            update(
                BASE + b"".join(communities) + reach(afi, safi, hop_octets, change.nlri.pack_nlri())
            )
        )
    return made


def heard(*messages: bytes, **up: Any) -> tuple[list[dict[str, Any]], Any]:
    """Return the rows of route of UPDATEs, and the decoder's counts."""
    decoder = make_decoder()
    parts = [initiation() + peer_up(**up), *map(monitoring, messages)]
    return rows_of(decoder.decode(chunks(parts)), "route"), decoder.metrics.value  # type: ignore[attr-defined]


def test_what_exabgp_writes_is_read_in_its_own_words(written: list[bytes]) -> None:
    rows, value = heard(*written)
    assert [(row["flow_rule"], row["flow_actions"]) for row in rows] == RULES
    assert {row["change"] for row in rows} == {1}
    assert len({row["route_key"] for row in rows}) == len(RULES)
    assert value("collector_bmp_updates_total", verdict="flow_rules") == len(RULES)
    assert value("collector_bmp_flow_rules_malformed_total") == 0


def test_opening_a_connection_is_syn_and_not_ack(written: list[bytes]) -> None:
    """RFC 8955 4.2.2.9: any bit of SYN; and, the end of the list, not any bit of ACK."""
    opening = [one for one in written if b"\x09\x00\x02\xc2\x10" in one]
    assert len(opening) == sum("syn&!ack" in match for match, _ in RULES) >= 2


def test_tshark_reads_the_same(
    written: list[bytes], needs: Callable[..., None], tmp_path: Path
) -> None:
    needs("tshark")
    path = tmp_path / "rules.pcap"
    frames = [ipv4(tcp(40_000 + n, 179, 0x18) + m, protocol=6) for n, m in enumerate(written)]
    path.write_bytes(pcap(frames, 101))
    fields = ("filter_type", "dst_prefix_filter", "src_prefix_filter")
    asked = [word for name in fields for word in ("-e", f"bgp.flowspec_nlri.{name}")]
    done = subprocess.run(
        ["tshark", "-n", "-r", str(path), "-T", "fields", *asked],
        check=True, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    numbers = {
        "destination": 1, "source": 2, "protocol": 3, "next-header": 3, "port": 4, "destination-port": 5,
        "source-port": 6, "icmp-type": 7, "icmp-code": 8, "tcp-flags": 9, "packet-length": 10, "dscp": 11,
        "traffic-class": 11, "fragment": 12, "flow-label": 13,
    }  # fmt: skip
    for (match, _), line in zip(RULES, done.stdout.split("\n"), strict=False):
        parts = dict(part.split(" ", 1) for part in match.split("; "))
        types, destination, source = line.split("\t")
        known = [name for name in parts if name != "flow-label"]  # tshark 4.0 does not know it
        assert types.split(",") == [str(numbers[name]) for name in known], match
        if "::" not in match:
            for name, said in (("destination", destination), ("source", source)):
                assert said == parts.get(name, "").partition("/")[0], match


def test_a_rule_that_is_done_otherwise_and_goes_is_the_same_rule() -> None:
    limit = attribute(16, b"\x80\6\0\0\x47\xf4\x24\0", 0xC0)
    other = attribute(16, b"\x80\6\0\0\0\0\0\0", 0xC0)
    rows, _ = heard(
        update(BASE + limit + reach(1, 133, b"", RULE)),
        update(BASE + limit + reach(1, 133, b"", RULE)),
        update(BASE + other + reach(1, 133, b"", RULE)),
        update(unreach(1, 133, RULE)),
        update(unreach(1, 133, RULE)),
    )
    assert [row["change"] for row in rows] == [1, 2, 3, 5, 6]
    assert [row["flow_actions"] for row in rows] == [
        "rate-limit 125000", "rate-limit 125000", "discard", "", "",
    ]  # fmt: skip
    assert {row["flow_rule"] for row in rows} == {TEXT}
    assert len({row["route_key"] for row in rows}) == 1
    assert [row["withdrawn"] for row in rows] == [0, 0, 0, 1, 1]
    assert {(row["prefix_length"], row["safi"], row["origin_as"]) for row in rows[:3]} == {
        (32, 133, 64501)
    }


def test_several_rules_in_a_message_those_withdrawn_first_and_path_ids_as_agreed() -> None:
    other = b"\x03\x03\x81\x01"
    both = update(BASE + reach(1, 133, b"", RULE + other) + unreach(1, 133, b"\x03\x03\x81\x06"))
    rows, _ = heard(both)
    assert [(row["withdrawn"], row["flow_rule"]) for row in rows] == [
        (1, "protocol tcp"), (0, TEXT), (0, "protocol icmp"),
    ]  # fmt: skip
    ids = b"".join(bytes((0, 0, 0, n)) + one for n, one in enumerate((RULE, other), 1))
    rows, _ = heard(
        update(BASE + reach(1, 133, b"", ids)),
        sent=open_message(64999, add_path(1, 1, 133)),
        received=open_message(64500, add_path(2, 1, 133)),
    )
    assert [(row["path_id"], row["flow_rule"]) for row in rows] == [
        (1, TEXT), (2, "protocol icmp"),
    ]  # fmt: skip


def test_two_encodings_of_a_rule_are_one() -> None:
    wide = b"\x0e\1\x20\xc6\x33\x64\7\3\x91\0\x11\6\x91\0\x35"
    long = b"\xf0\x0d\1\x20\xc6\x33\x64\7\3\x81\x11\x06\x91\0\x35"
    rows, _ = heard(*(update(BASE + reach(1, 133, b"", one)) for one in (RULE, wide, long)))
    assert [row["flow_rule"] for row in rows] == [TEXT] * 3
    assert len({row["route_key"] for row in rows}) == 1


@pytest.mark.parametrize(
    ("octets", "why"),
    [
        pytest.param(b"\x05\3\x81\6", "cut_off", id="longer than the list"),
        pytest.param(b"\xf0", "cut_off", id="half a length"),
        pytest.param(b"\0", "empty", id="no component"),
        pytest.param(b"\6\3\x81\6\3\x81\x11", "order", id="a component twice"),
        pytest.param(b"\3\x0d\x81\1", "component", id="a flow label in IPv4"),
        pytest.param(b"\3\x63\x81\1", "component", id="nobody knows it"),
        pytest.param(b"\7\1\x21\xc6\x33\x64\7\0", "prefix", id="33 bits"),
        pytest.param(b"\4\1\x20\xc6\x33", "cut_off", id="half a prefix"),
        pytest.param(b"\3\5\x91\0", "operator", id="half a value"),
        pytest.param(b"\3\5\x01\x50", "operator", id="a list without an end"),
    ],
)
def test_what_cannot_be_told_is_counted_by_its_reason(octets: bytes, why: str) -> None:
    good = b"\x03\x03\x81\x06"
    rows, value = heard(update(BASE + reach(1, 133, b"", good + octets)))
    assert [row["flow_rule"] for row in rows] == ["protocol tcp"]  # what is beside it is read
    assert value("collector_bmp_flow_rules_malformed_total", reason=why) == 1
    rows, value = heard(update(BASE + reach(1, 133, b"", octets)))
    assert rows == []
    assert value("collector_bmp_updates_total", verdict="malformed") == 1


def test_what_a_message_makes_of_many_actions_and_long_rules_is_bounded() -> None:
    """One of 64 KB was 824 MB."""
    targets = b"".join(b"\x80\x08\xff\xff" + struct.pack("!I", n % 900) for n in range(4000))
    rules = b"".join(bytes((3, 3, 0x81, n % 256)) for n in range(8000))
    message = update(BASE + attribute(16, targets, 0xC0) + reach(1, 133, b"", rules))
    made = make_decoder().decode(chunks([initiation() + peer_up() + monitoring(message)]))
    (batch,) = (batch for batch in made if batch.schema.name == "route")
    assert batch.rows == 8000
    (done,) = batch.dictionaries["flow_actions"]
    assert done.startswith("redirect 65535:0; redirect 65535:1; ")
    assert done.endswith(" and 884 more")
    assert len(wire.encode(batch)) < 3 << 20
    swapped = targets.replace(struct.pack("!I", 899), struct.pack("!I", 999))
    other = update(BASE + attribute(16, swapped, 0xC0) + reach(1, 133, b"", rules[:4]))
    assert read_rules(other).actions == done
    assert read_rules(other).way != read_rules(message).way  # all count, not those that are said


def test_a_rule_longer_than_anybody_reads_is_cut_and_still_another_one() -> None:
    long = b"\x09" + b"\x00\xff" * 1000
    first, second = (b"\xf7\xd3" + long + bytes((0x80, last)) for last in (1, 2))
    rows, value = heard(update(BASE + reach(1, 133, b"", first + second)))
    texts = {row["flow_rule"] for row in rows}
    assert {len(text) for text in texts} == {4096 + len(" and more")}
    assert len(texts) == 1
    assert len({row["route_key"] for row in rows}) == 2
    assert value("collector_bmp_flow_rules_malformed_total") == 0


def test_rules_beside_routes_and_other_families_beside_either() -> None:
    routes = prefix("198.51.100.0/24")
    mixed = update(
        usual() + reach(1, 133, b"", RULE) + unreach(2, 1, prefix("2001:db8::/32")), routes
    )
    odd = update(usual() + reach(1, 5, bytes(4), b"\1"), routes)  # multicast VPN
    rows, value = heard(mixed, odd, update(usual(), routes))
    assert [(row["safi"], row["withdrawn"], row["flow_rule"]) for row in rows] == [
        (1, 1, ""), (1, 0, ""), (133, 0, TEXT), (1, 0, ""), (1, 0, ""),
    ]  # fmt: skip
    assert value("collector_bmp_updates_total", verdict="ok") == 3
    assert value("collector_bmp_left_beside_total") == 1
    beside = update(usual() + reach(16388, 71, bytes(4), node_nlri("10.0.0.1")), routes)
    decoder = make_decoder()
    made = decoder.decode(chunks([initiation() + peer_up() + monitoring(beside)]))
    assert [row["safi"] for row in rows_of(made, "route")] == [1]
    assert [row["table"] for row in rows_of(made, "option")][-1] == "link-state"
    assert decoder.metrics.value("collector_bmp_left_beside_total") == 0  # type: ignore[attr-defined]


def test_path_ids_of_a_session_picked_up_in_the_middle() -> None:
    for numbers in ((7, 8), (0x21000000, 0x0300ABCD)):
        ids = b"".join(
            struct.pack("!I", n) + one
            for n, one in zip(numbers, (RULE, b"\3\3\x81\1"), strict=True)
        )
        told = [monitoring(update(BASE + reach(1, 133, b"", one))) for one in (ids, RULE)]
        rows = rows_of(make_decoder().decode(chunks([initiation(), *told])), "route")
        assert [(row["path_id"], row["flow_rule"]) for row in rows] == [
            (numbers[0], TEXT), (numbers[1], "protocol icmp"), (0, TEXT),
        ]  # fmt: skip


def test_a_run_of_messages_is_one_batch_and_keeps_its_place() -> None:
    def rule(number: int) -> bytes:
        return monitoring(update(BASE + reach(1, 133, b"", bytes((3, 3, 0x81, number)))))

    route = monitoring(update(usual(), prefix("198.51.100.0/24")))
    wrong = monitoring(update(BASE + reach(1, 133, b"", b"\3\x63\x81\1")))
    runs = [*map(rule, range(9)), wrong, rule(9), route, *map(rule, range(5)), route]
    made = make_decoder().decode(chunks([initiation() + peer_up() + b"".join(runs)]))
    routes = [batch for batch in made if batch.schema.name == "route"]
    assert [batch.rows for batch in routes] == [10, 1, 5, 1]
    assert [row["change"] for row in rows_of(routes, "route")] == [1] * 11 + [2] * 6
    many = b"".join(rule(n % 256) for n in range(4000))
    made = make_decoder().decode(chunks([initiation() + peer_up() + many]))
    rows = [batch.rows for batch in made if batch.schema.name == "route"]
    assert sum(rows) == 4000
    assert len(rows) < 8


def test_impossible_offsets_of_ipv6_prefixes() -> None:
    for octets in (b"\4\1\x40\x41\0", b"\4\1\x40\x40\0", b"\4\1\x81\0\0"):
        assert read_rules(update(BASE + reach(2, 133, b"", octets))).malformed == ["prefix"]
    (rule,) = read_rules(update(BASE + reach(2, 133, b"", b"\3\1\0\0"))).announced
    assert rule.match == "destination ::/0"


def test_wrong_attributes_withdraw_and_a_peer_that_falls_takes_its_rules_along() -> None:
    without = attribute(1, b"\0") + reach(1, 133, b"", RULE)  # no AS path: RFC 7606 section 3d
    rows, _ = heard(update(BASE + reach(1, 133, b"", RULE)), update(without))
    assert [row["withdrawn"] for row in rows] == [0, 1]
    decoder = make_decoder()
    told = [
        monitoring(update(BASE + reach(1, 133, b"", RULE))), peer_down(), peer_up(),
        monitoring(update(BASE + reach(1, 133, b"", RULE))),
    ]  # fmt: skip
    rows = rows_of(decoder.decode(chunks([initiation() + peer_up(), *told])), "route")
    assert [(row["withdrawn"], row["change"]) for row in rows] == [(0, 1), (2, 0), (0, 1)]


def test_end_of_rib_of_rules_is_one() -> None:
    _, value = heard(update(BASE + reach(1, 133, b"", RULE)), update(unreach(1, 133)))
    assert value("collector_bmp_updates_total", verdict="end_of_rib") == 1
