"""The catalogue of schemas. Field names are IANA/OpenConfig terms in snake_case; see design section 4.

Addresses are two u64, high and low half of the 128-bit IPv6 form in host order; IPv4 is mapped
(::ffff:a.b.c.d), so the high half is 0 and the low half is 0x0000ffff_aabbccdd.
"""

from telemetry.schema import Field, Schema, code, plain, text


def address(name: str, doc: str) -> tuple[Field, Field]:
    """Return the two halves of an address field."""
    return plain(f"{name}_high", "u8", "", doc), plain(f"{name}_low", "u8", "", "low half")


FLOW = Schema(
    "flow",
    1,
    1,
    (
        plain("flow_start_ns", "i8", "ns", "first packet, corrected exporter clock; 0 = absent"),
        plain("flow_end_ns", "i8", "ns", "last packet, corrected exporter clock; 0 = absent"),
        plain("export_ns", "i8", "ns", "export time, corrected exporter clock"),
        plain("arrival_ns", "i8", "ns", "when the kernel received the datagram"),
        *address("exporter_address", "the sending router"),
        plain("observation_domain_id", "u4", "", "v9 source id, sFlow sub-agent id"),
        *address("source_address", "source of the flow"),
        *address("destination_address", "destination of the flow"),
        plain("source_port", "u2", "", "transport source port"),
        plain("destination_port", "u2", "", "transport destination port; ICMP: type * 256 + code"),
        plain("protocol", "u1", "", "IANA protocol number"),
        plain("tcp_flags", "u2", "", "OR of the TCP flags"),
        plain("ip_class_of_service", "u1", "", "TOS or traffic class"),
        plain("ingress_interface", "u4", "", "SNMP ifIndex"),
        plain("egress_interface", "u4", "", "SNMP ifIndex"),
        plain("octets", "u8", "By", "as exported, not multiplied by the sampling rate"),
        plain("packets", "u8", "{packet}", "as exported"),
        plain("sampling_rate", "u4", "", "one packet in so many; 0 = not known (yet)"),
        *address("next_hop_address", "next hop"),
        plain("source_as", "u4", "", "AS number of the source"),
        plain("destination_as", "u4", "", "AS number of the destination"),
        plain("source_prefix_length", "u1", "", "mask bits"),
        plain("destination_prefix_length", "u1", "", "mask bits"),
        plain("vlan_id", "u2", "", "outermost 802.1Q id"),
        plain("mpls_top_label", "u4", "", "20-bit label of the top of the stack"),
        plain("direction", "u1", "", "0 ingress, 1 egress (IPFIX element 61)"),
        plain("forwarding_status", "u1", "", "IPFIX element 89, reason in the low 6 bits"),
        plain("nat_event", "u1", "", "IPFIX element 230"),
        *address("post_nat_source_address", "source after translation"),
        *address("post_nat_destination_address", "destination after translation"),
        plain("post_nat_source_port", "u2", "", "source port after translation"),
        plain("post_nat_destination_port", "u2", "", "destination port after translation"),
        plain("fields_present", "u8", "", "bit i is set where field i of this schema was exported"),
        plain("ingress_vrf_id", "u4", "", "IPFIX element 234; names come as options"),
        plain("egress_vrf_id", "u4", "", "IPFIX element 235"),
        plain("application_id", "u8", "", "IPFIX element 95: engine and selector, as one number"),
    ),
)

SAMPLE = Schema(
    "sample",
    1,
    0,
    (
        plain("time_ns", "i8", "ns", "when it was measured"),
        plain("arrival_ns", "i8", "ns", "when it was received"),
        plain("series_id", "u8"),
        plain("value", "f8", "", "in the unit of its series; NaN = missing"),
        plain("kind", "u1", "", "0 gauge, 1 counter (u64 wrap), 2 delta"),
    ),
)

# Rows whose key is seen for the first time; sent before the rows that use the id.
SERIES = Schema(
    "series",
    1,
    1,
    (
        plain("series_id", "u8"),
        plain("entity_id", "u8", "", "the thing it belongs to: router, link, prefix, service"),
        code("view", "view or stream that the series belongs to"),
        text("entity", "name of the entity, as people call it: `ams1`, `ams1-fra2`"),
        text("key", "canonical key: `exporter=127.1.0.1,interface=3,direction=in`"),
        text("unit", "UCUM code of its values, where the series has one measure"),
    ),
)

# The columns every frame starts with; a view's measures follow, then context, then scores.
FRAME = Schema(
    "frame",
    1,
    0,
    (
        plain("tick_start_ns", "i8", "ns", "the tick is [start, start + tick_seconds)"),
        plain("tick_seconds", "f4", "s"),
        code("view", "name of the view; one frame holds one view"),
        plain("series_id", "u8"),
        plain("row", "u4", "", "dense row in this process's SeriesIndex; meaningless outside"),
        plain("flags", "u1", "", "bits: FrameFlag"),
        plain("lost_share", "f4", "1", "share of the exports behind this row that was lost"),
        plain("moved_share", "f4", "1", "share of octets that belongs to ticks already closed"),
    ),
)

# What each sender sent since the last report, in the protocol's own unit (v5, IPFIX: records; v9,
# sFlow: datagrams; others: messages). sent = decoded + lost_wire + lost_kernel + undecodable + shed.
LEDGER = Schema(
    "ledger",
    2,
    0,
    (
        plain("arrival_ns", "i8", "ns", "frontier at which this report was made"),
        *address("exporter_address", "the sending router"),
        plain("observation_domain_id", "u4"),
        code("protocol", "netflow5, netflow9, ipfix, sflow5; others, such as syslog, are no flows"),
        plain("sent", "u8", "", "by the exporter's sequence numbers"),
        plain("decoded", "u8"),
        plain("lost_wire", "i8", "", "negative when late datagrams make up for counted losses"),
        plain("lost_kernel", "u8", "", "estimate where several exporters share the socket"),
        plain(
            "undecodable", "i8", "", "negative when sets that waited for a template were decoded"
        ),
        plain("shed", "u8", "", "not looked at: over the limit of datagrams a second"),
        plain("datagrams", "u8", "", "datagrams received"),
        plain("records", "u8", "", "flow records decoded"),
        plain("clock_offset_ns", "i8", "ns", "exporter clock minus ours, estimated"),
        plain("no_template", "i8", "", "part of undecodable: its template has not come (yet)"),
        plain("malformed", "u8", "", "part of undecodable: lengths or counts that cannot be"),
        plain("duplicate", "u8", "", "came twice; not part of the sum"),
        plain("restarts", "u8", "", "times the sequence began anew"),
        plain("uptime_drift_ppm", "f4", "1e-6", "by how much its wall clock outruns its uptime"),
    ),
)

FLOW_PROTOCOLS = ("netflow5", "netflow9", "ipfix", "sflow5")  # whose losses count in flow views

# The priority sample of a tick: the records that stand behind its series, for the explain block.
EVIDENCE = Schema(
    "evidence",
    1,
    0,
    (
        plain("tick_start_ns", "i8", "ns"),
        code("view"),
        plain("series_id", "u8"),
        *address("source_address", "source of the flow"),
        *address("destination_address", "destination of the flow"),
        plain("source_port", "u2"),
        plain("destination_port", "u2"),
        plain("protocol", "u1"),
        plain("tcp_flags", "u2"),
        *address("exporter_address", "the sending router"),
        plain("ingress_interface", "u4"),
        plain("egress_interface", "u4"),
        plain("octets", "u8", "By", "estimate: multiplied by the sampling rate"),
        plain("packets", "u8", "{packet}", "estimate"),
        plain("priority", "f8", "", "weight / uniform: the largest are kept"),
    ),
)

# Options data: reference tables that exporters send about themselves.
OPTION = Schema(
    "option",
    1,
    0,
    (
        plain("arrival_ns", "i8", "ns"),
        *address("exporter_address", "the sending router"),
        plain("observation_domain_id", "u4"),
        code(
            "table",
            "interface, vrf, application, sampler, log-pattern, lldp, device, exporter, bgp-session,"
            " link-state",
        ),
        plain("key", "u8", "", "ifIndex, vrf id, application id, sampler id, pattern_id"),
        text(
            "name",
            "its name; the template of a log pattern; what an exporter sends, as JSON",
        ),
        plain(
            "value",
            "u8",
            "",
            "sampling rate; the pattern that a log pattern became part of; the key of the session over"
            " which link state is told; else 0",
        ),
    ),
)

# A detector's finding about one series and measure in one tick.
ANOMALY = Schema(
    "anomaly",
    1,
    0,
    (
        plain("tick_start_ns", "i8", "ns"),
        plain("tick_seconds", "f4", "s"),
        code("view"),
        plain("series_id", "u8"),
        code("measure", "octets, packets, flows, distinct_source_address, ..."),
        code("detector", "point, level, trend, silence, attack, scan, exporter_silent, ..."),
        code(
            "disposition",
            "alert (inside the budget), hard (outside it), digest (over it), "
            "would (inside it, but the class is on probation)",
        ),
        plain("actual", "f8", "", "in the measure's unit a second where it is a rate"),
        plain("expected", "f8"),
        plain("lower", "f8"),
        plain("upper", "f8"),
        plain("score", "f8", "", ">= 0, open-ended, ordered at the top, 6 significant digits"),
        plain("p_value", "f8", "", "calibrated; 1 = as expected"),
        plain("since_ns", "i8", "ns", "start of the first tick of this run of findings"),
        text("detail", "JSON: what this detector wants to say (vector, targets, ...)"),
    ),
)

# X.733 alarm with RFC 8632 life; one row is one change of one alarm.
ALARM = Schema(
    "alarm",
    1,
    1,
    (
        plain("changed_ns", "i8", "ns", "when this change happened, by the arrival frontier"),
        plain(
            "alarm_id", "u8", "", "hash of the key: entity, kind; no severity, no state, no time"
        ),
        plain("raised_ns", "i8", "ns", "start of this occurrence"),
        plain("cleared_ns", "i8", "ns", "0 while it is up"),
        code("state", "raised, updated, cleared, closed"),
        code("severity", "critical, major, minor, warning, indeterminate"),
        code("kind", "alarm type: ours (link-cut, ...) or what the foreign system calls it"),
        code("event_type", "X.733 event type"),
        code("probable_cause", "X.733 probable cause"),
        plain("entity_id", "u8"),
        text("entity", "managed object, as people call it"),
        text("specific_problem", "one line for people"),
        text("additional_text", "longer text for people"),
        text("source", "who says it: `tocsin`, or the foreign manager"),
        text("foreign_id", "its id there"),
        text("explain", "JSON of the explain block"),
        plain("occurrence", "u4", "", "how often this key was raised"),
        # 1.1: what operators and noise control say of it
        code("operator_state", "none, acknowledged, shelved, out_of_service, closed"),
        code("suppressed", "why nobody is told: planned-work, silence, parent, storm, ..."),
        text("operator", "who acknowledged or shelved it"),
        text("operator_note", "and why"),
        plain("shelved_until_ns", "i8", "ns", "0 while it is not shelved"),
        plain("incident_id", "u8", "", "the incident it belongs to, 0 for none"),
        plain("tally", "u4", "", "how often it was reported in this occurrence"),
        code("origin", "the system that caused this change, empty for the network and us"),
    ),
)

# Every change of config, table, model or operator action, with the tick from which it counts.
CONTROL = Schema(
    "control",
    1,
    0,
    (
        plain("tick_start_ns", "i8", "ns", "counts from this tick boundary on"),
        code(
            "kind",
            "start, gap, config, table, model, alias, shard, stop; operators: acknowledge, "
            "unacknowledge, shelve, unshelve, silence, expire, maintenance, out_of_service, close, "
            "merge, split, feedback, probation; from the teacher: triage, scores",
        ),
        text("payload", "JSON"),
    ),
)

# Log lines. The template of a pattern comes as an `option` row of table "log-pattern".
LOG = Schema(
    "log",
    1,
    1,
    (
        plain("time_ns", "i8", "ns", "the sender's clock where it is believed, else arrival"),
        plain("arrival_ns", "i8", "ns"),
        code("host", "as the line names it; else the sender's address"),
        plain("facility", "u1"),
        plain("severity", "u1", "", "syslog severity 0-7"),
        code("app", "program or process that wrote it"),
        plain("pattern_id", "u8", "", "mined log pattern; 0 = none (beyond the bound on patterns)"),
        text("variables", "JSON list"),
        text("message"),
        code("event", "what it means, where known: config-change, link-down, bgp-peer-down, ..."),
        code("message_id", "RFC 5424 MSGID, or the vendor's: LINEPROTO-5-UPDOWN, RPD_OSPF_NBRDOWN"),
        text("process_id"),
        text("structured_data", "RFC 5424 structured data as it came"),
        plain("novelty", "u1", "", "1 = the first line of a new pattern"),
    ),
)

ROUTE = Schema(
    "route",
    1,
    2,
    (
        plain("time_ns", "i8", "ns"),
        plain("arrival_ns", "i8", "ns"),
        *address("peer_address", "BGP peer"),
        *address("prefix", "network"),
        plain("prefix_length", "u1"),
        plain(
            "withdrawn", "u1", "", "1 = withdraw, 0 = announce, 2 = all routes of the peer ended"
        ),
        plain("as_path_hash", "u8"),
        plain("as_path_length", "u2"),
        plain("origin_as", "u4"),
        plain("communities_hash", "u8", "", "standard, extended and large ones, in any order"),
        *address("exporter_address", "the router that says so"),
        plain("peer_as", "u4"),
        plain("peer_distinguisher", "u8", "", "tells peers of one address apart: VRF, instance"),
        plain("peer_type", "u1", "", "BMP: 0 global, 1 RD, 2 local instance, 3 Loc-RIB"),
        plain(
            "rib",
            "u1",
            "",
            "0 Adj-RIB-In, 1 after policy, 2 Adj-RIB-Out, 3 after policy, 4 Loc-RIB",
        ),
        plain("afi", "u2", "", "IANA address family"),
        plain(
            "safi",
            "u1",
            "",
            "1 unicast, 2 multicast, 4 labelled, 128 VPN, 70 EVPN, 133 FlowSpec, 134 of a VPN",
        ),
        plain("path_id", "u4", "", "RFC 7911; 0 where routes have none"),
        plain("route_distinguisher", "u8"),
        *address("next_hop_address", "next hop"),
        plain("origin", "u1", "", "0 IGP, 1 EGP, 2 incomplete"),
        plain("multi_exit_discriminator", "u4"),
        plain("local_preference", "u4"),
        plain("attributes", "u1", "", "bits: 1 has a MED, 2 has a local preference"),
        plain("mpls_label", "u4", "", "20-bit label; EVPN: the upper 20 bits of label or VNI"),
        plain("mac_address", "u8", "", "EVPN MAC/IP route"),
        plain("evpn_route_type", "u1", "", "0 = no EVPN route"),
        plain("route_key", "u8", "", "hash of what makes it this route in its family"),
        plain(
            "change",
            "u1",
            "",
            "0 not tracked, 1 new, 2 same path, 3 other path, 4 other origin, "
            "5 withdrawn, 6 was not there",
        ),
        text("flow_rule", "FlowSpec: what it matches, `destination 198.51.100.7/32; protocol udp`"),
        code("flow_actions", "and what is done to it, `rate-limit 125000; mark 8` (bytes/s)"),
    ),
)

USER_EVENT = Schema(
    "user_event", 1, 0, (plain("time_ns", "i8", "ns"), code("topic"), text("body", "JSON"))
)

INCIDENT = Schema(
    "incident",
    1,
    1,
    (
        plain("changed_ns", "i8", "ns"),
        plain("incident_id", "u8"),
        plain("opened_ns", "i8", "ns"),
        plain("closed_ns", "i8", "ns", "0 while open"),
        code("severity"),
        text("title"),
        text("causes", "JSON: ranked causes with evidence"),
        text("alarms", "JSON: alarm ids"),
        # 1.1: one alert for each incident is made of this row alone
        code("state", "raised, updated, cleared; pending = not told yet; merged = see its parent"),
        plain("lead_alarm_id", "u8", "", "the alarm that it was first told as"),
        # It reads as one of its alarms, the one that seems to be the cause.
        code("kind", "of the alarm it reads as"),
        text("entity", "of the alarm it reads as"),
        code("event_type", "X.733 event type of the alarm it reads as"),
        code("probable_cause", "X.733 probable cause of the alarm it reads as"),
        text("source", "who says the alarm it reads as"),
        text("foreign_id", "of the alarm it reads as"),
        text("symptoms", "JSON: the other alarms, as people call them, the first 50"),
        plain("alarms_count", "u4", "", "how many alarms belong to it"),
        text("explain", "JSON of the explain block"),
        text("impact", "JSON: what it touches and what redundancy is left"),
        plain("occurrence", "u4", "", "of the alarm it reads as"),
        plain("parent_incident_id", "u8", "", "into which it was merged, 0 for none"),
        code("operator_state", "none, acknowledged"),
        text("operator", "who acknowledged it"),
        code("origin", "the system that caused this change, empty for the network and us"),
    ),
)

# What was found but is over the alert budget: one row an hour and class.
DIGEST = Schema(
    "digest",
    1,
    1,
    (
        plain("hour_start_ns", "i8", "ns"),
        code("view"),
        code("detector"),
        code("measure"),
        plain("findings", "u8", "", "how many findings of this class the hour had"),
        text("entity", "of the strangest one"),
        plain("score", "f8", "", "of the strangest one"),
        plain("actual", "f8"),
        plain("expected", "f8"),
        plain("time_ns", "i8", "ns", "start of the tick of the strangest one"),
        plain("would", "u8", "", "1.1: of the findings, those that only probation held back"),
    ),
)

CATALOGUE = {
    schema.name: schema
    for schema in (
        FLOW,
        SAMPLE,
        SERIES,
        FRAME,
        LEDGER,
        EVIDENCE,
        OPTION,
        ANOMALY,
        ALARM,
        CONTROL,
        LOG,
        ROUTE,
        USER_EVENT,
        INCIDENT,
        DIGEST,
    )
}


class FrameFlag:
    """Bits of a frame's `flags` column."""

    INCOMPLETE = 1  # first tick after a start: raises no volume or silence alarm
    OTHER = 2  # the row is `__other__`: what did not fit the cap
    SAMPLING_UNKNOWN = 4  # some records came without a known sampling rate
    CAPPED = 8  # the key cap was full: this series counts in `__other__`, its zeros say nothing


# Fields of FLOW that are counts a view multiplies by the sampling rate.
FLOW_FIELD_BIT = {field.name: bit for bit, field in enumerate(FLOW.fields)}
assert len(FLOW.fields) <= 64, "fields_present has 64 bits"
