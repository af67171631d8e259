"""The syslog decoder: clocks, shedding, counts, alarms, patterns told, ledger, bounds, restart."""

import json
from typing import Any

import numpy as np
import pytest

from collectors.syslog.events import find, rules, rules_of_id
from runtime.checkpoint import Snapshot
from telemetry.errors import ConfigError
from telemetry.foreign_alarm import foreign_alarm_id
from telemetry.x733 import SEVERITIES
from tests.support.syslog_messages import (
    ARRIVAL_NS,
    SECOND,
    SYSLOG_LINES,
    block,
    decode,
    lines,
    make_syslog,
)
from tocsin.demo.happenings import Happenings
from tocsin.demo.network import load_demo_network
from tocsin.demo.syslog_lines import SyslogLines
from tocsin.demo.traffic import Fault
from tocsin.testing.rows import rows_of

HOUR = 3600 * SECOND


# ---- clocks ----------------------------------------------------------------------------------------


def test_a_host_keeps_its_zone_until_three_messages_say_another() -> None:
    decoder, context = make_syslog()

    def at(hours: float, second: int) -> int:
        """Send a message whose clock is so many hours ahead; return what its time is off by."""
        arrival = ARRIVAL_NS + second * SECOND
        clock = (arrival + round(hours * 3600) * SECOND) // SECOND
        stamp = np.datetime64(clock, "s").item().strftime("%b %d %H:%M:%S")
        (row,) = rows_of(decoder.decode(block(f"<13>{stamp} h a: t", arrival_ns=arrival)), "log")
        assert row["arrival_ns"] == arrival
        return int(row["time_ns"] - arrival) // SECOND

    assert at(2, 0) == 0  # the first says it at once
    assert at(2.01, 10) == 36
    assert [at(0, 20), at(0, 30)] == [0, 0]  # doubted: arrival stands
    assert at(0.01, 40) == 36  # believed again, in UTC
    counts = {
        name: context.metrics.value("collector_syslog_times_total", clock=name)
        for name in ("believed", "shifted", "doubted", "absent")
    }
    assert counts == {"believed": 1, "shifted": 2, "doubted": 2, "absent": 0}


@pytest.mark.parametrize("zone", ["+02:00", "Europe/Vienna", "CEST"])
def test_zones_by_subnet(zone: str) -> None:
    """On 21 September Vienna is two hours ahead; a message's own zone counts more."""
    decoder, context = make_syslog(zones={"192.0.2.0/24": zone, "192.0.0.0/8": "-05:00"})
    made = decoder.decode(
        block("<13>Sep 21 16:13:21 h a: t", "<13>2026-09-21T14:13:22Z h2 a: t", sender="192.0.2.7")
    )
    assert [row["time_ns"] - ARRIVAL_NS for row in rows_of(made, "log")] == [SECOND, 2 * SECOND]
    made = decoder.decode(block("<13>Sep 21 09:13:23 h3 a: t", sender="192.9.9.9"))
    assert rows_of(made, "log")[0]["time_ns"] - ARRIVAL_NS == 3 * SECOND
    assert context.metrics.value("collector_syslog_times_total", clock="believed") == 3


@pytest.mark.parametrize(
    ("zones", "said"),
    [({"192.0.2.0/33": "UTC"}, "no subnet"), ({"192.0.2.0/24": "Mars/Base"}, "is no zone")],
)
def test_zones_that_are_none_are_refused(zones: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        make_syslog(zones=zones)


# ---- shedding --------------------------------------------------------------------------------------


def test_debug_is_shed_first_and_alarms_never() -> None:
    decoder, context = make_syslog(lines_per_second_max=100)
    flood = [f"<{8 + n % 8}>Sep 21 14:13:20 h a: line {n}" for n in range(400)]
    alarm = (
        "<191>521: r1: Sep 21 14:13:20.100: %LINK-3-UPDOWN: Interface Gi0/1, changed state to down"
    )
    made = decoder.decode(block(*flood, alarm))
    kept = [row["severity"] for row in rows_of(made, "log")]
    by_severity = [kept.count(severity) for severity in range(8)]
    shed = [
        int(context.metrics.value("collector_syslog_shed_total", severity=str(s))) for s in range(8)
    ]
    assert [a + b for a, b in zip(by_severity, shed, strict=True)] == [50] * 7 + [51]
    assert by_severity[7] < by_severity[6] < by_severity[4] <= by_severity[0]
    assert sum(by_severity) == 101
    assert [row["kind"] for row in rows_of(made, "alarm")] == ["linkDown"]
    # The ledger and the counts hold what was shed too.
    told = decoder.advance(ARRIVAL_NS + 2 * SECOND)
    (ledger,) = rows_of(told, "ledger")
    assert (ledger["sent"], ledger["decoded"], ledger["shed"]) == (401, 101, 300)
    assert sum(row["value"] for row in rows_of(told, "sample")) >= 401


def test_the_next_second_has_room_again() -> None:
    decoder, _ = make_syslog(lines_per_second_max=10)
    for second in range(3):
        made = decoder.decode(block(*["<9>h a"] * 50, arrival_ns=ARRIVAL_NS + second * SECOND))
        assert len(rows_of(made, "log")) == 10


# ---- counts ----------------------------------------------------------------------------------------


def counted(batches: list[Any]) -> dict[tuple[str, int], float]:
    """Return the value of each (series key, second)."""
    keys = {row["series_id"]: row["key"] for row in rows_of(batches, "series")}
    return {
        (keys[row["series_id"]], (row["time_ns"] - ARRIVAL_NS) // SECOND): row["value"]
        for row in rows_of(batches, "sample")
    }


def test_lines_are_counted_by_host_with_severity_and_pattern() -> None:
    decoder, _ = make_syslog()
    made: list[Any] = []
    for second, count in ((0, 3), (1, 5), (4, 1)):
        texts = [f"<12>Sep 21 14:13:20 r{n % 2} a: port {n} is full" for n in range(count)]
        made += decoder.decode(block(*texts, arrival_ns=ARRIVAL_NS + second * SECOND))
    made += decoder.advance(ARRIVAL_NS + 5 * SECOND)
    (pattern,) = {f"{row['pattern_id']:016x}" for row in rows_of(made, "log")}
    expected = {}
    for second, by_host in ((0, (2, 1)), (1, (3, 2)), (4, (1, 0))):
        for host, count in enumerate(by_host):
            for dimension in ("severity=warning", f"pattern={pattern}"):
                if count:
                    expected[f"entity=r{host},metric=log_lines,{dimension}", second] = count
    assert counted(made) == expected


def test_patterns_beyond_the_bound_of_a_host_count_together() -> None:
    decoder, _ = make_syslog(patterns_per_host_max=2)
    made = decoder.decode(
        block(*(f"<12>Sep 21 14:13:20 r a: {w} it" for w in ("stop", "go on", "go", "see")))
    )
    made += decoder.advance(ARRIVAL_NS + 2 * SECOND)
    found = counted(made)
    assert found["entity=r,metric=log_lines,pattern=__other__", 0] == 2
    assert sum(found.values()) == 8


def test_series_beyond_the_bound_give_way_and_no_line_is_lost() -> None:
    decoder, context = make_syslog(series_max=64)
    made = decoder.decode(
        block(*(f"<12>Sep 21 14:13:20 router{n} a: it is full" for n in range(500)))
    )
    made += decoder.advance(ARRIVAL_NS + 2 * SECOND)
    assert sum(row["value"] for row in rows_of(made, "sample")) == 1000
    assert context.metrics.value("collector_syslog_bounds_total", bound="series") > 0


# ---- alarms and events -----------------------------------------------------------------------------

DOWN = "<187>94307: xr1 LC/0/2/CPU0:Sep 21 14:13:20.834 : ifmgr[214]: %PKT_INFRA-LINK-3-UPDOWN : "


def test_a_pair_of_messages_raises_and_clears_one_alarm() -> None:
    decoder, _ = make_syslog()
    made = decoder.decode(
        block(*(f"{DOWN}Interface TenGigE0/2/0/4, changed state to {s}" for s in ("Down", "Up")))
    )
    down, up = rows_of(made, "alarm")
    assert (
        down["alarm_id"]
        == up["alarm_id"]
        == foreign_alarm_id("test", "linkDown", "xr1:TenGigE0/2/0/4")
    )
    assert (down["state"], down["severity"], down["raised_ns"]) == ("raised", "major", ARRIVAL_NS)
    assert (up["state"], up["cleared_ns"]) == ("cleared", ARRIVAL_NS)
    assert down["specific_problem"] == "xr1: TenGigE0/2/0/4: link down"
    assert down["probable_cause"] == "lossOfSignal"
    assert [row["event"] for row in rows_of(made, "log")] == ["link-down", "link-up"]


@pytest.mark.parametrize(
    ("message", "event", "kind"),
    [
        ("<189>1: r: Sep 21 14:13:20: %SYS-5-CONFIG_I: Configured from console by a", "config-change", ""),
        ("<189>Sep 21 14:13:20 sw Cfg: %SYS-5-CONFIG_STARTUP: Startup config saved", "config-change", ""),
        ("<190>1: x RP/0/RP0/CPU0:Sep 21 14:13:20 : c[1]: %MGBL-CONFIG-6-DB_COMMIT : by", "config-change", ""),
        ("<189>2026 Sep 21 14:13:20 n %VSHD-5-VSHD_SYSLOG_CONFIG_I: Configured from vty", "config-change", ""),
        ("<189>Sep 21 14:13:20 m mgd[1]: UI_COMMIT: User 'a' requested 'commit'", "config-change", ""),
        ("<166>%ASA-5-111008: User 'a' executed the 'write' command", "config-change", ""),
        ("<188>Sep 21 14:13:20 7750 TMNX: 5 Base SYSTEM-WARNING-tmnxConfigModify-2006 [x]: m", "config-change", ""),
        (("<28>Sep 21 14:13:20 m rpd[1]: RPD_BGP_NEIGHBOR_STATE_CHANGED: BGP peer 192.0.2.9 (External AS 1)"
         " changed state from Established to Idle (event Stop)"), "bgp-peer-down", "bgpPeerDown"),
        ("<189>1: r: Sep 21 14:13:20: %BGP-5-ADJCHANGE: neighbor 192.0.2.9 vpn vrf A Down BGP Notification",
         "bgp-peer-down", "bgpPeerDown"),
        (("<188>Sep 21 2026 14:13:20 ne %%01BGP/3/STATE_CHG_UPDOWN(l)[1]:The status of the peer 192.0.2.9"
         " changed from ESTABLISHED to IDLE."), "bgp-peer-down", "bgpPeerDown"),
        (("<188>Sep 21 14:13:20 7750 TMNX: 5 Base BGP-WARNING-bgpBackwardTransNotification-2002"
         " [Peer 1: 192.0.2.9]:  VR 1: Group a: Peer 192.0.2.9: moved from higher state ESTABLISHED"),
         "bgp-peer-down", "bgpPeerDown"),
        (("<189>1: r: Sep 21 14:13:20: %OSPF-5-ADJCHG: Process 1, Nbr 192.0.2.9 on Gi2 from FULL to DOWN,"
         " Neighbor Down"), "ospf-neighbor-down", "ospfNeighborDown"),
        ("<189>1: r: Sep 21 14:13:20: %CLNS-5-ADJCHANGE: ISIS: Adjacency to r2 (Gi1) Down, hold time expired",
         "isis-adjacency-down", "isisAdjacencyDown"),
        ("<189>1: r: Sep 21 14:13:20: %LDP-5-NBRCHG: LDP Neighbor 192.0.2.9:0 (1) is DOWN",
         "ldp-session-down", "ldpSessionDown"),
        (("<187>1: x RP/0/RP0/CPU0:Sep 21 14:13:20 : fm[1]: %PKT_INFRA-FM-3-FAULT_MAJOR : ALARM_MAJOR "
         ":FAN FAIL :DECLARE :0/FT0:"), "equipment-alarm", "equipmentAlarm"),
        (("<187>1: r: Sep 21 14:13:20: %IOSXE_PEM-3-FANFAIL: The fan in slot P1 is encountering a failure"
         " condition"), "fan-failed", "fanFailure"),
        ("<187>2026 Sep 21 14:13:20 n %PLATFORM-2-PS_FAIL: Power supply 2 failed or shut down",
         "power-failed", "powerSupplyFailure"),
        ("<188>Sep 21 14:13:20 2026 h3c %%10DEV/3/FAN_FAILED: Fan 2 failed.", "fan-failed", "fanFailure"),
        ("<187>2026 Sep 21 14:13:20 n %ETHPORT-3-IF_SFP_ALARM: Interface Ethernet1/3, Low Rx Power Alarm",
         "optical-power", "opticalPower"),
        (("<28>Sep 21 14:13:20 m chassisd[1]: CHASSISD_SNMP_TRAP10: SNMP trap generated: Over Temperature!"
         " (jnxContentsContainerIndex 7, jnxContentsDescr Routing Engine 0)"), "temperature-high",
         "temperatureHigh"),
    ],
)  # fmt: skip
def test_events_of_the_vendors(message: str, event: str, kind: str) -> None:
    decoder, _ = make_syslog()
    made = decoder.decode(block(message))
    assert [row["event"] for row in rows_of(made, "log")] == [event]
    assert [(row["kind"], row["state"]) for row in rows_of(made, "alarm")] == (
        [(kind, "raised")] if kind else []
    )


def read(message_id: str, text: str) -> dict[str, Any]:
    """Return the alarm that a message moves."""
    found = find(rules_of_id(message_id), text)
    alarm = found and found.alarm(source="s", host="r1", message_id=message_id, text=text)
    assert alarm is not None
    return alarm


@pytest.mark.parametrize(
    ("message_id", "down", "up", "other"),
    [
        pytest.param(
            "BGP-5-ADJCHANGE",
            "neighbor 10.1.1.2 vpn vrf BACKUP Down BGP Notification sent",
            "neighbor 10.1.1.2 vpn vrf BACKUP Up",
            "neighbor 10.1.1.2 vpn vrf SHUTDOWN Up",
            id="ios-vrf",
        ),
        pytest.param(
            "ROUTING-BGP-5-ADJCHANGE",
            "neighbor 10.0.0.2 Down - Peer closing down the session (VRF: RED) (AS: 65000)",
            "neighbor 10.0.0.2 Up (VRF: RED) (AS: 65000)",
            "neighbor 10.0.0.2 Up (VRF: BLUE) (AS: 65000)",
            id="xr-vrf",
        ),
        pytest.param(
            "RPD_BGP_NEIGHBOR_STATE_CHANGED",
            "BGP peer 10.0.0.1 (External AS 1) changed state from Established to Idle (event Stop) (instance A)",
            "BGP peer 10.0.0.1 (External AS 1) changed state from OpenConfirm to Established (event x) (instance A)",
            "BGP peer 10.0.0.1 (External AS 1) changed state from OpenConfirm to Established (event x) (instance B)",
            id="junos-instance",
        ),
        pytest.param(
            "BGP-WARNING-bgpBackwardTransNotification-2002",
            "[Peer 5: 10.0.0.2]: VR 5: Group X: Peer 10.0.0.2: moved from higher state to lower",
            "",
            "[Peer 5: 10.0.0.3]: VR 5: Group X: Peer 10.0.0.3: moved from higher state to lower",
            id="sros-peer",
        ),
        pytest.param(
            "OSPF-5-ADJCHG",
            "Process 1, Nbr 10.0.0.2 on Gi0/1 from FULL to DOWN, Neighbor Down: Dead timer expired",
            "Process 1, Nbr 10.0.0.2 on Gi0/1 from LOADING to FULL, Loading Done",
            "Process 1, Nbr 10.0.0.2 on Gi0/2 from LOADING to FULL, Loading Done",
            id="ospf-parallel-links",
        ),
        pytest.param(
            "CLNS-5-ADJCHANGE",
            "ISIS: Adjacency to R2 (Gi0/1) Down, hold time expired",
            "ISIS: Adjacency to R2 (Gi0/1) Up, new adjacency",
            "ISIS: Adjacency to R2 (Gi0/2) Up, new adjacency",
            id="isis-parallel-links",
        ),
        pytest.param(
            "BFDD_TRAP_MHOP_STATE_DOWN",
            "local discriminator: 16, new state: down, peer addr: 10.0.0.2",
            "local discriminator: 16, new state: up, peer addr: 10.0.0.2",
            "local discriminator: 17, new state: up, peer addr: 10.0.0.3",
            id="bfd-multihop",
        ),
        pytest.param(
            "ETH_PORT_CHANNEL-5-PORT_DOWN",
            "port-channel1: Ethernet1/1 is down",
            "port-channel1: Ethernet1/1 is up",
            "port-channel1: Ethernet1/2 is up",
            id="nxos-member",
        ),
    ],
)
def test_a_clear_ends_the_alarm_of_its_own_session_alone(
    message_id: str, down: str, up: str, other: str
) -> None:
    """One address in two VRFs is two sessions, one neighbor on two links two adjacencies."""
    raised = read(message_id, down)
    assert raised["state"] == "raised"
    if up:
        cleared = read(message_id, up)
        assert (cleared["state"], cleared["alarm_id"]) == ("cleared", raised["alarm_id"])
    assert read(message_id, other)["alarm_id"] != raised["alarm_id"]


@pytest.mark.parametrize("reason", ["PARENT_ADMIN_DOWN", "CHANNEL_ADMIN_DOWN", "ADMIN_DOWN"])
def test_what_someone_shut_down_is_no_fault(reason: str) -> None:
    text = "Interface Ethernet1/1.100 is down (Parent interface is admin down)"
    assert read(f"ETHPORT-5-IF_DOWN_{reason}", text)["state"] == "cleared"


ADMIN = "<189>r1 521: *Sep 21 14:13:20: %LINK-5-CHANGED: Interface Gi0/1, changed state to administratively down"
PROTOCOL = "<189>r1 522: *Sep 21 14:13:21: %LINEPROTO-5-UPDOWN: Line protocol on Interface Gi0/1, changed state to {}"
PORT = "<187>r1 523: *Sep 21 14:13:22: %LINK-3-UPDOWN: Interface Gi0/1, changed state to {}"


def states(decoder: Any, *lines: str) -> list[str]:
    return [row["state"] for row in rows_of(decoder.decode(block(*lines)), "alarm")]


@pytest.mark.parametrize("together", [True, False])
def test_the_line_protocol_of_a_port_that_someone_shut_down_is_no_fault(together: bool) -> None:
    decoder, _ = make_syslog()
    shut = [ADMIN, PROTOCOL.format("down")]
    if together:
        assert states(decoder, *shut) == ["cleared"]
    else:
        assert [states(decoder, line) for line in shut] == [["cleared"], []]
    again, _ = make_syslog()
    kept = Snapshot()
    decoder.snapshot(kept)
    again.restore(kept)
    assert states(again, PROTOCOL.format("down")) == []
    up = [PORT.format("up"), PROTOCOL.format("up"), PROTOCOL.format("down")]
    assert states(again, *up) == ["cleared", "cleared", "raised"]
    assert states(decoder, PORT.format("down"), PROTOCOL.format("down")) == ["raised", "raised"]


def test_the_ledger_tells_what_senders_sent_before_they_give_way() -> None:
    decoder, _ = make_syslog(hosts_max=64)
    for n in range(60):
        decoder.decode(
            block("<12>Sep 21 14:13:20 h a: t", sender=f"10.1.0.{n}", arrival_ns=ARRIVAL_NS + n)
        )
    told = rows_of(decoder.advance(ARRIVAL_NS + SECOND), "ledger")
    assert sum(row["sent"] for row in told) == 60


def test_the_table_of_events_is_sound() -> None:
    """Kinds that are raised can be cleared, severities are ours, and states are known once."""
    raised = {rule.kind for rule in rules() if rule.raises or True in rule.states.values()}
    cleared = {
        rule.kind for rule in rules() if rule.raises is False or False in rule.states.values()
    }
    assert raised - {""} <= cleared
    for rule in rules():
        assert rule.ids or rule.apps, rule
        assert rule.severity in SEVERITIES
        assert not rule.kind or (rule.raises is None) == bool(rule.states), rule
        assert not rule.states or (rule.text is not None and "state" in rule.text.groupindex), rule
        assert rule.event


def test_a_message_that_only_looks_like_it_is_none() -> None:
    assert find(rules_of_id("LINK-3-UPDOWN"), "Interface is on its way up") is None
    (row,) = decode("<28>Sep 21 14:13:20 m rpd[1]: RPD_OSPF_NBRUP: OSPF neighbor 1.1.1.1 (realm ospf-v2 "
                    "ge-0/0/0.0 area 0.0.0.0) state changed from Init to 2Way")  # fmt: skip
    assert row["event"] == ""


# ---- patterns --------------------------------------------------------------------------------------


def test_a_pattern_is_told_once_and_its_first_line_is_new() -> None:
    decoder, _ = make_syslog()
    texts = [f"<12>Sep 21 14:13:20 r a: port {n} of card {n + 1} is full" for n in range(3)]
    made = decoder.decode(block(*texts))
    found = rows_of(made, "log")
    assert [row["novelty"] for row in found] == [1, 0, 0]
    assert [row["variables"] for row in found] == ['["0","1"]', '["1","2"]', '["2","3"]']
    (told,) = rows_of(made, "option")
    assert (told["table"], told["key"], told["name"], told["value"]) == (
        "log-pattern", found[0]["pattern_id"], "port <*> of card <*> is full", 0,
    )  # fmt: skip


def test_a_wider_pattern_says_what_is_part_of_it() -> None:
    decoder, _ = make_syslog()
    names = ("alice", "bob", "carol", "dave", "erin", "frank", "grace")
    made = decoder.decode(
        block(*(f"<12>Sep 21 14:13:20 r sshd[1]: session opened for {n} by root" for n in names))
    )
    found = rows_of(made, "log")
    wider = found[-1]["pattern_id"]
    assert found[-1]["variables"] == '["grace"]'
    parts = {row["key"]: row for row in rows_of(made, "option") if row["value"]}
    assert {row["pattern_id"] for row in found[:5]} <= set(parts)
    assert {row["value"] for row in parts.values()} == {wider}
    assert {row["name"] for row in parts.values()} == {"session opened for <*> by root"}


def test_variables_are_json() -> None:
    quoted = rb"'a " + b'"b" \\ \xe4\t' + b"'"
    (row,) = decode(b"<12>Sep 21 14:13:20 r a: got " + quoted + b" and 5 times")
    assert json.loads(row["variables"]) == ["'a \"b\" \\ \u00e4\t'", "5"]


# ---- ledger, bounds, restart -----------------------------------------------------------------------


def test_the_ledger_closes_for_each_sender() -> None:
    decoder, _ = make_syslog()
    decoder.decode(block(*SYSLOG_LINES, "", "\n", sender="192.0.2.1"))
    decoder.decode(block("<13>Sep 21 14:13:22 h a: t", sender="192.0.2.2"))
    first, second = rows_of(decoder.advance(ARRIVAL_NS + SECOND), "ledger")
    assert (first["sent"], first["decoded"], first["undecodable"]) == (
        len(SYSLOG_LINES) + 2, len(SYSLOG_LINES), 2,
    )  # fmt: skip
    assert (second["sent"], second["decoded"], second["datagrams"]) == (1, 1, 1)
    assert second["clock_offset_ns"] == 2 * SECOND
    assert {first["protocol"], second["protocol"]} == {"syslog"}
    assert rows_of(decoder.advance(ARRIVAL_NS + 2 * SECOND), "ledger") == []


def test_hosts_beyond_the_bound_give_way_and_their_lines_stay() -> None:
    decoder, context = make_syslog(hosts_max=64)
    seen = set()
    for n in range(20):
        texts = [f"<12>Sep 21 14:13:20 host{n}x{i} a: t" for i in range(20)]
        found = rows_of(decoder.decode(block(*texts, arrival_ns=ARRIVAL_NS + n * SECOND)), "log")
        assert len(found) == 20
        seen |= {row["host"] for row in found}
        decoder.advance(ARRIVAL_NS + n * SECOND)
    assert len(seen - {"__other__"}) > 300
    assert context.metrics.value("collector_syslog_bounds_total", bound="hosts") > 0


def test_words_beyond_the_bound_give_way_and_rules_stay() -> None:
    decoder, _ = make_syslog(words_max=32)
    for n in range(10):
        texts = [f"<12>Sep 21 14:13:20 h prog{n}x{i}: t" for i in range(10)]
        decoder.decode(block(*texts, arrival_ns=ARRIVAL_NS + n * SECOND))
        decoder.advance(ARRIVAL_NS + n * SECOND)
        made = decoder.decode(block(f"{DOWN}Interface Te1, changed state to Down",
                                    arrival_ns=ARRIVAL_NS + n * SECOND))  # fmt: skip
        assert len(rows_of(made, "alarm")) == 1, n


def test_a_stream_gives_what_datagrams_give() -> None:
    texts = list(lines(120))
    by_datagram, _ = make_syslog()
    by_stream, _ = make_syslog("tcp://[::]:1")
    stream = b"".join(
        text + b"\n" if n % 2 else str(len(text)).encode() + b" " + text
        for n, text in enumerate(texts)
    )
    made = by_stream.decode(
        block(*(stream[i : i + 1000] for i in range(0, len(stream), 1000)), b"")
    )
    assert rows_of(made, "log") == rows_of(by_datagram.decode(block(*texts)), "log")


def test_multi_line_messages_do_not_wait_for_ever() -> None:
    decoder, _ = make_syslog("tcp://[::]:1", multi_line=True)
    assert rows_of(decoder.decode(block("<13>Sep 21 14:13:20 h a: one\ntwo\n")), "log") == []
    assert rows_of(decoder.advance(ARRIVAL_NS + SECOND // 2), "log") == []
    (row,) = rows_of(decoder.advance(ARRIVAL_NS + 2 * SECOND), "log")
    assert row["message"] == "one\ntwo"


def test_a_restart_goes_on_within_the_second() -> None:
    texts = list(lines(200))
    whole, _ = make_syslog()
    first, _ = make_syslog()
    second, _ = make_syslog()
    expected = whole.decode(block(*texts[:100])) + whole.decode(block(*texts[100:]))
    made = first.decode(block(*texts[:100]))
    kept = Snapshot()
    first.snapshot(kept)
    second.restore(kept)
    made += second.decode(block(*texts[100:]))
    end = ARRIVAL_NS + 5 * SECOND
    expected, made = expected + whole.advance(end), made + second.advance(end)
    for schema in ("log", "sample", "option", "alarm"):
        assert rows_of(made, schema) == rows_of(expected, schema)


# ---- the demo network ------------------------------------------------------------------------------


def test_what_the_demos_routers_log_is_understood() -> None:
    """A cut link: both ends' lines raise it, by router and interface; formats share their patterns."""
    network = load_demo_network()
    link = network.links_used()[0]
    fault = Fault("link-cut", link, ARRIVAL_NS + SECOND, ARRIVAL_NS + 20 * SECOND)
    words = SyslogLines(network)
    told = Happenings(network, [fault], seed=3).between(ARRIVAL_NS, ARRIVAL_NS + 30 * SECOND)
    decoder, _ = make_syslog()
    made: list[Any] = []
    for one in told:
        made += decoder.decode(block(words.line(one), arrival_ns=one.time_ns))
    found = rows_of(made, "log")
    assert [row["host"] for row in found] == [one.router for one in told]
    assert all(
        abs(row["time_ns"] - one.time_ns) < SECOND for row, one in zip(found, told, strict=True)
    )
    state: dict[str, list[str]] = {}
    for alarm in rows_of(made, "alarm"):
        state.setdefault(f"{alarm['kind']} {alarm['entity']}", []).append(alarm["state"])
    ends = {f"linkDown {one.router}:{one.interface}" for one in told if one.kind == "link"}
    assert len(ends) == 2
    assert ends <= set(state)
    assert all(states == ["raised", "cleared"] for states in state.values())
    links = {row["pattern_id"] for row in found if row["event"] in ("link-down", "link-up")}
    assert len(links) == 2  # down and up, in both formats
